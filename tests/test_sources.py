"""Downloads from a real HTTP server on this machine, which fails in the ways that servers do."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from stages.dataset import sources
from stages.dataset.sources import fetch_archive
from stages.running.errors import PipelineError

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
            pass  # the client has gone on

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
    monkeypatch.delenv("CIFAR100_ARCHIVE", raising=False)
    Handler.asked.clear()
    Handler.sent.clear()
    monkeypatch.setattr(sources, "PARTS", tmp_path / "parts")
    monkeypatch.setattr(sources, "TIMEOUT", 0.5)
    monkeypatch.setattr(sources, "PAUSE", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
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


def test_download_goes_on_in_a_later_run(server, tmp_path, monkeypatch):
    """Also one that had come to its end, and was killed before its file was used."""
    monkeypatch.setattr(sources, "ATTEMPTS", 1)
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


def test_pieces_that_never_fit_are_fetched_anew_once(server, tmp_path):
    with pytest.raises(PipelineError, match="the file received: not the archive"):
        fetch_archive(f"{server}/never-fits", tmp_path / "a", check)
    assert Handler.asked["never-fits"] == 4
    assert not list((tmp_path / "parts").iterdir())


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
        ("403", "403 Client Error"),
        ("404", "404 Client Error"),
        ("500", "the server answers 500"),
        ("page", "the file received: not the archive"),
        ("down", "the server answers 503"),
        ("always-short", "the connection broke off"),
        ("loop", "redirects more than 5 times"),
        ("nowhere", "Invalid IPv6 URL"),
        ("silent", "no byte within 0.5 s"),
        ("drips", "fewer than 2,000 bytes per second"),
        ("cut-chunks", "received 5 of 1,000 bytes"),
        ("never-fits", "the file received: not the archive"),
        ("length=abc", "the server says that the file has 'abc' bytes"),
        ("length=-5", "the server says that the file has '-5' bytes"),
        ("length=10,+10", "the server says that the file has '10, 10' bytes"),
        ("length=10,+11", "Content-Length contained multiple unmatching values"),
        ("length=" + "9" * 5000, "the server says that the file has '9{40}' bytes"),
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
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(PipelineError, match="1,024,000 bytes are needed, and the disk has 1,000"):
        fetch_archive(f"{server}/good", tmp_path / "a", check)
    assert not (tmp_path / "a").exists()


def test_endless_file_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_BYTES", 500_000)
    with pytest.raises(PipelineError, match="1,024,000 bytes are too many"):
        fetch_archive(f"{server}/good", tmp_path / "a", check)
    with pytest.raises(PipelineError, match="endless: it does not end"):
        fetch_archive(f"{server}/endless", tmp_path / "a", check)
    assert not list((tmp_path / "parts").iterdir())  # of no use to a later run
