"""The pipeline as users run it: through the real `dvc`, in a Git clone, on synthetic data."""

import io
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from cifar100.archive.content import content_digest
from cifar100.archive.reader import read_archive
from tests.archives import members, write_archive
from tests.conftest import RESULTS, Workspace

STAGES = ["download", "preprocess", "train", "evaluate", "render", "export"]


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def test_every_stage_writes_what_the_next_and_the_user_need(finished):
    metrics = json.loads(finished.read("reports/metrics.json"))
    assert 8 <= len(metrics) <= 10
    assert all(isinstance(value, float) for value in metrics.values())
    predictions = np.load(finished.path / "data/predictions/test.npz")
    correct = predictions["logits"].argmax(1) == predictions["labels"]
    assert metrics["top1"] == pytest.approx(correct.mean(), abs=1e-5)
    assert metrics["top1"] > 0.05  # chance is 0.01
    assert len(pd.read_csv(finished.path / "reports/history.csv")) == 2
    assert len(pd.read_csv(finished.path / "reports/per_class.csv")) == 100
    charts = ["learning_curves", "class_confusion", "superclass_confusion", "class_accuracy"]
    for name in [*charts, "reliability", "first_filters"]:
        assert Image.open(finished.path / f"reports/figures/{name}.png").size[0] > 200
    for name in ("confident_errors", "correct_predictions", "confused_pairs"):
        assert Image.open(finished.path / f"reports/gallery/{name}.png").size[0] > 300
    intervals = pd.read_csv(finished.path / "reports/intervals.csv").set_index("metric")
    assert intervals.loc["top1", "low"] < metrics["top1"] < intervals.loc["top1", "high"]
    assert len(pd.read_csv(finished.path / "reports/reliability.csv")) == 2 * 15
    assert len(pd.read_csv(finished.path / "reports/confused_pairs.csv")) == 20
    for name in ("class_confusion", "superclass_confusion"):
        table = pd.read_csv(finished.path / f"reports/{name}.csv")
        assert table["images"].sum() == len(correct)
        same = table["actual"] == table["predicted"]
        score = "top1" if name == "class_confusion" else "superclass_top1"
        assert table["images"][same].sum() / len(correct) == pytest.approx(metrics[score], abs=1e-5)
    summary = pd.read_csv(finished.path / "models/summary.csv")
    assert summary["layer"].iloc[-1] == "total"


def test_what_shows_images_is_not_in_git(finished):
    tracked = finished.run("git", "ls-files").splitlines()
    assert "reports/metrics.json" in tracked
    assert "reports/figures/class_confusion.png" in tracked
    kept = ("data/raw/", "data/processed/", "data/predictions/", "models/", "reports/gallery/")
    assert not [name for name in tracked if name.startswith(kept)]
    assert "reports/index.html" not in tracked
    assert finished.run("git", "status", "--porcelain") == ""


def test_second_run_does_nothing(workspace):
    assert "Data and pipelines are up to date." in workspace.run("dvc", "repro")
    assert "Data and pipelines are up to date." in workspace.run("dvc", "status")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("figure_dpi", "45", ["render"]),
        ("eval_flip", "false", STAGES[3:]),
        ("calibration_bins", "10", STAGES[3:]),
        ("lr", "0.05", STAGES[2:]),
        ("split_seed", "1", STAGES[1:]),
    ],
)
def test_param_runs_its_stage_and_what_follows(workspace, key, value, expected):
    workspace.set_params(**{key: value})
    assert stages_run(workspace.run("dvc", "repro", "--dry"))[0] == expected[0]
    output = workspace.run("dvc", "repro", "--dry", "--force-downstream")
    assert set(stages_run(output)) == set(expected)


@pytest.mark.slow
def test_editing_the_code_of_one_stage_runs_that_stage_and_what_follows(workspace):
    source = workspace.path / "stages/render/curves.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")
    assert stages_run(workspace.run("dvc", "repro")) == ["render"]


def test_experiment_with_another_lr_trains_and_can_be_compared(workspace):
    output = workspace.run("dvc", "exp", "run", "--name", "slower", "-S", "lr=0.05")
    assert set(stages_run(output)) == set(STAGES[2:])
    changes = json.loads(workspace.run("dvc", "metrics", "diff", "--json"))
    assert changes["reports/metrics.json"]["loss"]["diff"] != 0
    params = json.loads(workspace.run("dvc", "params", "diff", "--json"))
    assert (params["params.yaml"]["lr"]["old"], params["params.yaml"]["lr"]["new"]) == (0.1, 0.05)
    assert "slower" in workspace.run("dvc", "exp", "show", "--csv")
    workspace.run("dvc", "plots", "diff", "HEAD")
    assert (workspace.path / "dvc_plots/index.html").is_file()
    # Going back takes the first result from the cache: nothing is trained again.
    workspace.set_params(lr="0.1")
    assert stages_run(workspace.run("dvc", "repro")) == []


@pytest.mark.slow
def test_experiment_in_a_temporary_workspace_leaves_this_one_alone(workspace):
    before = {name: workspace.read(name) for name in RESULTS}
    output = workspace.run("dvc", "exp", "run", "--temp", "--name", "aside", "-S", "lr=0.05")
    assert set(stages_run(output)) == set(STAGES[2:])
    assert {name: workspace.read(name) for name in RESULTS} == before
    assert workspace.run("git", "status", "--porcelain") == ""
    shown = workspace.run("dvc", "exp", "show", "--csv", "--only-changed")
    assert "aside" in shown


def wait_for_queue(workspace: Workspace, **expected: int) -> dict[str, str]:
    """Wait until so many experiments are in each of the states named; all states by name."""
    deadline = time.monotonic() + 900
    while True:
        status = workspace.run("dvc", "queue", "status")
        row = r"(?m)^\w{7} +(\S+) .* (Queued|Running|Success|Failed) *$"
        states = dict(re.findall(row, status))
        if Counter(states.values()) == expected:
            return states
        assert time.monotonic() < deadline, status
        time.sleep(2)


def start_two_workers(workspace: Workspace) -> None:
    """Start them in the background; they hold its output open, so it must not be a pipe."""
    workspace.run("sh", "-c", "dvc queue start --jobs 2 > /dev/null 2>&1")


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder or below it, as all of an experiment queue do."""
    everyone = psutil.process_iter(["cwd", "cmdline"])
    return [p for p in everyone if p.info["cwd"] and Path(p.info["cwd"]).is_relative_to(folder)]


def training_worker(workspace: Workspace, number: int) -> psutil.Process:
    """Wait until the queue worker with this number trains a network; its process."""
    deadline = time.monotonic() + 120
    while True:
        processes = processes_in(workspace.path)
        for worker in processes:
            if f"-{number}@localhost" in str(worker.info["cmdline"]):
                below = worker.children(recursive=True)
                if any("stages/train" in str(p.info["cmdline"]) for p in processes if p in below):
                    return worker
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_queue_with_two_workers_loses_no_experiment_when_one_of_them_is_killed(workspace):
    queued = workspace.run("dvc", "exp", "run", "--queue", "-S", "lr=0.01,0.02,0.03,0.04,0.05,0.06")
    found = re.findall(r"lr=([\d.]+)'.*\nQueued experiment '(\S+)'", queued)
    lr_of = {name: lr for lr, name in found}
    assert len(lr_of) == 6
    try:
        start_two_workers(workspace)
        worker = training_worker(workspace, 2)
        # DVC starts each worker in a process group of its own; all that it runs is in there.
        os.killpg(os.getpgid(worker.pid), signal.SIGKILL)

        states = wait_for_queue(workspace, Success=5, Running=1)  # the other worker does the rest
        (lost,) = [name for name, state in states.items() if state == "Running"]
        # What docs/experiments.md says to do: tell DVC that it is gone, and queue it anew.
        workspace.run("dvc", "queue", "kill", lost)
        wait_for_queue(workspace, Success=5, Failed=1)
        workspace.run("dvc", "exp", "run", "--queue", "-S", f"lr={lr_of[lost]}")
        start_two_workers(workspace)
        wait_for_queue(workspace, Success=6, Failed=1)

        shown = workspace.run("dvc", "exp", "show", "--csv")
        table = pd.read_csv(io.StringIO(shown[shown.index("Experiment,") :]))
        recorded = table[table["State"] == "Success"]
        assert set(recorded["lr"]) == {float(lr) for lr in lr_of.values()}
        assert recorded["loss"].nunique() == 6
        assert workspace.run("git", "status", "--porcelain") == ""
        # Workers look every 10 seconds whether there is anything left to do.
        _, left = psutil.wait_procs(processes_in(workspace.path), timeout=60)
        assert left == []
    finally:
        workspace.run("dvc", "queue", "stop", "--kill")
        for process in psutil.wait_procs(processes_in(workspace.path), timeout=30)[1]:
            process.kill()


def test_processed_files_do_not_depend_on_the_order_in_the_archive(workspace):
    names = ["train.npz", "val.npz", "test.npz", "classes.json"]
    before = [workspace.read(f"data/processed/{name}") for name in names]
    archive = workspace.path / "data/raw/cifar-100-python.tar.gz"
    train, test, classes = read_archive(archive)
    rng = np.random.default_rng(0)
    shuffled = [split.take(rng.permutation(len(split))) for split in (train, test)]
    assert content_digest(*shuffled, classes) == content_digest(train, test, classes)
    shutil.rmtree(workspace.path / "data/processed")
    archive.unlink()
    write_archive(archive, members(*shuffled, classes))
    workspace.run(sys.executable, "-m", "stages.preprocess")
    assert [workspace.read(f"data/processed/{name}") for name in names] == before


# Python runs it at each start, and then tells it of each connection and each look-up of a name.
NOTE_CONNECTIONS = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        write(f"{event} {arguments}")

def write(line):
    with open(os.environ["CONNECTIONS"], "a", encoding="utf-8") as file:
        file.write(line + chr(10))

write(f"start {sys.orig_argv}")
sys.addaudithook(note)
"""


@pytest.mark.slow
def test_fresh_clone_reproduces_from_params_alone(finished, tmp_path):
    """And without a connection to another machine."""
    clone = Workspace(tmp_path / "clone")
    finished.run("git", "clone", "--quiet", str(finished.path), str(clone.path))
    assert not (clone.path / "models/model.safetensors").exists()
    assert (clone.path / "reports/metrics.json").exists()
    noted = tmp_path / "connections"
    (tmp_path / "sitecustomize.py").write_text(NOTE_CONNECTIONS, encoding="utf-8")
    clone.run("dvc", "repro", PYTHONPATH=str(tmp_path), CONNECTIONS=str(noted))
    lines = noted.read_text(encoding="utf-8").splitlines()
    assert {stage for stage in STAGES if f"'stages.{stage}']" in str(lines)} == set(STAGES)
    noted_connections = [line for line in lines if not line.startswith("start")]
    assert [c for c in noted_connections if not re.search("127.0.0.1|localhost|AF_UNIX", c)] == []
    for name in RESULTS:
        if "timing" not in name:
            assert clone.read(name) == finished.read(name), name
