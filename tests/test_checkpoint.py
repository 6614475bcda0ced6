"""Trainings that are killed and go on: real processes, real signals, the same bytes."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from stages.dataset.splits import save_classes, save_split
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.training.checkpoint import training_digest
from stages.training.loop import Job, train
from stages.training.validation import validate
from stages.training.workers import run_workers

SECONDS = 120  # that a training in these tests may take


@pytest.fixture
def job(tmp_path, samples, classes) -> Job:
    """50 steps per epoch, and a checkpoint every 20."""
    rows = np.arange(len(samples))
    save_split(tmp_path / "train.npz", samples.take(rows[:400]))
    save_split(tmp_path / "val.npz", samples.take(rows[400:]))
    save_classes(tmp_path / "classes.json", classes)
    params = replace(
        load(TrainParameters),
        depth=20,
        width=2,
        epochs=3,
        batch_size=8,
        lr=0.05,
        ema_decay=0.9,
        progressive_sizes=[8],
        progressive_fraction=0.7,
    )
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
    return results(job)


def results(job: Job) -> tuple[bytes, ...]:
    return tuple((job.models / name).read_bytes() for name in ("model.safetensors", "history.csv"))


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in listed.split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_and_resume(job: Job, workers: int, times: int) -> None:
    """Kill the training at random moments; each time what is resumed ends with the same bytes."""
    started = time.monotonic()
    process = start(job, workers)
    wait_until(job.checkpoint.exists)
    first = time.monotonic() - started
    process.join(SECONDS)
    whole = time.monotonic() - started
    expected = results(job)
    rng = random.Random(0)
    for _ in range(times):
        process = start(job, workers)
        process.join(rng.uniform(first, whole))
        others = children(process.pid) if process.is_alive() else []
        process.kill()
        process.join()
        wait_until(lambda: not any(map(is_running, others)), 10)  # noqa: B023
        assert finish(job, workers) == expected
        assert not list(job.checkpoint.parent.glob(f".{job.checkpoint.name}*"))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_killed_training_resumes_to_the_same_bytes(job, workers):
    kill_and_resume(job, workers, times=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_killed_trainings_resume_to_the_same_bytes(job, workers):
    kill_and_resume(job, workers, times=20)


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


@pytest.mark.parametrize("damage", [pytest.param("cut off", marks=pytest.mark.slow), "one bit"])
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
        training_digest(replace(params, lr=0.123), "cpu", 2, pipeline),
    ]
    (tmp_path / "code.py").write_text("2")
    digests.append(training_digest(params, "cpu", 2, pipeline))
    (tmp_path / "data.npz").write_text("3")
    digests.append(training_digest(params, "cpu", 2, pipeline))
    assert len(set(digests)) == len(digests)
    assert training_digest(params, "cpu", 2, pipeline) == digests[-1]


def test_dead_worker_ends_the_training_in_one_line_and_leaves_nothing(workspace):
    """Through DVC, as users meet it; started again the training goes on to the same bytes."""
    expected = workspace.read("models/model.safetensors"), workspace.read("reports/history.csv")
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
    again = workspace.run("dvc", "repro", "--force", "--single-item", "train")
    assert "goes on after 1 epochs" in again
    assert expected == (
        workspace.read("models/model.safetensors"),
        workspace.read("reports/history.csv"),
    )


@pytest.mark.parametrize("shell", [pytest.param("/bin/bash", marks=pytest.mark.slow), "/bin/sh"])
def test_training_ends_with_the_dvc_that_started_it(workspace, shell):
    """One of these shells becomes the stage that DVC has it start, the other waits beside it."""
    workspace.set_params(epochs="1000", lr="0.05")
    with workspace.training(SHELL=shell) as dvc:
        stage, workers = training_processes(dvc.pid)
        dvc.kill()
        wait_until(lambda: not any(map(is_running, [stage, *workers])), 15)


def training_processes(dvc: int) -> tuple[int, list[int]]:
    """The process of the stage train below this DVC, and its workers."""
    *_, stage = (pid for pid in descendants(dvc) if "stages.train" in words(pid))
    return stage, [pid for pid in children(stage) if "spawn_main" in words(pid)]


def words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def descendants(pid: int) -> list[int]:
    return [pid, *(found for child in children(pid) for found in descendants(child))]
