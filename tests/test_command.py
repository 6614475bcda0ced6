import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("module", ["cifar100.predict", "tools.compare", "tools.seeds"])
def test_command_without_the_packages_says_to_activate_the_environment(module):
    """As in the Python of a machine on which nothing was activated: `-S` leaves out packages."""
    command = [sys.executable, "-E", "-S", "-m", module, "cat.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    name = module.split(".")[0 if module.startswith("tools") else 1]
    assert line.startswith(f"error: {name}: No module named '")
    assert line.endswith("as with `source .venv/bin/activate`; `make setup` makes it")
    assert not done.stdout


def test_mistake_in_a_module_of_our_own_keeps_its_traceback(tmp_path):
    (tmp_path / "own.py").write_text(
        "from cifar100.command import prepare_command\n"
        "prepare_command('own')\n"
        "from cifar100.running.errors import no_such_name\n"
    )
    command = [sys.executable, "own.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "ImportError: cannot import name 'no_such_name'" in done.stderr
    assert "sys.excepthook" not in done.stderr
