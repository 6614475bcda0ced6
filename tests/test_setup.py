"""`make` leaves a whole environment alone and makes any other one anew.

The rule is tried on an environment without the packages of the project: `python -m venv` alone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cifar100.running.guard import SHELLS
from tests.conftest import ROOT

VERSION = "{}.{}".format(*sys.version_info)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that the rule made. Copy it; do not change it."""
    folder = tmp_path_factory.mktemp("made")
    assert "setup: .venv, of " in environment(folder, PYTHON)
    return folder


PYTHON = getattr(sys, "_base_executable", sys.executable)


def environment(folder: Path, python: str, *wanted: str, ok: bool = True) -> str:
    """Do what each call of make does first."""
    command = ["sh", str(ROOT / "tools/environment.sh"), ".venv", python, *wanted]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


def test_whole_environment_is_left_alone(made):
    assert environment(made, PYTHON) == ""
    assert environment(made, PYTHON, "wanted") == ""
    assert environment(made, "/nonexistent/python") == ""  # which is not needed


def purelib(folder: Path) -> Path:
    return folder / f".venv/lib/python{VERSION}/site-packages"


def cut_off_package(folder: Path) -> None:
    """As pip leaves one when it is killed: it writes the list of files last."""
    (purelib(folder) / "six-1.17.0.dist-info").mkdir()
    (purelib(folder) / "six-1.17.0.dist-info/METADATA").write_text("Name: six\n")


def another_python(folder: Path) -> None:
    """As after an upgrade of the system: the same path is another version now."""
    purelib(folder).parent.rename(folder / ".venv/lib/python3.1")


def replaced(path: Path, target: str = "") -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if target:
        path.symlink_to(target)


HALF_MADE = {
    "its Python is gone": lambda f: (
        (f / ".venv/bin/python").unlink(),
        (f / ".venv/bin/python").symlink_to("/nonexistent/python3.9"),
    ),
    "its Python is another version now": another_python,
    "pip was cut off": cut_off_package,
    "pip is not there": lambda f: [shutil.rmtree(p) for p in purelib(f).glob("pip-*")],
    "only a stamp is left": lambda f: (
        shutil.rmtree(f / ".venv"),
        (f / ".venv").mkdir(),
        (f / ".venv/ready").touch(),
    ),
    "it is a file": lambda f: (shutil.rmtree(f / ".venv"), (f / ".venv").touch()),
    "it is a dangling link": lambda f: replaced(f / ".venv", "/nonexistent/venv"),
    "its configuration is gone": lambda f: (f / ".venv/pyvenv.cfg").unlink(),
    "it is empty": lambda f: (shutil.rmtree(f / ".venv"), (f / ".venv").mkdir()),
}


QUICKLY = ("its Python is another version now", "pip was cut off", "only a stamp is left")


@pytest.mark.parametrize(
    "how", [h if h in QUICKLY else pytest.param(h, marks=pytest.mark.slow) for h in HALF_MADE]
)
def test_half_made_environment_is_noticed(made, tmp_path, how):
    whole = tmp_path / "whole"  # a copy would count as moved, so the original is broken and mended
    shutil.copytree(made / ".venv", whole, symlinks=True)
    try:
        HALF_MADE[how](made)
        output = environment(made, "false", ok=False)
        assert output == (
            "error: setup: false cannot be started; name another Python: make PYTHON=python3.12\n"
        )
        assert os.path.lexists(made / ".venv")  # nothing is deleted before a Python is found
    finally:
        if os.path.lexists(made / ".venv"):
            replaced(made / ".venv")
        whole.rename(made / ".venv")
    assert environment(made, "false") == ""


def test_moved_environment_is_noticed(made, tmp_path):
    """Its programs begin with the path of a Python that is not there."""
    shutil.copytree(made / ".venv", tmp_path / ".venv", symlinks=True)
    assert "cannot be started" in environment(tmp_path, "false", ok=False)


def test_environment_on_another_disk_is_accepted(made, tmp_path):
    (tmp_path / ".venv").symlink_to(made / ".venv")
    assert environment(tmp_path, "false") == ""


def test_another_python_counts_if_it_is_asked_for(made, tmp_path):
    other = tmp_path / "python3.0"  # says that it is another version, and can do nothing else
    other.write_text('#!/bin/sh\ncase "$2" in *base_exec*) exit 1; esac\necho 3.0\n')
    other.chmod(0o755)
    assert environment(made, str(other)) == ""
    assert "cannot be started" in environment(made, str(other), "wanted", ok=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ['it\'s "größe" $HOME [x] ☃', "x" * 200])
def test_environment_is_made_wherever_people_keep_a_repository(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    assert "setup: .venv, of " in environment(folder, PYTHON)
    assert environment(folder, PYTHON) == ""
    moved = folder.rename(tmp_path / "moved")
    output = environment(moved, PYTHON)
    assert (
        "setup: .venv is half made, was moved, or is of another Python: it is created again"
        in output
    )
    assert environment(moved, PYTHON) == ""


@pytest.mark.parametrize(
    ("name", "line"),
    [("a:b", "an environment cannot lie in a folder with a colon in its path; rename it")],
)
def test_what_cannot_work_is_one_line_before_the_work(tmp_path, name, line):
    folder = tmp_path / name
    folder.mkdir()
    assert environment(folder, PYTHON, ok=False) == f"error: setup: {line}\n"
    assert not list(folder.iterdir())


def test_python_that_is_too_old_is_one_line(tmp_path):
    old = tmp_path / "python"  # one that says it is of another version
    version = 'import sys; sys.version_info = (3, 9, 18, "final", 0)'
    old.write_text(f"#!/bin/sh\nexec '{PYTHON}' -c '{version}\n'\"$2\"\n")
    old.chmod(0o755)
    assert environment(tmp_path, str(old), ok=False) == (
        "error: setup: Python 3.10 to 3.13 is needed, this is 3.9; name another: "
        "make PYTHON=python3.12\n"
    )


def write_wheel(folder: Path, name: str, build: str) -> str:
    """A package that owns paddle/build.txt, as both builds of Paddle own paddle/; its sha256."""
    info = f"{name.replace('-', '_')}-3.3.1.dist-info"
    path = folder / f"{name.replace('-', '_')}-3.3.1-py3-none-any.whl"
    files = {
        "paddle/build.txt": build,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.3.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_either_build_of_paddle_takes_the_place_of_the_other_and_failures_are_mended(tmp_path):
    """The real make and pip, with packages that are as small as they can be."""
    folder, wheels = tmp_path / "repository", tmp_path / "wheels"
    (folder / "tools").mkdir(parents=True)
    wheels.mkdir()
    for name in ("Makefile", "tools/environment.sh", "tools/activated.py"):
        shutil.copy(ROOT / name, folder / name)
    digest = write_wheel(wheels, "paddlepaddle", "cpu")
    write_wheel(wheels, "paddlepaddle-gpu", "gpu")
    locked = f"paddlepaddle==3.3.1 --hash=sha256:{digest}\n"
    (folder / "requirements.txt").write_text(locked)
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS")}
    variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}

    def make(*arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            ["make", *arguments], cwd=folder, env=variables, capture_output=True, text=True
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def build() -> str:
        path = folder / f".venv/lib/python{VERSION}/site-packages/paddle/build.txt"
        return path.read_text() if path.is_file() else "none"

    make("setup")
    assert build() == "cpu"
    make("setup", "PADDLE=gpu")
    assert build() == "gpu"
    assert "pip" not in make("setup", "PADDLE=gpu")
    os.utime(folder / "requirements.txt", (2**31, 2**31))  # as after `git pull`
    output = make(".venv/ready")
    assert "`make setup PADDLE=gpu` installs it again" in output
    assert build() == "cpu"
    os.utime(folder / "requirements.txt", (1, 1))
    make("setup", "PADDLE=gpu")
    assert build() == "gpu"

    cpu = next(wheels.glob("paddlepaddle-3*"))
    cpu.rename(tmp_path / cpu.name)  # the index is gone
    make("setup", ok=False)
    assert build() == "none"
    make("setup", "PADDLE=gpu")
    assert build() == "gpu"
    make("setup", ok=False)
    (tmp_path / cpu.name).rename(cpu)
    make("setup")
    assert build() == "cpu"

    gpu = next(wheels.glob("paddlepaddle_gpu*"))
    gpu.rename(tmp_path / gpu.name)
    assert "the CPU build stays installed" in make("setup", "PADDLE=gpu", ok=False)
    assert build() == "cpu"


AT_START = """
import os, runpy, sys
names = runpy.run_path(sys.argv[1])["SHELLS"]
print(os.environ.get("SHELL"), *names)
"""


@pytest.mark.parametrize(
    ("shell", "kept"),
    [("/bin/sh", True), ("/usr/sbin/nologin", False), ("{folder}/bash", False), ("", False)],
)
def test_shell_that_runs_no_command_is_forgotten(tmp_path, shell, kept):
    """DVC starts the stages in it; {folder}/bash cannot be executed."""
    (tmp_path / "bash").touch(0o644)
    shell = shell.format(folder=tmp_path)
    shown, *names = subprocess.run(
        [sys.executable, "-I", "-c", AT_START, ROOT / "tools/activated.py"],
        env={"PATH": "/usr/bin", "SHELL": shell},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert shown == (shell if kept else "None")
    assert tuple(names) == SHELLS  # those of the guard


@pytest.mark.slow
def test_make_twice_does_nothing_and_after_a_move_makes_all_anew(tmp_path):
    """The real Makefile, with a lock file that names no package: nothing is downloaded."""
    folder = tmp_path / "repository"
    (folder / "tools").mkdir(parents=True)
    for name in ("Makefile", "tools/environment.sh", "tools/activated.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements.txt").touch()

    def make(*arguments: str, cwd: Path = folder) -> str:
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "MAKEFLAGS")}
        return subprocess.run(
            ["make", *arguments],
            cwd=cwd,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout

    assert "pip" in make("setup")
    assert "pip" not in make("setup")
    assert "pip" not in make("setup", f"PYTHON={PYTHON}")
    site = folder / f".venv/lib/python{VERSION}/site-packages"
    assert (site / "activated.pth").is_file()
    shown = subprocess.run(
        [folder / ".venv/bin/python", "-c", "import os; print(os.environ)"],
        env={"PATH": "/usr/bin", "SHELL": "/usr/sbin/nologin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"'PATH': '{folder}/.venv/bin:/usr/bin'" in shown
    assert "SHELL" not in shown
    moved = folder.rename(tmp_path / "renamed")
    output = make("setup", cwd=moved)
    assert "it is created again" in output
    assert "pip" in output
    assert "pip" not in make("setup", cwd=moved)
    (moved / ".venv/pyvenv.cfg").unlink()  # and with it, what Python knows of the environment
    assert "it is created again" in make("setup", cwd=moved)
    shutil.rmtree(moved / ".venv")
    (moved / ".venv").touch()
    assert "it is created again" in make("setup", cwd=moved)
