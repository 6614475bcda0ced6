"""Programs that the tools and benchmarks start end with them, and say in one line why they died."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar100.running.errors import PipelineError
from tests.conftest import ROOT, Workspace
from tests.processes import children, descendants, is_running, wait_until
from tools.children import output, run

PARENT = """import sys
from cifar100.running.guard import run_command
from tools.children import run
run_command("tool", lambda: run([sys.executable, "-c", {child!r}]))
"""
SLEEPS = "import time; print('sleeps', flush=True); time.sleep(60)"
STARTS_ANOTHER = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
    "time.sleep(60)']); print('sleeps', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("child", [SLEEPS, pytest.param(STARTS_ANOTHER, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_child_ends_with_its_parent_however_that_ends(child, ending):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.format(child=child)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout.readline() == "sleeps\n"
        (first,) = children(parent.pid)
        below = descendants(first) if ending != signal.SIGKILL else [first]
        everyone = descendants(first)
        parent.send_signal(ending)
        wait_until(lambda: not any(map(is_running, below)), seconds=30)
        for pid in everyone:
            if is_running(pid):  # of a program that is no stage of ours, after -9
                os.kill(pid, signal.SIGKILL)
        _, errors = parent.communicate(timeout=10)
    assert errors == ("" if ending == signal.SIGKILL else "error: tool: interrupted\n")


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed (SIGKILL), as Linux does when memory"),
        ("import os; os.abort()", "crashed (SIGABRT)"),
        ("import sys; sys.exit('the reason')", "ended with exit code 1; the reason"),
        ("1 / 0", "ended with exit code 1; ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "ended with exit code 3; it said nothing"),
    ],
)
def test_death_of_a_child_is_one_line(program, line):
    with pytest.raises(PipelineError) as caught:
        output([sys.executable, "-c", program])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_output_is_returned_and_a_failed_run_points_to_what_it_printed(capfd):
    assert output([sys.executable, "-c", "print('a')"]) == "a\n"
    with pytest.raises(PipelineError, match="exit code 1; its reason stands above"):
        run([sys.executable, "-c", "import sys; sys.exit('the reason')"])
    assert "the reason" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_verification_that_is_ended(workspace: Workspace, tmp_path, ending):
    """The tool, DVC, the guard of a stage and the stage, of which each started the next one."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools.verify", "--quick"],
        cwd=workspace.path,
        env=workspace.environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as tool:
        assert any("stages/train" in line for line in tool.stdout)
        wait_until(lambda: len(descendants(tool.pid)) >= 4, 30)
        everyone = descendants(tool.pid)
        tool.send_signal(ending)
        rest = tool.stdout.read()
        wait_until(lambda: not any(map(is_running, everyone)), seconds=15)
    if ending != signal.SIGKILL:
        assert rest.splitlines()[-1] == "error: verify: interrupted"
        assert not [path for path in Path(tmp_path).glob("tmp*") if path.is_dir()]
