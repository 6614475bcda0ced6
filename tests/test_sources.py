"""Downloads from a real HTTP server on this machine."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.dataset import sources
from stages.dataset.sources import fetch_archive
from stages.running.errors import PipelineError

CONTENT = b"archive" * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the requested name."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name == "missing":
            self.send_error(404)
            return
        body = b"<html>Service moved</html>" if name == "page" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) if name == "short" else len(body)))
        self.end_headers()
        self.wfile.write(body[:100] if name == "short" else body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("CIFAR100_ARCHIVE", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_address[1]}"
        monkeypatch.setattr(sources, "SECOND_SOURCE", f"{address}/missing")
        yield address
        running.shutdown()


def check(path: Path) -> str:
    if path.read_bytes() != CONTENT:
        raise PipelineError(f"{path}: not the archive")
    return "right"


def test_address_is_fetched_and_checked(server, tmp_path):
    assert fetch_archive(f"{server}/good", tmp_path / "a", check) == f"{server}/good (right)"
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["missing", "page", "short"])
def test_second_source_is_used_when_the_first_fails(server, tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "SECOND_SOURCE", f"{server}/good")
    assert fetch_archive(f"{server}/{name}", tmp_path / "a", check) == f"{server}/good (right)"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "404 Client Error"),
        ("page", "the file received: not the archive"),
        ("short", "IncompleteRead|received 100 of 7,000 bytes"),
    ],
)
def test_failure_of_all_sources_is_one_line_that_names_each(server, tmp_path, name, reason):
    with pytest.raises(PipelineError, match=reason) as caught:
        fetch_archive(f"{server}/{name}", tmp_path / "a", check)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{server}/{name}: " in message
    assert f"{server}/missing: " in message
    assert "CIFAR100_ARCHIVE" in message


def test_unreachable_address_is_told_without_internals(server, tmp_path):
    with pytest.raises(PipelineError, match="could not connect") as caught:
        fetch_archive("http://127.0.0.1:9/closed", tmp_path / "a", check)
    assert "object at 0x" not in str(caught.value)


def test_local_copy_is_tried_first(server, tmp_path, monkeypatch):
    local = tmp_path / "local"
    local.write_bytes(CONTENT)
    monkeypatch.setenv("CIFAR100_ARCHIVE", str(local))
    assert fetch_archive(f"{server}/missing", tmp_path / "a", check) == f"{local} (right)"


def test_local_copy_may_be_an_address(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR100_ARCHIVE", f"{server}/good")
    fetch_archive(f"{server}/missing", tmp_path / "a", check)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_missing_local_copy_is_named_with_its_full_path(server, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR100_ARCHIVE", "nowhere/a.tar.gz")
    with pytest.raises(PipelineError, match="no such file") as caught:
        fetch_archive(f"{server}/missing", tmp_path / "a", check)
    assert str(Path("nowhere/a.tar.gz").resolve()) in str(caught.value)
