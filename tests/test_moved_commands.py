"""Commands that earlier versions had answer with the one that took their place."""

import subprocess
import sys

import pytest

from stages import MOVED
from tests.conftest import ROOT


def run_module(name: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", name, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("old", MOVED)
def test_old_command_names_the_new_one(old):
    done = run_module(old)
    assert done.returncode == 2
    assert done.stderr == f"error: `python -m {old}` is now `python -m {MOVED[old]}`\n"
    assert not done.stdout


@pytest.mark.parametrize("old", MOVED)
def test_new_command_is_there(old):
    assert (ROOT / f"{MOVED[old].replace('.', '/')}.py").is_file()


def test_module_that_never_was_is_not_found():
    done = run_module("stages.nonsense")
    assert done.returncode == 1
    assert "No module named stages.nonsense" in done.stderr


def test_import_of_what_moved_fails_as_any_other():
    command = [sys.executable, "-c", "import stages.network.storage"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'stages.network'" in done.stderr
