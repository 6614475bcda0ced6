"""Fixtures: a Git clone of the working tree, and one finished run of the pipeline to copy from."""

import multiprocessing.process
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from cifar100.dataset.samples import ClassNames, Samples
from cifar100.dataset.splits import save_classes, save_split
from cifar100.running import cpu
from tests.archives import members

ROOT = Path(__file__).parent.parent

cpu.prepare(threads=1)  # before any test imports Paddle

import paddle  # noqa: E402

paddle.set_device("cpu")  # also where there is a GPU


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="skip tests that start another process")


def pytest_configure(config: pytest.Config) -> None:
    """With --fast, a test or fixture ends as skipped where it would start a process."""
    if config.getoption("--fast"):
        subprocess.Popen.__init__ = _skip  # type: ignore[method-assign]
        multiprocessing.process.BaseProcess.start = _skip  # type: ignore[method-assign]


def _skip(*_arguments: object, **_options: object) -> NoReturn:
    pytest.skip("starts a process; `make test` runs it", allow_module_level=True)


# A network and a data set that train in seconds.
SMALL = {
    "dataset": "synthetic",
    "val_per_class": "30",
    "depth": "20",
    "width": "8",
    "epochs": "2",
    "batch_size": "64",
    "lr": "0.1",
    "progressive_sizes": "[16]",
    "progressive_fraction": "0.5",
    "threads": "1",
    "gallery_images": "6",
    "figure_dpi": "40",
}

# Of a finished run: what no failure may change.
RESULTS = [
    "data/processed/train.npz",
    "models/model.safetensors",
    "models/model.json",
    "reports/history.csv",
    "reports/timing.json",
    "reports/metrics.json",
    "reports/index.html",
]


@dataclass
class Workspace:
    """A clone of this repository with a DVC cache of its own."""

    path: Path

    def run(self, *command: str, ok: bool = True, **environment: str) -> str:
        """Run a command as a user with an activated environment would; return all its output."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stdout
        return done.stdout

    @contextmanager
    def training(self, **environment: str) -> "Iterator[subprocess.Popen[str]]":
        """`dvc repro` with nothing to do but train, in its first epoch's end; killed at last."""
        command = ["dvc", "repro", "--force", "--single-item", "train"]
        with subprocess.Popen(
            command,
            cwd=self.path,
            env=self.environment() | environment,
            start_new_session=True,
            # Below a background job of a shell Ctrl-C would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            try:
                assert running.stdout is not None
                assert any(line.startswith("epoch") for line in running.stdout)
                yield running
            finally:
                running.kill()

    def environment(self) -> dict[str, str]:
        """The variables of an activated environment, without a copy of the real archive."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {k: v for k, v in os.environ.items() if k != "CIFAR100_ARCHIVE"}
        return variables | {"PATH": path}

    def set_params(self, **values: str) -> None:
        """Change values in params.yaml as a user would in an editor."""
        file = self.path / "params.yaml"
        text = file.read_text(encoding="utf-8")
        for key, value in values.items():
            text, found = re.subn(rf"(?m)^{key}:[^#\n]*", f"{key}: {value}  ", text)
            assert found == 1, key
        file.write_text(text, encoding="utf-8")

    def commit(self, message: str) -> None:
        """Commit all changes."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def copy(self, target: Path) -> "Workspace":
        """An independent copy, cache and results included."""
        shutil.copytree(self.path, target, symlinks=True)
        return Workspace(target)

    def read(self, name: str) -> bytes:
        """The bytes of a file of the workspace."""
        return (self.path / name).read_bytes()


def clone_working_tree(target: Path) -> Workspace:
    """A Git repository with the files of this one as they are now, committed, without data."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    workspace = Workspace(target)
    workspace.run("git", "init", "--quiet")
    workspace.run("git", "config", "user.name", "Test")
    workspace.run("git", "config", "user.email", "test@example.org")
    workspace.commit("Start")
    return workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the pipeline has run on synthetic data. Copy it; do not change it."""
    workspace = clone_working_tree(tmp_path_factory.mktemp("pipeline") / "repository")
    workspace.set_params(**SMALL)
    workspace.commit("Use a small network on synthetic data")
    workspace.run("dvc", "repro")
    workspace.commit("Run the pipeline")
    return workspace


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished workspace that a test may change."""
    return finished.copy(tmp_path / "repository")


def some_classes() -> ClassNames:
    """100 classes, of which class i belongs to superclass i modulo 20."""
    return ClassNames(
        fine=[f"class {i:02}" for i in range(100)],
        coarse=[f"superclass {i:02}" for i in range(20)],
        coarse_of_fine=[i % 20 for i in range(100)],
    )


def some_samples(classes: ClassNames) -> Samples:
    """Five random images of each class, shuffled; two samples share label and file name."""
    rng = np.random.default_rng(0)
    fine = rng.permutation(np.repeat(np.arange(100), 5))
    names = [f"{label:02}_{i:04}.png".encode() for i, label in enumerate(fine)]
    first, second = np.flatnonzero(fine == 7)[:2]
    names[second] = names[first]
    images = rng.integers(0, 256, (500, 3, 32, 32), dtype=np.uint8)
    coarse = np.array(classes.coarse_of_fine)[fine]
    return Samples(images, fine, coarse, np.array(names))


def save_for_training(folder: Path, samples: Samples, classes: ClassNames) -> None:
    """Write the files that the stage train reads: 400 images for training, the rest to validate."""
    rows = np.arange(len(samples))
    save_split(folder / "train.npz", samples.take(rows[:400]))
    save_split(folder / "val.npz", samples.take(rows[400:]))
    save_classes(folder / "classes.json", classes)


@pytest.fixture(scope="session")
def classes() -> ClassNames:
    """Names of classes."""
    return some_classes()


@pytest.fixture
def samples(classes: ClassNames) -> Samples:
    """Some samples of each class."""
    return some_samples(classes)


@pytest.fixture
def archive_files(samples: Samples, classes: ClassNames) -> dict[str, bytes]:
    """The files of an archive in which both splits have these samples."""
    return members(samples, samples, classes)
