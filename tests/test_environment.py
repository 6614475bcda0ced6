"""What a caller's shell holds reaches neither the bytes of a result nor the line of an error."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_disk import NAMESPACE, needs_namespace

# Each of these alone changed charts, or ended a stage in a traceback, at one time.
STYLES = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MPLCONFIGDIR": "/nowhere",
    "MATPLOTLIBRC": "/nowhere/matplotlibrc",
    "MALLOC_PERTURB_": "165",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "7",
    "PYTHONOPTIMIZE": "1",
    "LC_ALL": "tr_TR.UTF-8",
    "LANGUAGE": "tr",
    "TZ": "Asia/Kathmandu",
    "TMPDIR": "/nowhere",
    "COLUMNS": "0",
    "SOURCE_DATE_EPOCH": "0",
}
OWN_STYLE = """
text.usetex: True
savefig.bbox: tight
savefig.facecolor: black
image.cmap: magma
image.interpolation: bilinear
font.family: serif
axes.formatter.use_locale: True
axes.unicode_minus: False
path.simplify: False
figure.dpi: 33
backend: WebAgg
"""


def run(program: str, folder: Path, **environment: str) -> str:
    """What a program prints that ends well and says nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


CHARTS = """
import hashlib
from cifar100.running.environment import clear_environment
clear_environment()
import numpy as np
import pandas as pd
from pathlib import Path
from stages.render.confusion import superclass_confusion
from stages.render.curves import learning_curves
from stages.render.style import save_figure
history = pd.DataFrame({"epoch": [1, 2], "lr": [0.1, 0.0], "image_size": [16, 32]})
for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
    history[name] = [0.2, 0.4]
counts = np.random.default_rng(0).integers(1, 50, (20, 20))
names = [f"_{i}" for i in range(20)]
curves = learning_curves(history, augmented=True, smoothed=True)
for figure in (curves, superclass_confusion(counts, names)):
    save_figure(figure, Path("chart.png"), 40)
    print(hashlib.sha256(Path("chart.png").read_bytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def charts(tmp_path_factory) -> str:
    """The digests of charts that are drawn from a bare shell."""
    return run(CHARTS, tmp_path_factory.mktemp("bare"))


@pytest.mark.parametrize("place", ["home", pytest.param("folder", marks=pytest.mark.slow)])
def test_charts_have_the_same_bytes_in_any_shell(charts, tmp_path, place):
    """A style of the user's in the home folder, or in the folder that a stage runs in."""
    home = tmp_path / "home"
    for folder in (home / ".config/matplotlib", home / ".cache"):
        folder.mkdir(parents=True)
    style = (home / ".config/matplotlib" if place == "home" else tmp_path) / "matplotlibrc"
    style.write_text(OWN_STYLE, encoding="utf-8")
    assert run(CHARTS, tmp_path, **STYLES | {"HOME": str(home)}) == charts


@pytest.mark.slow
@pytest.mark.parametrize("name", STYLES)
def test_charts_have_the_same_bytes_with_each_variable(charts, tmp_path, name):
    assert run(CHARTS, tmp_path, **{name: STYLES[name]}) == charts


@pytest.mark.slow
def test_style_that_is_no_text_in_the_home_folder_is_not_read(charts, tmp_path):
    folder = tmp_path / ".config/matplotlib"
    (folder / "stylelib").mkdir(parents=True)
    for name in ("matplotlibrc", "stylelib/mine.mplstyle"):
        (folder / name).write_bytes(b"font.family: \xff\xfe\n")
    assert run(CHARTS, tmp_path) == charts


def odd_home(kind: str, folder: Path) -> dict[str, str]:
    """The variables of a user whose home is of this kind."""
    home = folder / "home"
    if kind == "a file":
        home.write_text("")
    elif kind == "with a cache that is a file":
        home.mkdir()
        (home / ".cache").write_text("")
    elif kind == "with a link to nowhere":
        home.mkdir()
        os.symlink("/nowhere/at/all", home / ".cache")
    return {"HOME": "" if kind == "empty" else str(home)}


HOMES = ["missing", "empty", "a file", "with a cache that is a file", "with a link to nowhere"]


@pytest.mark.parametrize("kind", HOMES)
def test_home_that_cannot_be_used_is_replaced(tmp_path, kind):
    program = (
        "import os\nfrom cifar100.running.environment import clear_environment\n"
        "clear_environment()\nfrom pathlib import Path\n"
        "home = Path.home()\nprint(home)\nassert home.is_dir() and os.access(home, os.W_OK)"
    )
    home = run(program, tmp_path, **odd_home(kind, tmp_path)).strip()
    assert not Path(home).exists()  # it goes with the process
    assert run(program, tmp_path).strip() == str(tmp_path)  # one that is good stays


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOMES)
def test_charts_and_paddle_need_no_home(charts, tmp_path, kind):
    environment = odd_home(kind, tmp_path)
    assert run(CHARTS, tmp_path, **environment) == charts
    program = (
        "from cifar100.running.environment import clear_environment\nclear_environment()\n"
        "from cifar100.running import cpu\ncpu.prepare(1)\nprint('ready')"
    )
    assert run(program, tmp_path, **environment) == "ready\n"


LEFT = """
import json, os, sys
from cifar100.running.environment import clear_environment, clear_engine_variables
{call}()
print(json.dumps(sorted(os.environ)))
"""


@pytest.mark.parametrize("call", ["clear_environment", "clear_engine_variables"])
def test_variables_of_other_programs_are_forgotten(tmp_path, call):
    """A notebook that loads the model keeps its own plots."""
    engines = ["OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "MKL_CBWR", "ONEDNN_VERBOSE"]
    engines += ["OPENBLAS_NUM_THREADS", "FLAGS_check_nan_inf", "NVIDIA_TF32_OVERRIDE", "NPY_X"]
    engines += ["PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_MASTER", "MASTER_ADDR"]
    kept = ["ONEDNN_MAX_CPU_ISA", "CUDA_VISIBLE_DEVICES", "HTTPS_PROXY", "CIFAR100_ARCHIVE", "HOME"]
    styles = ["MPLBACKEND", "MPLCONFIGDIR", "MALLOC_ARENA_MAX"]
    variables = dict.fromkeys([*engines, *kept[:-1], *styles], "2")
    left = set(json.loads(run(LEFT.format(call=call), tmp_path, **variables)))
    assert not left & set(engines)
    assert left >= set(kept)
    assert bool(left & set(styles)) == (call == "clear_engine_variables")


STREAMS = """
from cifar100.running.environment import clear_environment
clear_environment()
print("▀ größe", "\\udcff")
print("ready", file=open("out", "w"))
"""


def with_streams(folder: Path, streams: str) -> "subprocess.CompletedProcess[str]":
    (folder / "program.py").write_text(STREAMS, encoding="utf-8")
    return subprocess.run(
        ["bash", "-c", f"sleep 0.1; {sys.executable} program.py {streams}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("streams", ["", ">&-", ">&- 2>&-"])
def test_text_is_written_to_any_stream(tmp_path, streams):
    done = with_streams(tmp_path, streams)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "ready\n"
    assert done.stdout == ("\\u2580 gr\\xf6\\xdfe \\udcff\n" if not streams else "")


@pytest.mark.parametrize("streams", ["| true", "> /dev/full"])
def test_stream_that_takes_no_text_is_told_once(tmp_path, streams):
    """Where the text is written, and not again by Python at its end."""
    done = with_streams(tmp_path, streams)
    assert done.stderr.count("Error: ") == 1
    assert "Exception ignored" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tool_whose_reader_leaves_ends_without_a_word():
    """As before `head`; the reader is gone before the tool writes."""
    command = f"{sys.executable} -m tools.summary | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{128 + signal.SIGPIPE}\n", "")


# All at once, beside what the stages themselves set.
HOSTILE = STYLES | {
    "OMP_PROC_BIND": "true",
    "GOMP_CPU_AFFINITY": "0",
    "OMP_NUM_THREADS": "7",
    "KMP_AFFINITY": "compact",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_NUM_THREADS": "2",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "FLAGS_check_nan_inf": "1",
    "PADDLE_TRAINERS_NUM": "2",
    "PADDLE_TRAINER_ID": "1",
    "PADDLE_MASTER": "10.0.0.1:8000",
    "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:8000,10.0.0.2:8000",
    "PADDLE_CURRENT_ENDPOINT": "10.0.0.2:8000",
    "GLOO_SOCKET_IFNAME": "ib0",
}
del HOSTILE["PYTHONWARNINGS"]  # DVC's own imports do not outlive it


def outputs(workspace) -> dict[str, str]:
    from tools.verify import TIMING, hashes

    return {name: md5 for name, md5 in hashes(workspace.path).items() if name != TIMING}


@pytest.mark.slow
def test_pipeline_gives_the_same_bytes_in_a_hostile_shell(finished, workspace, tmp_path):
    """Foreign packages of the same names, a style, a home that is missing, and all variables."""
    foreign = tmp_path / "foreign"
    for name in ("stages", "cifar100", "tools"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text("raise SystemExit('a foreign package')")
    (workspace.path / "matplotlibrc").write_text(OWN_STYLE)
    environment = HOSTILE | {"PYTHONPATH": str(foreign), "HOME": str(tmp_path / "missing")}
    workspace.run("dvc", "repro", "--force", **environment)
    assert outputs(workspace) == outputs(finished)


RETURNING = ("models/model.safetensors", "reports/metrics.json", "reports/index.html")


@pytest.mark.slow
@needs_namespace
@pytest.mark.parametrize(
    "before",
    [
        "mount -t tmpfs -o ro none /dev/shm",
        "mount -t tmpfs -o size=4k none /dev/shm",
        "mkdir shut; mount -t tmpfs -o ro none shut; export TMPDIR=$PWD/shut",
        "mount -t tmpfs -o ro none $HOME",
    ],
)
def test_training_needs_no_folder_of_the_system(finished, workspace, tmp_path, before):
    """Shared memory, temporary folders, the home folder: small or read-only."""
    (tmp_path / "home").mkdir()
    script = (
        f"{before}\npython -m stages.train && python -m stages.evaluate && python -m stages.render"
    )
    for name in RETURNING:
        (workspace.path / name).unlink()
    workspace.run(*NAMESPACE, script, HOME=str(tmp_path / "home"))
    for name in RETURNING:
        assert workspace.read(name) == finished.read(name)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
@needs_namespace
def test_training_needs_no_name_of_the_machine(finished, workspace):
    script = "hostname nowhere.invalid; python -m stages.train"
    name = "models/model.safetensors"
    (workspace.path / name).unlink()
    workspace.run("unshare", "--user", "--map-root-user", "--uts", "sh", "-c", script)
    assert workspace.read(name) == finished.read(name)
