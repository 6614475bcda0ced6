"""However a stage ends, one line says why, nothing is left running, and the last results are there.

Most tests start a small stage as DVC does: with the real guard, lock and cache, after its outputs
were deleted. The others drive DVC itself.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import RESULTS, ROOT, Workspace
from tests.processes import children, is_running, training_process, wait_until
from tests.test_disk import NAMESPACE, needs_namespace

REPORT, FIGURES = "reports/report.txt", "reports/figures"
OUTPUTS = {
    REPORT: b"the last good report\n",
    f"{FIGURES}/one.png": b"1",
    f"{FIGURES}/two.png": b"2",
}
LOCK = """schema: '2.0'
stages:
  other:
    cmd: python stages/other
    outs:
    - path: other.txt
      hash: md5
      md5: 00000000000000000000000000000000
      size: 1
  small:
    cmd: python stages/small
    params:
      params.yaml:
        outs: 1
    outs:
    - path: {report}
      hash: md5
      md5: {report_md5}
      size: 21
    - path: {figures}
      hash: md5
      md5: {figures_md5}.dir
      size: 2
      nfiles: 2
"""


class SmallStage:
    """A repository with one stage, whose outputs are in the lock and the cache, and deleted."""

    def __init__(self, folder: Path, main: str) -> None:
        self.folder = folder
        for path in [*(ROOT / "cifar100/running").glob("*.py"), ROOT / "cifar100/__init__.py"]:
            self.write(path.relative_to(ROOT).as_posix(), path.read_bytes())
        entry = (ROOT / "stages/render/__main__.py").read_text(encoding="utf-8")
        self.write("stages/small/__main__.py", entry.replace("render", "small").encode())
        self.write("stages/small/main.py", main.encode())
        listed = []
        for name, content in OUTPUTS.items():
            md5 = self.keep(content)
            if name.startswith(FIGURES):
                listed.append({"md5": md5, "relpath": name.removeprefix(f"{FIGURES}/")})
        figures = self.keep(json.dumps(listed).encode(), ".dir")
        report = hashlib.md5(OUTPUTS[REPORT]).hexdigest()
        values = {"report": REPORT, "figures": FIGURES, "report_md5": report}
        self.write("dvc.lock", LOCK.format(figures_md5=figures, **values).encode())

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def keep(self, content: bytes, suffix: str = "") -> str:
        md5 = hashlib.md5(content).hexdigest()
        self.write(f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}{suffix}", content)
        return md5

    def start(self, *options: str, **environment: str) -> "subprocess.Popen[str]":
        command = [sys.executable, *options, "stages/small"]
        variables = os.environ | {"DVC_ROOT": str(self.folder)} | environment
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=variables, text=True, **pipes)

    def outputs(self) -> dict[str, bytes]:
        files = [path for path in (self.folder / "reports").rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}


ENDS = {
    "raises": ("1 / 0", "ZeroDivisionError", 1),
    "imports a package that is missing": (
        "import no_such_package",
        "error: small: No module named 'no_such_package', in Python 3.",
        1,
    ),
    "is not Python": ("def main(:", "SyntaxError", 1),
    "leaves": ("import os; os._exit(3)", "", 3),
    "is killed": (
        "import os; os.kill(os.getpid(), 9)",
        "error: small: was killed (SIGKILL), as Linux does when memory runs out",
        137,
    ),
    "crashes": ("import ctypes; ctypes.string_at(0)", "error: small: crashed (SIGSEGV)", 139),
    "aborts": ("import os; os.abort()", "error: small: crashed (SIGABRT)", 134),
    "takes too much memory": (
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 29, 1 << 29)); bytearray(1 << 30)",
        "error: small: not enough memory",
        1,
    ),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("when", ["import", "run"])
def test_last_results_are_there_however_the_stage_ends(tmp_path, end, when):
    code, line, status = ENDS[end]
    half = f"open('{REPORT}', 'w').write('half')"
    lines = ["import os", "os.makedirs('reports', exist_ok=True)"]
    if when == "run" and end != "is not Python":
        lines += ["def main():", f"    {half}", f"    {code}"]
    else:
        lines += [half, code]
    stage = SmallStage(tmp_path, "\n".join(lines))
    running = stage.start()
    _, errors = running.communicate(timeout=60)
    assert running.returncode == status
    assert line in errors
    assert stage.outputs() == OUTPUTS


def test_stage_that_ends_well_keeps_its_new_results(tmp_path):
    stage = SmallStage(tmp_path, f"def main(): open('{REPORT}', 'w').write('new')")
    (tmp_path / "reports").mkdir()
    assert stage.start().wait(60) == 0
    assert stage.outputs() == {REPORT: b"new"}


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ((), {"PYTHONSAFEPATH": "1"}),
        (("-I", "-S"), {}),  # of a Python without any package
        ((), {"PYTHONPATH": "elsewhere"}),
    ],
)
def test_stage_starts_whatever_python_is_told_about_paths(tmp_path, options, environment):
    (tmp_path / "elsewhere/stages/small").mkdir(parents=True)
    (tmp_path / "elsewhere/stages/small/main.py").write_text("raise SystemExit('another one')")
    stage = SmallStage(tmp_path, "def main(): print('it runs')")
    printed, errors = stage.start(*options, **environment).communicate(timeout=60)
    assert (printed, errors) == ("it runs\n", "")


SLEEPING = """import time
def main():
    print("sleeps", flush=True)
    time.sleep(60)
"""
DEAF = """import signal, time
def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("sleeps", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("main", "ending", "seconds"),
    [
        (SLEEPING, signal.SIGINT, 9),  # less than until it is killed
        (SLEEPING, signal.SIGTERM, 9),
        (SLEEPING, signal.SIGHUP, 9),
        pytest.param(DEAF, signal.SIGTERM, 15, marks=pytest.mark.slow),
    ],
)
def test_stage_that_is_asked_to_end_does_so_within_seconds(tmp_path, main, ending, seconds):
    stage = SmallStage(tmp_path, main)
    running = stage.start()
    assert running.stdout.readline() == "sleeps\n"
    (worker,) = children(running.pid)
    asked = time.monotonic()
    running.send_signal(ending)
    _, errors = running.communicate(timeout=60)
    assert time.monotonic() - asked < seconds
    assert errors == "error: small: interrupted\n"
    assert running.returncode == 130
    assert not is_running(worker)
    assert stage.outputs() == OUTPUTS


def test_stage_started_by_nohup_outlives_its_terminal(tmp_path):
    stage = SmallStage(
        tmp_path, f"def main():\n    input()\n    open('{REPORT}', 'w').write('new')"
    )
    (tmp_path / "reports").mkdir()
    command = ["sh", "-c", "trap '' HUP; exec \"$0\" stages/small", sys.executable]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"DVC_ROOT": str(tmp_path)},
        stdin=subprocess.PIPE,
        text=True,
    ) as running:
        wait_until(lambda: children(running.pid), seconds=30)
        for process in (running.pid, *children(running.pid)):
            os.kill(process, signal.SIGHUP)
        running.communicate("\n", timeout=60)
    assert running.returncode == 0
    assert stage.outputs() == {REPORT: b"new"}


@pytest.mark.parametrize("victim", ["starter", "guard"])
def test_nothing_is_left_when_what_started_the_stage_is_killed(tmp_path, victim):
    """-9, so that it cannot say so: the guard looks every second, and so does the stage."""
    stage = SmallStage(tmp_path, SLEEPING)
    starter = "import subprocess, sys; subprocess.run([sys.executable, 'stages/small'])"
    with subprocess.Popen(
        [sys.executable, "-c", starter],
        cwd=tmp_path,
        env=os.environ | {"DVC_ROOT": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout.readline() == "sleeps\n"
        (guard,) = children(running.pid)
        (worker,) = children(guard)
        os.kill({"starter": running.pid, "guard": guard}[victim], signal.SIGKILL)
        wait_until(lambda: not is_running(worker) and not is_running(guard), seconds=30)
    if victim == "starter":
        assert stage.outputs() == OUTPUTS


def test_results_that_cannot_be_put_back_are_named(tmp_path):
    stage = SmallStage(tmp_path, "1 / 0")
    (tmp_path / "reports").write_text("a file stands where a folder is needed")
    _, errors = stage.start().communicate(timeout=60)
    assert errors.splitlines()[-1].startswith(
        "error: small: 3 of the last results could not be put back (reports/report.txt: "
    )
    assert "`python -m tools.restore` puts them back" in errors


FILLS_THE_DISK = """def main():
    with open("filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
"""
ON_A_SMALL_DISK = """
mkdir disk && mount -t tmpfs -o size=600k none disk && cp -a project/. disk && cd disk || exit 2
DVC_ROOT=$PWD PYTHONDONTWRITEBYTECODE=1 python stages/small && exit 2
rm filler
python -c "from cifar100.running.restore import restore_outputs; restore_outputs('small')"
cp -a reports ..
"""


@needs_namespace
def test_results_are_put_back_when_a_full_disk_has_room_again(tmp_path):
    stage = SmallStage(tmp_path / "project", FILLS_THE_DISK)
    output = Workspace(tmp_path).run(*NAMESPACE, ON_A_SMALL_DISK)
    full = "No space left on device"
    first, second = output.splitlines()
    assert first.startswith("error: small: ")
    assert first.endswith(full)
    assert second.startswith("error: small: 3 of the last results could not be put back (")
    assert full in second
    stage.folder = tmp_path
    assert stage.outputs() == OUTPUTS


def test_results_are_there_after_a_stage_that_cannot_be_imported(workspace):
    names = [*RESULTS, "reports/figures/class_accuracy.png"]
    before = {name: workspace.read(name) for name in names}
    source = workspace.path / "stages/render/charts.py"
    source.write_text("import no_such_package\n", encoding="utf-8")
    assert "No module named 'no_such_package'" in workspace.run("dvc", "repro", ok=False)
    assert {name: workspace.read(name) for name in names} == before


@pytest.mark.slow
def test_training_that_is_killed_leaves_the_last_results_and_one_line(workspace):
    before = {name: workspace.read(name) for name in RESULTS}
    workspace.set_params(epochs="1000", lr="0.05")
    with workspace.training() as dvc:
        os.kill(training_process(dvc.pid), signal.SIGKILL)
        rest = dvc.stdout.read()
    assert "error: train: was killed (SIGKILL)" in rest
    assert {name: workspace.read(name) for name in RESULTS} == before


# What DVC's own process holds, so that nothing of the project is started; set after Python's start,
# since an environment that `make` made corrects it there.
CANNOT_START = {
    "no python in PATH": {"PATH": "/nonexistent"},
    "a login shell that is none": {"SHELL": "/usr/sbin/nologin"},
    "a shell that is not there": {"SHELL": "/nonexistent/bash"},
}
FORCED_RENDER = """import os
os.environ.update({environment!r})
from dvc.cli import main
raise SystemExit(main(["repro", "--force", "--single-item", "render"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("why", CANNOT_START)
@pytest.mark.parametrize("remedy", ["tools.restore", "dvc repro"])
def test_next_command_puts_back_what_a_command_that_cannot_start_removed(workspace, why, remedy):
    """`python -m tools.restore`, without any package; or the next `dvc repro`: its run cache."""
    before = {name: workspace.read(name) for name in RESULTS}
    program = FORCED_RENDER.format(environment=CANNOT_START[why])
    workspace.run(sys.executable, "-c", program, ok=False)
    assert not (workspace.path / "reports/index.html").exists()
    if remedy == "tools.restore":
        output = workspace.run(sys.executable, "-I", "-S", "-c", RESTORE)
        assert "restore: reports/index.html\n" in output
    else:
        assert "Stage 'render' is cached" in workspace.run("dvc", "repro")
    assert {name: workspace.read(name) for name in RESULTS} == before


RESTORE = """import sys; sys.path.insert(0, ''); sys.argv[1:] = []
from tools.restore import main
main()"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONSAFEPATH": "1"},
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"PYTHONPATH": "/nonexistent"},
    ],
)
def test_what_the_callers_shell_holds_costs_no_result(workspace, environment):
    before = {name: workspace.read(name) for name in RESULTS}
    command = ["dvc", "repro", "--force", "--single-item", "render"]
    done = subprocess.run(
        command, cwd=workspace.path, env=workspace.environment() | environment, check=False
    )
    assert done.returncode == 0
    assert {name: workspace.read(name) for name in RESULTS} == before


def test_guard_needs_no_package_that_has_to_be_installed(workspace):
    """-S leaves out all that is not Python's own, -I what the environment adds."""
    program = "import sys; sys.path.insert(0, '.'); import cifar100.running.guard, stages.train"
    workspace.run(sys.executable, "-I", "-S", "-c", program)


def test_next_run_after_a_restored_one_has_nothing_to_do(workspace: Workspace):
    (workspace.path / "reports/index.html").unlink()
    (workspace.path / "reports/metrics.json").unlink()
    output = workspace.run(sys.executable, "-m", "tools.restore")
    assert "restore: reports/index.html\n" in output
    assert "restore: reports/metrics.json\n" in output
    assert "up to date" in workspace.run("dvc", "status")


def test_make_repro_puts_lost_results_back_before_it_would_train(workspace: Workspace):
    """DVC makes a missing output again where it has no run cache, as after `dvc pull`."""
    command = ["make", "--no-print-directory", "--dry-run", "repro"]
    recipe = subprocess.check_output(command, cwd=ROOT, text=True)
    model = workspace.read("models/model.safetensors")
    shutil.rmtree(workspace.path / ".dvc/cache/runs")
    (workspace.path / "models/model.safetensors").unlink()
    output = workspace.run("sh", "-c", recipe[recipe.index("python -m tools.check_params") :])
    assert "restore: models/model.safetensors\n" in output
    assert "Running stage" not in output
    assert workspace.read("models/model.safetensors") == model
