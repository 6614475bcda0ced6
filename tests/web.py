"""An HTTP server that fails in the ways that servers do, for the tests of the download."""

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cifar100.running.errors import PipelineError
from stages.download import sources, transfer

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
        elif name == "away":
            self.redirect("ftp://me:secret@host/a")
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
        elif name == "mute":
            time.sleep(3)
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


@contextmanager
def failing_server(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    """Its address. Downloads have little patience meanwhile, and keep their parts in `folder`."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder / "home"))
    Handler.asked.clear()
    Handler.sent.clear()
    monkeypatch.setattr(transfer, "PARTS", folder / "parts")
    monkeypatch.setattr(transfer, "TIMEOUT", 0.5)
    monkeypatch.setattr(transfer, "PAUSE", 0.01)
    with serving(Handler) as running:
        address = f"http://127.0.0.1:{running.server_address[1]}"
        monkeypatch.setattr(sources, "SECOND_SOURCE", f"{address}/404")
        yield address


def check(path: Path) -> str:
    if path.read_bytes() != CONTENT:
        raise PipelineError(f"{path}: not the archive")
    return "right"
