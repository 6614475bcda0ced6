"""`python -m cifar100.predict` on many pictures at once, and on streams and terminals."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cifar100.network.resnet import ResNetConfig, build_resnet
from cifar100.network.storage import save_description, save_weights
from tests.conftest import ROOT, some_classes
from tests.test_pictures import DEVICES, NO_PICTURES, encoded, halves, save_devices


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with a network that has learned nothing: here it matters that it answers."""
    folder = tmp_path_factory.mktemp("models")
    network = build_resnet(ResNetConfig(20, 4), 0, np.float32([0.5] * 3), np.float32([0.25] * 3))
    save_weights(folder / "model.safetensors", network)
    save_description(folder / "model.json", network, 1.0, vars(some_classes()), {})
    return folder


def predict(models, *arguments, **options) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "cifar100.predict", "--models", models, *map(str, arguments)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"} | options.pop("environment", {}),
        capture_output=True,
        check=False,
        **options,
    )


def answered(done) -> list[str]:
    return [json.loads(line)["picture"] for line in done.stdout.splitlines()]


def test_ten_kinds_of_pictures_are_answered_in_one_call(models, tmp_path):
    paths = save_devices(tmp_path / "pictures")
    done = predict(models, *paths, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert answered(done) == [str(path) for path in paths]
    assert len(paths) >= 10


def test_ten_files_that_are_no_pictures_are_a_line_each_and_hide_no_other(models, tmp_path):
    for name, (content, _) in NO_PICTURES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "cat.png").write_bytes(encoded(halves(), "PNG"))
    done = predict(models, tmp_path, "--json")
    *lines, last = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert len(lines) == len(NO_PICTURES) >= 10
    for line, name in zip(lines, sorted(NO_PICTURES), strict=True):
        assert line.startswith(f"error: predict: {tmp_path / name}: ")
    bad = len(NO_PICTURES)
    assert last == f"error: predict: {bad} of {bad + 1} pictures could not be read"
    assert answered(done) == [str(tmp_path / "cat.png")]


@pytest.mark.slow
def test_folder_of_a_thousand_pictures_is_answered_in_one_call(models, tmp_path):
    """Photographs of all devices, junk, and an image of 108 megapixels."""
    rng = np.random.default_rng(0)
    devices = list(DEVICES.values())
    for number in range(1000):
        folder = tmp_path / f"{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:04}").write_bytes(devices[rng.integers(len(devices))][0]())
    halves((12_000, 9_000)).save(tmp_path / "3/large.jpg")
    for name in ("notes.txt", "film.mp4"):
        (tmp_path / "5" / name).write_bytes(NO_PICTURES[name][0])
    (tmp_path / "6/.DS_Store").write_bytes(b"junk")
    done = predict(models, tmp_path, "--json")
    assert len(answered(done)) == len({*answered(done)}) == 1001
    assert done.returncode == 1
    assert [line.split(": ")[2] for line in done.stderr.decode().splitlines()[:-1]] == [
        str(tmp_path / "5/film.mp4"),
        str(tmp_path / "5/notes.txt"),
    ]


@pytest.mark.slow
def test_images_that_were_looked_at_are_all_kept(models, tmp_path):
    """Names that are the same as files, and a name that is longer than one may be."""
    names = ["a/b.png", "a_b.png", "./" + "d" * 100 + "/" + "e" * 200]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        halves().save(tmp_path / name, "PNG")
    done = predict(models, *names, "--saw", "saw", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "saw").iterdir())) == 3


@pytest.mark.slow
def test_folder_for_the_images_that_cannot_be_made_is_one_line_before_any_work(models, tmp_path):
    halves().save(tmp_path / "a.png")
    done = predict(models, tmp_path / "a.png", "--saw", tmp_path / "a.png/saw", "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        f"error: predict: --saw {tmp_path / 'a.png/saw'}: cannot be written to (Not a directory); "
        "name another folder"
    ]


def shell(models: Path, command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            "bash",
            "-c",
            command.replace("PREDICT", f"{sys.executable} -m cifar100.predict --models {models}"),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_pictures_come_from_a_pipe_of_the_shell(models, tmp_path):
    halves().save(tmp_path / "a.png")
    done = shell(models, "cat a.png | PREDICT /dev/stdin <(cat a.png) - --json", tmp_path)
    names = [json.loads(line)["picture"] for line in done.stdout.splitlines()]
    assert names[0] == "/dev/stdin"
    assert names[1].startswith("/dev/fd/")
    assert "error: predict: -: is empty" in done.stderr  # the pipe was read already


@pytest.mark.slow
def test_reader_that_leaves_is_no_error(models, tmp_path):
    halves().save(tmp_path / "a.png")
    done = shell(models, "PREDICT . | true; echo ${PIPESTATUS[0]}", tmp_path)
    assert (done.stdout, done.stderr) == (f"{128 + signal.SIGPIPE}\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_are_written_to_a_terminal_of_any_encoding(models, tmp_path, encoding):
    names = ["größe 猫.png", os.fsdecode(b"\xff.png")]
    for name in names:
        halves().save(tmp_path / name)
    environment = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = predict(models, *names, cwd=tmp_path, environment=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [line for line in done.stdout.decode(encoding).splitlines() if not line.startswith(" ")]
    assert len(lines) == 2
    assert lines[1] == "\\udcff.png"


@pytest.mark.slow
def test_closed_streams_are_no_error(models, tmp_path):
    halves().save(tmp_path / "a.png")
    done = shell(models, "PREDICT a.png >&-; echo $?; PREDICT - <&-; PREDICT a.png 2>&-", tmp_path)
    assert done.stdout.splitlines()[:2] == ["0", "a.png"]
    assert "error: predict: -: is empty" in done.stderr
    assert "Traceback" not in done.stderr


def on_terminal(command: list[str], size: tuple[int, int], **options) -> Iterator[bytes]:
    """What a command writes to a terminal of this many rows and columns."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, **options
    ) as running:
        os.close(theirs)
        try:
            while content := os.read(ours, 65536):
                yield content
        except OSError:  # Linux says so at the end
            pass
        assert running.wait() == 0
    os.close(ours)


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "blocks"), [("utf-8", True), ("ascii", False)])
def test_terminal_without_a_width_is_none_the_worse(models, tmp_path, encoding, blocks):
    halves().save(tmp_path / "a.png")
    command = [sys.executable, "-m", "cifar100.predict", "--models", str(models), "a.png"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    written = b"".join(on_terminal(command, (0, 0), cwd=tmp_path, env=environment))
    assert b"a.png" in written
    assert ("▀".encode() in written) == blocks
