"""Where the archive comes from: a copy on this machine, Paddle's, the address, a second one."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from cifar100.archive.reader import read_archive
from cifar100.running.errors import PipelineError, printable
from stages.download import sources
from stages.download.sources import fetch_archive
from tests.conftest import NO_NETWORK, ROOT, Workspace, clone_working_tree
from tests.web import CONTENT, Handler, check


@pytest.mark.medium
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


@pytest.mark.medium
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
        ("mute", "no answer within 0.5 s"),
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


@pytest.mark.medium
@pytest.mark.parametrize("user", ["me:secret", "secret", ":secret", "me:secret@secret", "secret:"])
@pytest.mark.parametrize("named", ["variable", "param"])
def test_password_in_an_address_is_not_printed(server, tmp_path, monkeypatch, user, named, capsys):
    def fetch_named(name: str) -> str:
        address = f"{server.replace('://', f'://{user}@')}/{name}"
        if named == "param":
            return fetch_archive(address, tmp_path / "a", check)
        monkeypatch.setenv("CIFAR100_ARCHIVE", address)
        return fetch_archive(f"{server}/404", tmp_path / "a", check)

    for name in ("good", "breaks"):  # of which the second is tried again
        assert fetch_named(name) == f"{server}/{name} (right)"
    for name in ("404", "down", "always-short", "loop", "away"):
        with pytest.raises(PipelineError) as caught:
            fetch_named(name)
        assert f"{server}/{name}: " in str(caught.value)
        assert "secret" not in str(caught.value)
    captured = capsys.readouterr()
    assert "download: " in captured.err
    assert "secret" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@host:99999/a", "http://host:99999/a: "),
        ("HTTP://secret@[/a", "HTTP://[/a: "),
        ("http://me:secret@/a", "http:///a: "),
        ("http://me:secret@\N{ACCOUNT OF}/a", "http://\N{ACCOUNT OF}/a: "),
        ("http://me:secret/secret@host/a", "http://host/a: is no address: write "),
        ("http://me:secret?secret@host/a", "http://host/a: is no address: write "),
        ("http://me:secret#secret@host/a", "http://host/a: is no address: write "),
        ("http://me:secret\\secret@host/a", "http://host/a: is no address: write "),
        ("ftp://me:secret@host/a", "ftp://host/a: give a path"),
        ("file://me:secret@host/nowhere/a", "file://host/nowhere/a: no such file"),
        ("file://me:secret@\N{ACCOUNT OF}/a", "file://\N{ACCOUNT OF}/a: "),
        ("http://127.0.0.1:9/a@b", "http://127.0.0.1:9/a@b: could not connect"),
        ("http://[::1]:9/a@b", "http://[::1]:9/a@b: could not connect"),
        ("me@host/a", "me@host/a: no such file"),
    ],
)
def test_password_in_what_is_no_address_is_not_printed(
    server, tmp_path, monkeypatch, address, shown, capsys
):
    monkeypatch.setenv("CIFAR100_ARCHIVE", address)
    with pytest.raises(PipelineError) as caught:
        fetch_archive(f"{server}/404", tmp_path / "a", check)
    assert f"tried: {shown}" in str(caught.value)
    assert "secret" not in str(caught.value) + capsys.readouterr().err


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
            | {"CIFAR100_ARCHIVE": str(folder / "a.tar.gz"), "PYTHONPATH": str(ROOT)}
            | NO_NETWORK,
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
    bare = {"HOME": str(tmp_path)} | NO_NETWORK
    return workspace.run("dvc", "repro", "--single-item", "download", ok=ok, **bare, **environment)


@pytest.mark.parametrize(
    "value",
    [ARCHIVE, *(pytest.param(v, marks=pytest.mark.slow) for v in ("", "data/raw", "{cwd}/data"))],
)
def test_archive_that_lies_where_the_stage_writes_it_is_used(with_archive, tmp_path, value):
    value = value.format(cwd=with_archive.path)
    output = fetch(with_archive, tmp_path, CIFAR100_ARCHIVE=value)
    assert f"{ARCHIVE}: kept (its md5 is archive_md5)" in output
    assert with_archive.read(ARCHIVE) == CONTENT


def test_wrong_archive_that_lies_there_is_told_and_not_lost(with_archive, tmp_path):
    (with_archive.path / ARCHIVE).write_bytes(b"of another data set")
    output = fetch(with_archive, tmp_path, ok=False)
    assert f"download: {ARCHIVE}: expected md5 " in output
    assert "; it is not used" in output
    assert f"{ARCHIVE}: DVC's cache has no copy of it; moved to {ARCHIVE}.1" in output
    assert "error: download: no source gave CIFAR-100" in output
    assert with_archive.read(f"{ARCHIVE}.1") == b"of another data set"


def test_archive_that_dvc_has_no_copy_of_is_not_lost(with_archive, tmp_path):
    """Neither to synthetic data, nor to the archive of the last run, which the guard puts back."""
    with_archive.set_params(dataset="synthetic")
    output = fetch(with_archive, tmp_path)
    assert f"{ARCHIVE}: DVC's cache has no copy of it; moved to {ARCHIVE}.1" in output
    assert ": synthetic" in output
    assert with_archive.read(f"{ARCHIVE}.1") == CONTENT
    (with_archive.path / ARCHIVE).write_bytes(b"of another data set")
    with_archive.set_params(dataset="cifar100")
    output = fetch(with_archive, tmp_path, ok=False)
    assert f"moved to {ARCHIVE}.2" in output
    assert with_archive.read(f"{ARCHIVE}.2") == b"of another data set"


@pytest.mark.slow
def test_archive_comes_from_the_cache_after_synthetic_data(with_archive, tmp_path):
    """DVC keeps no run cache of a stage with an output that it does not delete."""
    fetch(with_archive, tmp_path)
    with_archive.set_params(dataset="synthetic")
    assert ": synthetic" in fetch(with_archive, tmp_path)
    with_archive.set_params(dataset="cifar100")
    assert ".dvc/cache/files/md5/" in fetch(with_archive, tmp_path)
    assert with_archive.read(ARCHIVE) == CONTENT
