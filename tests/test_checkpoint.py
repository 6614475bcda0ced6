"""Trainings that are killed and go on: real processes, real signals, the same bytes."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from stages.dataset.splits import save_classes, save_split
from stages.hardware import cpu
from stages.network import storage
from stages.network.resnet import weights_of
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from stages.training import checkpoint
from stages.training.checkpoint import training_digest
from stages.training.loop import Job, train
from stages.training.trainer import Trainer
from stages.training.validation import validate
from stages.training.workers import run_workers
from tests.conftest import Workspace
from tests.processes import children, is_running, training_processes, wait_until

STEPS = 50  # per epoch
SECONDS = 120  # that a training in these tests may take


@pytest.fixture
def job(tmp_path, samples, classes) -> Job:
    """50 steps per epoch, and a checkpoint every 20."""
    rows = np.arange(len(samples))
    save_split(tmp_path / "train.npz", samples.take(rows[:400]))
    save_split(tmp_path / "val.npz", samples.take(rows[400:]))
    save_classes(tmp_path / "classes.json", classes)
    changes = {
        "depth": 20,
        "width": 2,
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.05,
        "ema_decay": 0.9,
        "progressive_sizes": [8],
        "progressive_fraction": 0.7,
    }
    params = load(TrainParameters).model_copy(update=changes)
    return Job(params, "cpu", tmp_path, tmp_path, tmp_path, tmp_path / "state", save_every=0)


def start(job: Job, workers: int) -> Any:
    """Start the training in a process of its own, which becomes the parent of the workers."""
    process = multiprocessing.get_context("spawn").Process(
        target=run_workers, args=(train, job, workers, "cpu")
    )
    process.start()
    return process


def finish(job: Job, workers: int) -> tuple[bytes, ...]:
    """Run the training, or the rest of it; return model.safetensors and history.csv."""
    process = start(job, workers)
    process.join(SECONDS)
    assert process.exitcode == 0
    assert not job.checkpoint.exists()
    assert not list(job.checkpoint.parent.glob(f".{job.checkpoint.name}*"))
    return tuple((job.models / name).read_bytes() for name in ("model.safetensors", "history.csv"))


def epochs_saved(job: Job) -> float:
    """How many epochs the saved state has behind it; -1 if there is none."""
    if not job.checkpoint.exists():
        return -1
    progress = json.loads(safe_open(job.checkpoint, "numpy").metadata()["progress"])
    return progress["epoch"] + progress["step"] / STEPS


def kill_and_resume(
    job: Job, workers: int, moments: list[tuple[float, float]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Kill the training at each of the moments; what is resumed ends with the same bytes.

    A moment is so many seconds after a state of so many epochs was saved, or after the start.
    """
    expected, resumed = finish(job, workers), 0
    for epochs, seconds in moments:
        process = start(job, workers)
        wait_until(lambda: epochs < 0 or epochs_saved(job) >= epochs, SECONDS)  # noqa: B023
        process.join(seconds)
        alive = process.is_alive()
        others = children(process.pid) if alive else []
        process.kill()
        process.join()
        wait_until(lambda: not any(map(is_running, others)), 10)  # noqa: B023
        capfd.readouterr()
        assert finish(job, workers) == expected
        goes_on = "train: goes on after" in capfd.readouterr().out
        assert goes_on == (alive and epochs >= 0)
        resumed += goes_on
    assert resumed > len(moments) / 2


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_training_resumes_to_the_same_bytes(job, workers, capfd):
    kill_and_resume(job, workers, [(1.4, 0.1)], capfd)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_killed_trainings_resume_to_the_same_bytes(job, workers, capfd):
    """At random moments from before the first state is saved to shortly before the end."""
    rng = random.Random(0)
    moments = [(rng.uniform(-0.2, 2.7), rng.uniform(0, 0.2)) for _ in range(20)]
    kill_and_resume(job, workers, moments, capfd)


def save_half(tensors: Any, path: Path, metadata: dict[str, str]) -> None:
    """Write a state, or half of the one after the first epoch, and end as in a power cut."""
    save_file(tensors, path, metadata)
    progress = json.loads(metadata["progress"])
    if progress["epoch"] == 1:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def train_until_the_power_is_cut(job: Job) -> None:
    storage.save_file = save_half
    run_workers(train, job, 1, "cpu")


@pytest.mark.slow
def test_state_that_was_being_written_at_a_power_cut_is_not_used(job, capfd):
    expected = finish(job, workers=1)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=train_until_the_power_is_cut, args=(job,))
    process.start()
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGKILL
    assert len(list(job.checkpoint.parent.glob(f".{job.checkpoint.name}*"))) == 1
    assert epochs_saved(job) == 0.8
    capfd.readouterr()
    assert finish(job, workers=1) == expected
    assert "train: goes on after 0 epochs and 40 of 50 steps" in capfd.readouterr().out


def test_state_that_diverged_does_not_replace_the_last_good_one(job, monkeypatch):
    def poisoned_step(trainer: Trainer, batch: Any, size: int, rate: float) -> Any:
        loss, hits = run_step(trainer, batch, size, rate)
        if (trainer.epoch, trainer.step) == (1, 39):  # the next look finds a finite loss, and saves
            weight = weights_of(trainer.network)[0]
            weight.set_value(paddle.full_like(weight, float("inf")))
        return loss, hits

    run_step = Trainer.run_step
    monkeypatch.setattr(Trainer, "run_step", poisoned_step)
    with pytest.raises(PipelineError, match=r"is nan in epoch 2, step 50, at lr .*; try a smaller"):
        train(job)
    assert epochs_saved(job) == 1.4


def interrupt_in_epoch(job: Job, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in this process up to the end of `epoch`, before its validation."""

    def interrupted_validate(*_arguments: Any) -> Any:
        if len(epochs) == epoch - 1:
            raise KeyboardInterrupt
        epochs.append(1)
        return validate(*_arguments)

    epochs: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr("stages.training.loop.validate", interrupted_validate)
        with pytest.raises(KeyboardInterrupt):
            train(job)


def test_resumed_history_is_continuous_and_the_time_adds_up(job, monkeypatch, capsys):
    interrupt_in_epoch(job, 2, monkeypatch)
    saved = json.loads(safe_open(job.checkpoint, "numpy").metadata()["progress"])
    assert (saved["epoch"], saved["step"]) == (1, 40)
    train(job)
    assert "goes on after 1 epochs and 40 of 50 steps" in capsys.readouterr().out
    assert list(pd.read_csv(job.reports / "history.csv")["epoch"]) == [1, 2, 3]
    timing = json.loads((job.reports / "timing.json").read_text())
    assert timing["train_seconds"] >= round(saved["seconds"])


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut off", "one bit"])
def test_damaged_checkpoint_is_not_used(job, monkeypatch, capsys, damage):
    train(job)
    expected = (job.models / "model.safetensors").read_bytes()
    interrupt_in_epoch(job, 2, monkeypatch)
    content = bytearray(job.checkpoint.read_bytes())
    if damage == "one bit":
        content[-5] ^= 1
    job.checkpoint.write_bytes(content[:1000] if damage == "cut off" else content)
    train(job)
    told = capsys.readouterr().out
    assert "goes on" not in told
    assert f"{job.checkpoint} is damaged and not used" in told
    assert (job.models / "model.safetensors").read_bytes() == expected


def test_digest_names_params_data_and_code(tmp_path):
    (tmp_path / "code.py").write_text("1")
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text("stages: {train: {deps: [code.py, data.npz]}}")
    params = load(TrainParameters)
    digests = [
        training_digest(params, "cpu", 2, pipeline),
        training_digest(params, "cpu", 1, pipeline),
        training_digest(params.model_copy(update={"lr": 0.123}), "cpu", 2, pipeline),
    ]
    (tmp_path / "code.py").write_text("2")
    digests.append(training_digest(params, "cpu", 2, pipeline))
    (tmp_path / "data.npz").write_text("3")
    digests.append(training_digest(params, "cpu", 2, pipeline))
    assert len(set(digests)) == len(digests)
    assert training_digest(params, "cpu", 2, pipeline) == digests[-1]


def test_digest_names_threads_and_libraries(tmp_path, monkeypatch):
    pipeline = tmp_path / "dvc.yaml"
    pipeline.write_text("stages: {train: {deps: []}}")
    params = load(TrainParameters)
    digest = training_digest(params, "cpu", 1, pipeline)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "version", lambda library: "0.0")
        assert training_digest(params, "cpu", 1, pipeline) != digest
    cores = cpu.available_cores()
    monkeypatch.setattr(cpu, "available_cores", lambda: [*cores, max(cores) + 1])
    assert training_digest(params, "cpu", 1, pipeline) != digest


def kill_a_worker(workspace: Workspace) -> None:
    """Train through DVC, as users do, and see what it says when one of the workers dies."""
    with workspace.training() as dvc:
        stage, workers = training_processes(dvc.pid)
        os.kill(workers[-1], signal.SIGKILL)
        killed = time.monotonic()
        rest = dvc.stdout.read()
    assert time.monotonic() - killed < 15
    assert [line for line in rest.splitlines() if line.startswith("error: ")] == [
        "error: train: worker 1 was ended by SIGKILL, perhaps for lack of memory; "
        "start the same command again to go on"
    ]
    assert not any(map(is_running, [stage, *workers]))


def test_dead_worker_ends_the_training_in_one_line_and_leaves_nothing(workspace):
    kill_a_worker(workspace)


@pytest.mark.slow
def test_training_goes_on_to_the_same_bytes_after_a_worker_died(workspace):
    names = ("models/model.safetensors", "reports/history.csv")
    expected = [workspace.read(name) for name in names]
    kill_a_worker(workspace)
    again = workspace.run("dvc", "repro", "--force", "--single-item", "train")
    assert "goes on after 1 epochs" in again
    assert [workspace.read(name) for name in names] == expected


@pytest.mark.slow
def test_training_whose_results_dvc_could_not_record_is_not_lost(workspace):
    workspace.set_params(lr="0.05")
    cache, aside = workspace.path / ".dvc/cache/files", workspace.path / "aside"
    with workspace.training() as dvc:
        cache.rename(aside)
        cache.write_text("a file in the way of the cache's folder")
        dvc.stdout.read()
    assert dvc.returncode != 0
    cache.unlink()
    aside.rename(cache)
    output = workspace.run("dvc", "repro")
    assert "goes on after 2 epochs and 0 of" in output
    assert not list((workspace.path / ".checkpoints").rglob("*.safetensors"))
    model = json.loads((workspace.path / "models/model.json").read_text())
    assert model["training"]["params"]["lr"] == 0.05


@pytest.mark.parametrize("shell", [pytest.param("/bin/bash", marks=pytest.mark.slow), "/bin/sh"])
def test_training_ends_with_the_dvc_that_started_it(workspace, shell):
    """One of these shells becomes the stage that DVC has it start, the other waits beside it."""
    workspace.set_params(epochs="1000", lr="0.05")
    with workspace.training(SHELL=shell) as dvc:
        stage, workers = training_processes(dvc.pid)
        dvc.kill()
        wait_until(lambda: not any(map(is_running, [stage, *workers])), 15)
