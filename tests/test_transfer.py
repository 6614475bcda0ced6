"""The transfer of a file from a server that fails in the ways that servers do."""

import datetime
import http.server
import ipaddress
import socketserver
import ssl
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cifar100.running.errors import PipelineError
from stages.download import sources, transfer
from stages.download.sources import fetch_archive
from tests.web import CONTENT, Handler, check, serving


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


def test_unreachable_address_is_told_without_internals(server, tmp_path):
    with pytest.raises(PipelineError, match="closed: could not connect") as caught:
        fetch_archive("http://127.0.0.1:9/closed", tmp_path / "a", check)
    assert "object at 0x" not in str(caught.value)
    assert "CIFAR100_ARCHIVE" in str(caught.value)


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


def test_endless_file_is_closed_before_it_is_deleted(server, tmp_path, monkeypatch):
    """Windows deletes no open file."""
    parts, open_files = tmp_path / "parts", []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.remove" and Path(str(arguments[0])).parent == parts:
            open_files.append([file.path for file in psutil.Process().open_files()])

    monkeypatch.setattr(transfer, "MAX_BYTES", 500_000)
    sys.addaudithook(watch)  # for good, but it looks at this folder alone
    with pytest.raises(PipelineError, match="endless: it does not end"):
        fetch_archive(f"{server}/endless", tmp_path / "a", check)
    (when_deleted,) = open_files
    assert not [path for path in when_deleted if Path(path).parent == parts]


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
