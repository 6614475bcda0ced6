"""Fixtures: a Git clone of the working tree, and one finished run of the pipeline to copy from."""

import multiprocessing.process
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from filelock import FileLock

from cifar100.dataset.samples import ClassNames, Samples
from cifar100.dataset.splits import save_classes, save_split
from cifar100.running import cpu
from tests.archives import members
from tests.web import failing_server
from tools.repository import OF_ONE_REPOSITORY

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast", action="store_true", help="run only tests that take no second and no process"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        return  # this process starts those that run the tests
    cpu.prepare(threads=1)  # before any test imports Paddle
    import paddle

    paddle.set_device("cpu")  # also where there is a GPU


@pytest.fixture(scope="session", autouse=True)
def _no_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """With --fast, a test or fixture ends as skipped where it would start a process."""

    def skip(*_arguments: object, **_options: object) -> NoReturn:
        pytest.skip("starts a process; `make test` runs it")

    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--fast"):
            patch.setattr(subprocess.Popen, "__init__", skip)
            patch.setattr(multiprocessing.process.BaseProcess, "start", skip)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the finished pipeline come first: while one process makes it, the others go on."""

    def of_pipeline(item: pytest.Item) -> bool:
        return "finished" in getattr(item, "fixturenames", ())

    def left_out(item: pytest.Item) -> bool:
        return of_pipeline(item) or item.get_closest_marker("medium") is not None

    items.sort(key=lambda item: not of_pipeline(item))
    if config.getoption("--fast"):
        config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
        items[:] = [item for item in items if not left_out(item)]


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
    "device": "cpu",
    "threads": "1",
    "gallery_images": "6",
    "figure_dpi": "40",
}

# No address can be reached, also on a machine with access to the internet.
NO_NETWORK = {
    **dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
}

# What a shell may hold that leads Git, DVC or the stages elsewhere, and settings of the user's.
OF_THE_CALLER = {"CIFAR100_ARCHIVE", "CIFAR100_MACHINES", "DVC_ROOT", *OF_ONE_REPOSITORY}
NO_SETTINGS = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "DVC_GLOBAL_CONFIG_DIR": "/nonexistent/global",
    "DVC_SYSTEM_CONFIG_DIR": "/nonexistent/system",
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
        """The variables of an activated environment, without the settings of a user."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {k: v for k, v in os.environ.items() if k not in OF_THE_CALLER}
        return variables | NO_SETTINGS | {"PATH": path}

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


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all processes of a test run. Do not change it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the pipeline has run on synthetic data. Copy it; do not change it."""

    def make(folder: Path) -> None:
        workspace = clone_working_tree(folder / "repository")
        workspace.set_params(**SMALL)
        workspace.commit("Use a small network on synthetic data")
        workspace.run("dvc", "repro")
        workspace.commit("Run the pipeline")

    return Workspace(made_once(tmp_path_factory, "pipeline", make) / "repository")


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
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of an HTTP server on this machine that fails in the ways that servers do."""
    with failing_server(monkeypatch, tmp_path) as address:
        yield address


@pytest.fixture
def samples(classes: ClassNames) -> Samples:
    """Some samples of each class."""
    return some_samples(classes)


@pytest.fixture
def archive_files(samples: Samples, classes: ClassNames) -> dict[str, bytes]:
    """The files of an archive in which both splits have these samples."""
    return members(samples, samples, classes)
