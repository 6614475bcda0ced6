"""Downloads from a real HTTP server on this machine, which fails in the ways that servers do."""

import datetime
import hashlib
import http.server
import ipaddress
import os
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cifar100.archive.reader import read_archive
from cifar100.running.errors import PipelineError, printable
from stages.download import sources, transfer
from stages.download.sources import fetch_archive
from tests.conftest import ROOT, Workspace, clone_working_tree

# Of the caller's shell: what would lead the requests of these tests elsewhere.
VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"]
VARIABLES += [name.lower() for name in VARIABLES] + ["CURL_CA_BUNDLE", "CIFAR100_ARCHIVE"]

CONTENT = bytes(range(256)) * 4000  # about 1 MB


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the requested name; counts requests and bytes."""

    asked: ClassVar[Counter[str]] = Counter()
    sent: ClassVar[Counter[str]] = Counter()
    broken_after = 300_000  # bytes, for the names that break off

    def do_GET(self) -> None:
        name = self.path.strip("/")
        Handler.asked[name] += 1
        first = Handler.asked[name] == 1
        start = self.wanted_start()
        if name in ("403", "404", "500"):
            self.send_error(int(name))
        elif name == "down" or (name == "busy" and first):
            self.send_error(503)
        elif name.startswith("wait=") and first:
            self.send_response(503)
            self.send_header("Retry-After", name.removeprefix("wait="))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif name == "loop":
            self.redirect("/loop")
        elif name == "long-redirect":
            self.redirect("/good", body=bytes(2**20), times=100)
        elif name == "nowhere":
            self.redirect("http://[")
        elif name == "moved":
            self.redirect("/good")
        elif name == "page":
            self.answer(name, b"<html>Service moved</html>")
        elif name == "no-ranges":
            self.answer(name, CONTENT, upto=self.broken_after if first else None)
        elif name == "other-range" and start:
            self.answer(name, CONTENT[start - 5 :], start=start - 5)
        elif name == "silent" or (name == "stalls" and first):
            self.answer(name, CONTENT[start:], start=start, upto=1000, wait=3)
        elif name == "drips":
            self.drip(name)
        elif name.startswith("length="):
            self.answer(name, b"", length=name.removeprefix("length=").replace("+", " "))
        elif name == "cut-chunks":
            self.answer(name, b"5\r\nabcde\r\n0\r\n\r\n", length="1000", chunked=True)
        elif name == "endless":
            self.answer(name, CONTENT, length=None)
        elif name == "never-fits":
            body = CONTENT[::-1] if start else CONTENT
            self.answer(name, body[start:], start=start, upto=None if start else self.broken_after)
        elif name == "always-short" or (name in ("breaks", "other-range", "changed") and first):
            self.answer(name, CONTENT[start:], start=start, upto=self.broken_after)
        elif name == "changed" and start:
            self.answer(name, CONTENT[::-1][start:], start=start)
        elif start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.answer(name, CONTENT[start:], start=start)

    def wanted_start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    def redirect(self, target: str, body: bytes = b"", times: int = 1) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", str(times * len(body)))
        self.end_headers()
        try:
            for _ in range(times):
                self.wfile.write(body)
                Handler.sent["redirect"] += len(body)
        except OSError:
            pass  # the client has left

    def answer(
        self,
        name: str,
        body: bytes,
        start: int = 0,
        upto: int | None = None,
        wait: float = 0,
        length: str | None = "right",
        chunked: bool = False,
    ) -> None:
        self.send_response(206 if start else 200)
        if length is not None:
            self.send_header("Content-Length", length.replace("right", str(len(body))))
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/*")
        self.end_headers()
        Handler.sent[name] += len(body[:upto])  # before the client can have got it all
        self.wfile.write(body[:upto])
        time.sleep(wait)

    def drip(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        try:
            for byte in CONTENT[:100]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            pass  # the client has had enough

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Handler.asked.clear()
    Handler.sent.clear()
    monkeypatch.setattr(transfer, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(transfer, "TIMEOUT", 0.5)
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        address = f"http://127.0.0.1:{running.server_address[1]}"
        monkeypatch.setattr(sources, "SECOND_SOURCE", f"{address}/404")
        yield address
        running.shutdown()


def check(path: Path) -> str:
    if path.read_bytes() != CONTENT:
        raise PipelineError(f"{path}: not the archive")
    return "right"


@pytest.mark.parametrize("name", ["good", "moved"])
def test_address_is_fetched_and_checked(server, tmp_path, name):
    assert fetch_archive(f"{server}/{name}", tmp_path / "a", check) == f"{server}/{name} (right)"
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert not list((tmp_path / "parts").iterdir())


@pytest.mark.parametrize(
    "name", ["busy", "breaks", "stalls", "no-ranges", "other-range", "changed"]
)
def test_failure_that_passes_is_overcome(server, tmp_path, name, capsys):
    assert fetch_archive(f"{server}/{name}", tmp_path / "a", check) == f"{server}/{name} (right)"
    assert capsys.readouterr().err
    assert Handler.asked["404"] == 0  # the second source was not needed


def test_rest_alone_is_fetched_after_a_break(server, tmp_path):
    fetch_archive(f"{server}/breaks", tmp_path / "a", check)
    assert Handler.asked["breaks"] == 2
    assert Handler.sent["breaks"] == len(CONTENT)


def test_download_resumes_in_a_later_run(server, tmp_path, monkeypatch):
    """Also one that had come to its end, and was killed before its file was used."""
    monkeypatch.setattr(transfer, "MAX_ATTEMPTS", 1)
    for sent in (Handler.broken_after, len(CONTENT)):
        with pytest.raises(PipelineError, match="the connection broke off"):
            fetch_archive(f"{server}/breaks", tmp_path / "a", check)
        (part,) = (tmp_path / "parts").iterdir()
        part.write_bytes(CONTENT[:sent])
        Handler.sent.clear()
        assert "right" in fetch_archive(f"{server}/breaks", tmp_path / "a", check)
        assert Handler.sent["breaks"] == len(CONTENT) - sent
        Handler.asked.clear()


def test_body_of_a_redirect_is_not_fetched(server, tmp_path):
    assert "right" in fetch_archive(f"{server}/long-redirect", tmp_path / "a", check)
    assert Handler.sent["redirect"] < 20 * 2**20  # what fits into the buffers of the system


def test_complete_download_is_not_fetched_again_after_its_check_was_interrupted(server, tmp_path):
    def interrupted(_path: Path) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_archive(f"{server}/good", tmp_path / "a", interrupted)
    Handler.sent.clear()
    assert "right" in fetch_archive(f"{server}/good", tmp_path / "a", check)
    assert Handler.sent["good"] == 0
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_pieces_that_do_not_fit_are_fetched_from_the_beginning(server, tmp_path, capsys):
    with pytest.raises(PipelineError, match="never-fits: the connection broke off"):
        fetch_archive(f"{server}/never-fits", tmp_path / "a", check)
    assert capsys.readouterr().err.count("the pieces do not fit; from the beginning") == 1
    assert Handler.asked["never-fits"] == 3


@pytest.mark.parametrize(("seconds", "limit", "least", "most"), [(1, 60, 1, 5), (9999, 1, 1, 5)])
def test_server_says_how_long_to_wait_within_limits(
    server, tmp_path, monkeypatch, seconds, limit, least, most
):
    monkeypatch.setattr(transfer, "MAX_PAUSE", limit)
    started = time.monotonic()
    fetch_archive(f"{server}/wait={seconds}", tmp_path / "a", check)
    assert least <= time.monotonic() - started < most


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name",
    [
        *("404", "page", "down", "always-short", "loop", "drips", "cut-chunks", "never-fits"),
        *("length=abc", "length=10,+11", "length=" + "9" * 5000),
    ],
)
def test_second_source_is_used_when_the_first_fails(server, tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "SECOND_SOURCE", f"{server}/good")
    monkeypatch.setattr(Handler, "broken_after", 100)
    assert fetch_archive(f"{server}/{name}", tmp_path / "a", check) == f"{server}/good (right)"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("403", "the server answers 403 Forbidden"),
        ("404", "the server answers 404 Not Found"),
        ("500", "the server answers 500"),
        ("page", "the file received: not the archive"),
        ("down", "the server answers 503"),
        ("always-short", "the connection broke off"),
        ("loop", "redirects more than 5 times"),
        ("nowhere", "Invalid IPv6 URL"),
        ("silent", "no byte within 0.5 s"),
        ("drips", "fewer than 2,000 bytes per second"),
        ("cut-chunks", "the file received: not the archive"),
        ("never-fits", "the connection broke off"),
        ("length=abc", "the file received: not the archive"),
        ("length=-5", "the file received: not the archive"),
        ("length=10,+11", "Content-Length contained multiple unmatching values"),
        ("length=" + "9" * 5000, "the file received: not the archive"),
    ],
)
def test_failure_of_all_sources_is_one_line_that_names_each(
    server, tmp_path, monkeypatch, name, reason
):
    monkeypatch.setattr(Handler, "broken_after", 100)
    with pytest.raises(PipelineError, match=reason) as caught:
        fetch_archive(f"{server}/{name}", tmp_path / "a", check)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{server}/{name}: " in message
    assert f"{server}/404: " in message


def test_unreachable_address_is_told_without_internals(server, tmp_path):
    with pytest.raises(PipelineError, match="closed: could not connect") as caught:
        fetch_archive("http://127.0.0.1:9/closed", tmp_path / "a", check)
    assert "object at 0x" not in str(caught.value)
    assert "CIFAR100_ARCHIVE" in str(caught.value)


def test_local_copy_is_tried_first(server, tmp_path, monkeypatch):
    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    monkeypatch.setenv("CIFAR100_ARCHIVE", str(local))
    assert fetch_archive(f"{server}/404", tmp_path / "a", check) == f"{local} (right)"


def test_local_copy_may_be_an_address(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR100_ARCHIVE", f"{server}/good")
    fetch_archive(f"{server}/404", tmp_path / "a", check)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_missing_local_copy_is_named_with_its_full_path(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR100_ARCHIVE", "nowhere/a.tar.gz")
    with pytest.raises(PipelineError, match="no such file") as caught:
        fetch_archive(f"{server}/404", tmp_path / "a", check)
    assert str(Path("nowhere/a.tar.gz").resolve()) in str(caught.value)


def test_disk_without_room_is_said_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(PipelineError, match="1,024,000 bytes are needed, and the disk has 1,000"):
        fetch_archive(f"{server}/good", tmp_path / "a", check)
    assert not (tmp_path / "a").exists()


def test_endless_file_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MAX_BYTES", 500_000)
    with pytest.raises(PipelineError, match="1,024,000 bytes are too many"):
        fetch_archive(f"{server}/good", tmp_path / "a", check)
    with pytest.raises(PipelineError, match="endless: it does not end"):
        fetch_archive(f"{server}/endless", tmp_path / "a", check)
    assert not list((tmp_path / "parts").iterdir())  # of no use to a later run


# What stands between this machine and the internet, and what CIFAR100_ARCHIVE may be.


class CountingServer(http.server.ThreadingHTTPServer):
    """Counts its connections, also those that end before a request."""

    daemon_threads = True
    connections = 0

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[CountingServer]:
    with CountingServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield running
        running.shutdown()


def self_signed(path: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1 that nobody else has signed into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(private + certificate.public_bytes(pem))
    return path


def test_untrusted_certificate_is_told_at_once_and_can_be_named(server, tmp_path, monkeypatch):
    bundle = self_signed(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    with serving(Handler) as secure:
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        address = f"https://127.0.0.1:{secure.server_address[1]}/good"
        with pytest.raises(PipelineError) as caught:
            fetch_archive(address, tmp_path / "a", check)
        assert secure.connections == 1  # another attempt would end the same way
        message = str(caught.value)
        assert f"{address}: its certificate is not trusted (self-signed certificate)" in message
        assert "REQUESTS_CA_BUNDLE" in message
        assert "CIFAR100_ARCHIVE" in message
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        assert fetch_archive(address, tmp_path / "a", check) == f"{address} (right)"
        (tmp_path / "text").write_text("not a certificate")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "text"))
        with pytest.raises(PipelineError, match=r"no secure connection .*certificate"):
            fetch_archive(address, tmp_path / "a", check)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
        with pytest.raises(PipelineError, match=r"https.*invalid path: .*nowhere\.pem"):
            fetch_archive(address, tmp_path / "a", check)


def test_server_that_speaks_no_tls_is_told_at_once(server, tmp_path):
    with serving(Handler) as plain:
        address = f"https://127.0.0.1:{plain.server_address[1]}/good"
        with pytest.raises(PipelineError, match="good: no secure connection") as caught:
            fetch_archive(address, tmp_path / "a", check)
        assert plain.connections == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "what answers there does not speak HTTP (SSH-2.0-OpenSSH_9.2)",
        ),
        (b"\x1b\0\xff\n\n", "what answers there does not speak HTTP"),
        (b"", "the connection was closed without an answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://a/b\r\n\r\n", "No connection adapters were found"),
    ],
)
def test_server_of_another_kind_is_told(server, tmp_path, answer, reason):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), None) as other:
        other.finish_request = lambda connection, _address: connection.sendall(answer)
        threading.Thread(target=other.serve_forever, args=[0.01], daemon=True).start()
        with pytest.raises(PipelineError) as caught:
            fetch_archive(f"http://127.0.0.1:{other.server_address[1]}/a", tmp_path / "a", check)
        other.shutdown()
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        self.send_error(407)

    def do_GET(self) -> None:
        self.send_error(407)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_asks_for_a_password_is_told_at_once(server, tmp_path, monkeypatch, scheme):
    monkeypatch.setattr(sources, "SECOND_SOURCE", f"{scheme}://second.example/a")
    with serving(Proxy) as proxy:
        address = f"127.0.0.1:{proxy.server_address[1]}"
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://me:secret@{address}")
        with pytest.raises(PipelineError) as caught:
            fetch_archive(f"{scheme}://first.example/a", tmp_path / "a", check)
        assert proxy.connections == 2  # one for each source
    message = str(caught.value)
    assert "first.example/a: the proxy asks for a name and a password (407)" in message
    assert f"{scheme.upper()}_PROXY" in message
    assert "secret" not in message


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("kind", "proxy", "reason"),
    [
        ("http", "127.0.0.1:9", "the proxy 127.0.0.1:9 cannot be used (Connection refused)"),
        ("http", "nowhere.invalid:3128", "the proxy nowhere.invalid:3128 cannot be used ("),
        ("socks5", "127.0.0.1:9", "the proxy 127.0.0.1:9 cannot be used (Missing dependencies"),
        ("http", "", "the proxy given cannot be used (Please check proxy URL"),
    ],
)
def test_proxy_that_cannot_be_used_is_named(
    server, tmp_path, monkeypatch, scheme, kind, proxy, reason
):
    monkeypatch.setattr(sources, "SECOND_SOURCE", f"{scheme}://second.example/a")
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"{kind}://{proxy and f'me:secret@{proxy}'}")
    with pytest.raises(PipelineError) as caught:
        fetch_archive(f"{scheme}://first.example/a", tmp_path / "a", check)
    message = str(caught.value)
    assert f"first.example/a: {reason}" in message
    assert f"check the variable {scheme.upper()}_PROXY" in message
    assert "secret" not in message
    assert "object at 0x" not in message


def test_name_that_does_not_resolve_is_told(server, tmp_path):
    with pytest.raises(PipelineError) as caught:
        fetch_archive("https://nowhere.invalid/a", tmp_path / "a", check)
    assert "a: the name nowhere.invalid does not resolve" in str(caught.value)


@pytest.mark.parametrize("value", ["", "  "])
def test_empty_name_of_a_local_copy_is_as_none(server, tmp_path, monkeypatch, value, capsys):
    monkeypatch.setenv("CIFAR100_ARCHIVE", value)
    assert fetch_archive(f"{server}/good", tmp_path / "a", check) == f"{server}/good (right)"
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "form", ["{folder}", "~/my data", "~/my data/{name}", "my data/{name}", "{uri}", "{FILE}"]
)
def test_local_copy_is_found_in_each_form(server, tmp_path, monkeypatch, form):
    """A folder, below the home folder, relative, with a space, as an address of a file."""
    name = "cifar-100-python.tar.gz"
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / name).write_bytes(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    uri = (folder / name).as_uri()
    value = form.format(folder=folder, name=name, uri=uri, FILE=uri.replace("file:", "FILE:"))
    monkeypatch.setenv("CIFAR100_ARCHIVE", value)
    assert fetch_archive(f"{server}/404", tmp_path / "a", check) == f"{value} (right)"
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("empty", "{cwd}/empty: holds neither cifar-100-python.tar.gz nor its files"),
        ("gone/a.tar.gz", "no such file (looked for {cwd}/gone/a.tar.gz); give an absolute path"),
        ("~nobody-here/a", "no such file (looked for {cwd}/~nobody-here/a)"),
        ("file://{cwd}/g%20one", "no such file (looked for {cwd}/g one)"),
        ("s3://bucket/a.tar.gz", "give a path, or an address that begins with http:// or https://"),
        ("pipe", "{cwd}/pipe: is no regular file"),
        ("http://[", "Invalid IPv6 URL"),
        ("file://[/a", "Invalid IPv6 URL"),
        ("HTTP://127.0.0.1:9/a", "could not connect"),
        ("{long}", "File name too long"),
        ("/dev/zero", "/dev/zero: is no regular file"),
        ("a\nb", "no such file"),
        ("ftp://host/a.tar.gz", "give a path, or an address that begins with http:// or https://"),
        ("http://", "No host supplied"),
        ("http://:80/a", "No host supplied"),
        ("http://host:99999/a", "Failed to parse"),
        ("http://" + "x" * 300 + "/a", "is no address ("),
    ],
)
def test_value_that_names_no_archive_is_one_line(server, tmp_path, monkeypatch, value, reason):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    value = value.format(cwd=tmp_path, long="x" * 300)
    monkeypatch.setenv("CIFAR100_ARCHIVE", value)
    with pytest.raises(PipelineError) as caught:
        fetch_archive(f"{server}/404", tmp_path / "a", check)
    assert f"tried: {printable(value)}: " in str(caught.value)
    assert reason.format(cwd=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


UNREADABLE = """
import os, sys
from pathlib import Path
from stages.download.sources import fetch_archive
from cifar100.running.errors import PipelineError
if os.getuid() == 0:
    os.setuid(65534)  # root may read everything
try:
    fetch_archive("http://127.0.0.1:9/a", Path(sys.argv[1]), lambda path: "right")
except PipelineError as error:
    print(error)
"""


def test_local_copy_that_may_not_be_read_is_one_line(tmp_path):
    with tempfile.TemporaryDirectory() as name:  # one that others may enter
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "a.tar.gz").touch(0o000)
        (folder / "run").mkdir(0o777)
        (folder / "run").chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", UNREADABLE, str(folder / "run/target")],
            cwd=folder / "run",
            env=os.environ
            | {"CIFAR100_ARCHIVE": str(folder / "a.tar.gz"), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert f"tried: {folder}/a.tar.gz: Permission denied; " in done.stdout, done.stderr


@pytest.mark.parametrize("place", ["", "cifar-100-python"])
def test_unpacked_archive_is_packed(server, tmp_path, monkeypatch, archive_files, samples, place):
    for name, data in archive_files.items():
        (tmp_path / "cifar-100-python").mkdir(exist_ok=True)
        (tmp_path / "cifar-100-python" / name).write_bytes(data)
    monkeypatch.setenv("CIFAR100_ARCHIVE", str(tmp_path / place))
    packed = []
    for target in (tmp_path / "a", tmp_path / "b"):
        fetch_archive(f"{server}/404", target, lambda _path: "right")
        packed.append(target.read_bytes())
    train, _, _ = read_archive(tmp_path / "a")
    np.testing.assert_array_equal(train.images, samples.images)
    assert packed[0] == packed[1]


def test_archive_that_paddle_has_fetched_is_tried_before_the_network(
    server, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HOME", str(tmp_path))
    cached = tmp_path / ".cache/paddle/dataset/cifar/cifar-100-python.tar.gz"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert fetch_archive(f"{server}/good", tmp_path / "a", check) == f"{cached} (right)"
    assert not Handler.asked
    cached.write_bytes(b"damaged")
    assert fetch_archive(f"{server}/good", tmp_path / "a", check) == f"{server}/good (right)"
    assert f"download: {cached}: " in capsys.readouterr().err


ARCHIVE = "data/raw/cifar-100-python.tar.gz"


@pytest.fixture
def with_archive(tmp_path) -> Workspace:
    """A clone in which a user has put the archive where the stage writes it; no network."""
    workspace = clone_working_tree(tmp_path / "repository")
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    workspace.set_params(archive_md5=f'"{md5}"', archive_url="http://127.0.0.1:9/closed")
    (workspace.path / ARCHIVE).parent.mkdir(parents=True, exist_ok=True)
    (workspace.path / ARCHIVE).write_bytes(CONTENT)
    return workspace


def fetch(workspace: Workspace, tmp_path: Path, ok: bool = True, **environment: str) -> str:
    """The output of the stage, started by DVC, which deletes other outputs before."""
    bare = {"no_proxy": "*", "HOME": str(tmp_path)}
    return workspace.run("dvc", "repro", "--single-item", "download", ok=ok, **bare, **environment)


@pytest.mark.parametrize(
    "value",
    [ARCHIVE, *(pytest.param(v, marks=pytest.mark.slow) for v in ("", "data/raw", "{cwd}/data"))],
)
def test_archive_that_lies_where_the_stage_writes_it_is_used(with_archive, tmp_path, value):
    value = value.format(cwd=with_archive.path)
    output = fetch(with_archive, tmp_path, CIFAR100_ARCHIVE=value)
    assert f"{ARCHIVE}: kept (its md5 is the official one)" in output
    assert with_archive.read(ARCHIVE) == CONTENT


def test_wrong_archive_that_lies_there_is_told_and_not_lost(with_archive, tmp_path):
    (with_archive.path / ARCHIVE).write_bytes(b"of another data set")
    output = fetch(with_archive, tmp_path, ok=False)
    assert f"download: is replaced: {ARCHIVE}: not a complete .tar.gz archive" in output
    assert "error: download: no source gave CIFAR-100" in output
    assert with_archive.read(ARCHIVE) == b"of another data set"


@pytest.mark.slow
def test_archive_comes_from_the_cache_after_synthetic_data(with_archive, tmp_path):
    """DVC keeps no run cache of a stage with an output that it does not delete."""
    fetch(with_archive, tmp_path)
    with_archive.set_params(dataset="synthetic")
    assert ": synthetic" in fetch(with_archive, tmp_path)
    with_archive.set_params(dataset="cifar100")
    assert ".dvc/cache/files/md5/" in fetch(with_archive, tmp_path)
    assert with_archive.read(ARCHIVE) == CONTENT
