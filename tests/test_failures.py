"""Failures as users meet them: one line, an exit code, and no earlier result lost."""

import os
import shutil
import signal
import sys

import pytest

from cifar100.running.restore import restore_outputs
from tests.archives import write_archive
from tests.conftest import NO_NETWORK, RESULTS, Workspace
from tests.processes import is_running, training_process


def one_error_line(output: str) -> str:
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    return lines[0]


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
    output = workspace.run(sys.executable, "-m", "tools.check_params", ok=False)
    assert "unknown key learning_rate" in one_error_line(output)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("missing", marks=pytest.mark.slow),
        "hostile",
        pytest.param("truncated", marks=pytest.mark.slow),
        pytest.param("other", marks=pytest.mark.slow),
    ],
)
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
            "other": synthetic,
        }
        archive.write_bytes(contents[kind])
    workspace.set_params(dataset="cifar100", archive_url="http://127.0.0.1:9/closed")
    environment = {"CIFAR100_ARCHIVE": str(archive), "HOME": str(tmp_path)} | NO_NETWORK
    output = workspace.run("dvc", "repro", ok=False, **environment)
    line = one_error_line(output)
    assert str(archive) in line
    expected = {
        "missing": "no such file",
        "truncated": "not a complete .tar.gz archive",
        "other": "not CIFAR-100: expected md5",
        "hostile": "it asks for posix.system",
    }
    assert expected[kind] in line
    assert not trace.exists()
    assert {name: workspace.read(name) for name in before} == before


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
@pytest.mark.parametrize(
    "ending",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_interrupted_training_puts_the_last_results_back(workspace, ending):
    """All processes get the signal, as from a terminal or a machine that shuts down."""
    before = {name: workspace.read(name) for name in RESULTS}
    workspace.set_params(epochs="1000", lr="0.05")
    with workspace.training() as dvc:
        stage = training_process(dvc.pid)
        assert "is busy" in workspace.run("dvc", "repro", "--single-item", "train", ok=False)
        os.killpg(dvc.pid, ending)
        rest = dvc.stdout.read()
    assert dvc.returncode != 0
    assert "error: train: interrupted" in rest
    assert {name: workspace.read(name) for name in RESULTS} == before
    assert not is_running(stage)


def test_outputs_of_a_stage_that_failed_half_way_are_the_last_good_ones(workspace, monkeypatch):
    """New weights beside an old description would be a model that nobody trained."""
    before = {name: workspace.read(name) for name in RESULTS}
    monkeypatch.setenv("DVC_ROOT", str(workspace.path))
    (workspace.path / "models/model.safetensors").write_bytes(b"new")
    (workspace.path / "reports/history.csv").unlink()
    restore_outputs("train", workspace.path)
    assert {name: workspace.read(name) for name in RESULTS} == before
