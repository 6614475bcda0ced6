"""The pipeline as users run it: through the real `dvc`, in a Git clone, on synthetic data."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.dataset.archive import read_archive
from stages.dataset.samples import content_digest
from tests.archives import members, write_archive
from tests.conftest import Workspace

STAGES = ["download", "preprocess", "train", "evaluate", "render"]
RESULTS = [
    "data/processed/train.npz",
    "models/model.safetensors",
    "models/model.json",
    "reports/history.csv",
    "reports/timing.json",
    "reports/metrics.json",
    "reports/index.html",
]


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def one_error_line(output: str) -> str:
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    return lines[0]


def test_every_stage_writes_what_the_next_and_the_user_need(finished):
    metrics = json.loads(finished.read("reports/metrics.json"))
    assert 6 <= len(metrics) <= 8
    assert all(isinstance(value, float) for value in metrics.values())
    predictions = np.load(finished.path / "data/predictions/test.npz")
    right = predictions["logits"].argmax(1) == predictions["labels"]
    assert metrics["top1"] == pytest.approx(right.mean(), abs=1e-5)
    assert metrics["top1"] > 0.05  # chance is 0.01
    assert len(pd.read_csv(finished.path / "reports/history.csv")) == 2
    assert len(pd.read_csv(finished.path / "reports/per_class.csv")) == 100
    for name in ("learning_curves", "class_confusion", "superclass_confusion"):
        assert Image.open(finished.path / f"reports/figures/{name}.png").size[0] > 300
    assert (finished.path / "reports/gallery/confident_mistakes.png").is_file()
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
        ("eval_flip", "false", ["evaluate", "render"]),
        ("lr", "0.05", ["train", "evaluate", "render"]),
        ("split_seed", "1", STAGES[1:]),
    ],
)
def test_param_runs_its_stage_and_what_follows(workspace, key, value, expected):
    workspace.set_params(**{key: value})
    output = workspace.run("dvc", "repro", "--dry")
    assert stages_run(output)[0] == expected[0]
    assert not set(stages_run(output)) - set(expected)
    if key == "figure_dpi":
        assert stages_run(workspace.run("dvc", "repro")) == expected


def test_editing_the_code_of_one_stage_runs_that_stage_and_what_follows(workspace):
    source = workspace.path / "stages/figures/curves.py"
    source.write_text(source.read_text(encoding="utf-8") + "\n# a comment\n", encoding="utf-8")
    assert stages_run(workspace.run("dvc", "repro")) == ["render"]


def test_experiment_with_another_lr_trains_and_can_be_compared(workspace):
    output = workspace.run("dvc", "exp", "run", "--name", "slower", "-S", "lr=0.05")
    assert stages_run(output) == ["train", "evaluate", "render"]
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


def test_experiment_in_a_temporary_workspace_leaves_this_one_alone(workspace):
    before = {name: workspace.read(name) for name in RESULTS}
    output = workspace.run("dvc", "exp", "run", "--temp", "--name", "aside", "-S", "lr=0.05")
    assert stages_run(output) == ["train", "evaluate", "render"]
    assert {name: workspace.read(name) for name in RESULTS} == before
    assert workspace.run("git", "status", "--porcelain") == ""
    shown = workspace.run("dvc", "exp", "show", "--csv", "--only-changed")
    assert "aside" in shown


def test_queue_runs_several_experiments(workspace):
    workspace.run("dvc", "exp", "run", "--queue", "-S", "lr=0.03,0.05")
    workspace.run("dvc", "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 400
    while re.search(r"Queued|Running", status := workspace.run("dvc", "queue", "status")):
        assert time.monotonic() < deadline, status
        time.sleep(2)
    assert status.count("Success") == 2, status
    assert workspace.run("git", "status", "--porcelain") == ""
    shown = workspace.run("dvc", "exp", "show", "--csv")
    assert re.search(r"\b0\.03\b", shown)
    assert re.search(r"\b0\.05\b", shown)


def test_training_again_gives_the_same_bytes(workspace):
    before = {name: workspace.read(name) for name in RESULTS if "timing" not in name}
    output = workspace.run(
        "dvc", "repro", "--force", "--single-item", "train", "evaluate", "render"
    )
    assert stages_run(output) == ["train", "evaluate", "render"]
    assert {name: workspace.read(name) for name in before} == before


def test_processed_files_do_not_depend_on_the_order_in_the_archive(workspace):
    names = ["train.npz", "val.npz", "test.npz", "classes.json"]
    before = [workspace.read(f"data/processed/{name}") for name in names]
    archive = workspace.path / "data/raw/cifar-100-python.tar.gz"
    train, test, classes = read_archive(archive)
    rng = np.random.default_rng(0)
    shuffled = [split.take(rng.permutation(len(split))) for split in (train, test)]
    assert content_digest(*shuffled, classes) == content_digest(train, test, classes)
    archive.unlink()
    write_archive(archive, members(*shuffled, classes))
    workspace.run(sys.executable, "-m", "stages.preprocess")
    assert [workspace.read(f"data/processed/{name}") for name in names] == before


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("dataset", "cifar10", "params.yaml: dataset: 'cifar10' is not allowed"),
        ("depth", "19", "params.yaml: depth: 19 is not allowed"),
        ("lr", "abc", "params.yaml: lr: 'abc' is not allowed"),
        ("lr", "-1", "params.yaml: lr: -1 is not allowed"),
        ("epochs", "0", "params.yaml: epochs: 0 is not allowed"),
        ("batch_size", "4096", "params.yaml: batch_size: 4096 exceeds the 3000 training images"),
        ("val_per_class", "60", "params.yaml: val_per_class: 60 leaves nothing to train on"),
        ("device", "gpu", "params.yaml: device: gpu was asked for"),
    ],
)
def test_bad_param_is_one_line_and_loses_nothing(workspace, key, value, reason):
    before = {name: workspace.read(name) for name in RESULTS}
    workspace.set_params(**{key: value})
    assert reason in one_error_line(workspace.run("dvc", "repro", ok=False))
    assert {name: workspace.read(name) for name in RESULTS} == before


def test_unknown_key_is_refused_before_any_stage(workspace):
    with (workspace.path / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("learning_rate: 0.1\n")
    output = workspace.run(sys.executable, "-m", "stages.parameters.check", ok=False)
    assert "unknown key learning_rate" in one_error_line(output)


@pytest.mark.parametrize("kind", ["missing", "truncated", "page", "other", "hostile"])
def test_bad_archive_is_one_line_and_loses_nothing(workspace, tmp_path, kind):
    before = {name: workspace.read(name) for name in [*RESULTS, "data/raw/cifar-100-python.tar.gz"]}
    archive = tmp_path / "archive.tar.gz"
    trace = tmp_path / "trace"
    synthetic = workspace.read("data/raw/cifar-100-python.tar.gz")
    hostile = b"cposix\nsystem\n(Vtouch " + str(trace).encode() + b"\ntR."
    if kind == "hostile":
        write_archive(archive, {"meta": hostile, "train": hostile, "test": hostile})
    elif kind != "missing":
        contents = {
            "truncated": synthetic[:100_000],
            "page": b"<html>Not found</html>",
            "other": synthetic,
        }
        archive.write_bytes(contents[kind])
    workspace.set_params(dataset="cifar100", archive_url="http://127.0.0.1:9/closed")
    output = workspace.run("dvc", "repro", ok=False, CIFAR100_ARCHIVE=str(archive), no_proxy="*")
    line = one_error_line(output)
    assert str(archive) in line
    expected = {
        "missing": "no such file",
        "truncated": "not a complete .tar.gz archive",
        "page": "not a complete .tar.gz archive",
        "other": "not CIFAR-100: expected md5",
        "hostile": "it asks for posix.system",
    }
    assert expected[kind] in line
    assert not trace.exists()
    assert {name: workspace.read(name) for name in before} == before


def test_fresh_clone_reproduces_from_params_alone(finished, tmp_path):
    clone = Workspace(tmp_path / "clone")
    finished.run("git", "clone", "--quiet", str(finished.path), str(clone.path))
    assert not (clone.path / "models/model.safetensors").exists()
    assert (clone.path / "reports/metrics.json").exists()
    clone.run("dvc", "repro")
    for name in RESULTS:
        if "timing" not in name:
            assert clone.read(name) == finished.read(name), name


def test_output_that_cannot_be_written_is_one_line_before_the_long_work(workspace):
    """A file stands where a folder is needed, which stops even root."""
    shutil.rmtree(workspace.path / "models")
    (workspace.path / "models").write_text("in the way")
    output = workspace.run(sys.executable, "-m", "stages.train", ok=False)
    assert one_error_line(output).startswith("error: train: models: ")
    assert "epoch" not in output


def test_committed_reports_survive_a_failure_where_the_cache_is_empty(finished, tmp_path):
    clone = Workspace(tmp_path / "clone")
    finished.run("git", "clone", "--quiet", str(finished.path), str(clone.path))
    shutil.copytree(finished.path / "data/processed", clone.path / "data/processed")
    clone.set_params(lr="abc")
    one_error_line(clone.run("dvc", "repro", "--single-item", "train", ok=False))
    for name in ("reports/history.csv", "reports/timing.json"):
        assert clone.read(name) == finished.read(name)


@pytest.mark.timeout(300)
def test_interrupted_training_puts_the_last_results_back(workspace):
    before = {name: workspace.read(name) for name in RESULTS}
    workspace.set_params(epochs="1000", lr="0.05")
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(
        command,
        cwd=workspace.path,
        env=workspace.environment(),
        start_new_session=True,
        # Below a background job of a shell Ctrl-C would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("epoch"):
                os.killpg(running.pid, signal.SIGINT)
                break
        rest = running.stdout.read()
    assert running.returncode != 0
    assert "error: train: interrupted" in rest
    assert {name: workspace.read(name) for name in RESULTS} == before


def check_lock(workspace: Workspace, ok: bool = True) -> str:
    return workspace.run(sys.executable, "-m", "tests.check_lock", ok=ok)


def test_check_lock_needs_no_data_and_notices_each_change(finished, tmp_path):
    clone = Workspace(tmp_path / "clone")
    finished.run("git", "clone", "--quiet", str(finished.path), str(clone.path))
    assert "are of the committed code" in check_lock(clone)
    changes = {
        "stages/training/loop.py": "train: changed deps: stages/training/loop.py: modified",
        "reports/metrics.json": "evaluate: changed outs: reports/metrics.json: modified",
        "reports/figures/class_confusion.png": "render: changed outs: reports/figures",
    }
    for name, line in changes.items():
        original = clone.read(name)
        (clone.path / name).write_bytes(original + b"\n")
        assert line in check_lock(clone, ok=False)
        (clone.path / name).unlink()
        assert line.replace("modified", "deleted") in check_lock(clone, ok=False)
        (clone.path / name).write_bytes(original)
    clone.set_params(lr="0.07")
    assert "train: changed deps: params.yaml: {'lr': 'modified'}" in check_lock(clone, ok=False)
    clone.set_params(lr="0.1")
    lock = (clone.path / "dvc.lock").read_text(encoding="utf-8")
    model = re.search(r"path: models/model.safetensors\n +hash: md5\n +md5: (\w+)", lock)
    assert model is not None
    stale = lock[: model.start(1)] + "a" * 32 + lock[model.end(1) :]
    (clone.path / "dvc.lock").write_text(stale, encoding="utf-8")
    assert "models/model.safetensors: not the one that an earlier" in check_lock(clone, ok=False)
    (clone.path / "dvc.lock").write_text(lock, encoding="utf-8")
    pipeline = (clone.path / "dvc.yaml").read_text(encoding="utf-8")
    changed = pipeline.replace("python -m stages.render", "python -m stages.render --fast")
    (clone.path / "dvc.yaml").write_text(changed, encoding="utf-8")
    assert "render: changed command" in check_lock(clone, ok=False)
