"""Trainings that are killed and resumed: real processes, real signals, the same bytes."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from cifar100.dataset.splits import load_split
from cifar100.network import onednn, storage
from cifar100.network.resnet import ResNet, statistics_of, weights_of
from cifar100.running import cpu
from cifar100.running.errors import PipelineError
from cifar100.running.outputs import FINISHED_CHECKPOINTS
from cifar100.running.params import load
from stages.train import checkpoint
from stages.train.batches import DeviceImages, EpochPlan
from stages.train.checkpoint import Checkpoint, training_digest
from stages.train.group import Alone, Group
from stages.train.loop import Job, train
from stages.train.params import TrainParameters
from stages.train.state import TrainingState
from stages.train.step import train_step
from tests.conftest import ROOT, save_for_training
from tests.launched import MACHINE, interrupt_in_epoch, job_in
from tests.processes import is_running, training_process, wait_until

STEPS = 50  # per epoch
SECONDS = 120  # that a training in these tests may take
ALONE = Alone()
CORES = len(cpu.available_cores())


@pytest.fixture
def job(tmp_path, samples, classes) -> Job:
    """50 steps per epoch, and a checkpoint every 20."""
    save_for_training(tmp_path, samples, classes)
    return job_in(
        tmp_path,
        epochs=3,
        batch_size=8,
        ema_decay=0.9,
        progressive_sizes=[8],
        progressive_fraction=0.7,
        save_every=0,
        look_every=20,
    )


def start(job: Job, target: Any = train) -> Any:
    """Start the training in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=(job, ALONE))
    process.start()
    return process


def finish(job: Job) -> tuple[bytes, ...]:
    """Run the training, or the rest of it; return model.safetensors and history.csv."""
    process = start(job)
    process.join(SECONDS)
    assert process.exitcode == 0
    assert not job.checkpoint.exists()
    assert not list(job.checkpoint.parent.glob(f".{job.checkpoint.name}*"))
    return tuple((job.models / name).read_bytes() for name in ("model.safetensors", "history.csv"))


def epochs_saved(job: Job) -> float:
    """How many epochs the saved state has behind it; -1 if there is none."""
    try:
        progress = json.loads(safe_open(job.checkpoint, "numpy").metadata()["progress"])
    except FileNotFoundError:
        return -1
    return progress["epoch"] + progress["step"] / STEPS


def kill_and_resume(
    job: Job, moments: list[tuple[float, float]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Kill the training at each of the moments; what is resumed ends with the same bytes.

    A moment is so many seconds after a state of so many epochs was saved, or after the start.
    """
    expected, resumed = finish(job), 0
    for epochs, seconds in moments:
        process = start(job)
        wait_until(
            lambda: epochs < 0 or epochs_saved(job) >= epochs or not process.is_alive(),  # noqa: B023
            SECONDS,
        )
        process.join(seconds)
        process.kill()
        process.join()
        unfinished = epochs_saved(job) >= 0  # the file of a finished training is moved
        capfd.readouterr()
        assert finish(job) == expected
        told = "train: resuming after epoch" in capfd.readouterr().out
        assert told == unfinished
        resumed += told
    assert resumed > len(moments) / 2


def test_killed_training_resumes_to_the_same_bytes(job, capfd):
    kill_and_resume(job, [(1.4, 0.1)], capfd)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("threads", "precision"), [(1, "float32"), (CORES, "float32"), (CORES, "bfloat16")]
)
def test_twenty_killed_trainings_resume_to_the_same_bytes(
    job, capfd, monkeypatch, threads, precision
):
    """At random moments from before the first state is saved to shortly before the end."""
    if precision == "bfloat16" and "bfloat16" not in onednn.instruction_set():
        pytest.skip("this CPU has no instructions for bfloat16")
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))  # for the processes that train
    rng = random.Random(0)
    moments = [(rng.uniform(-0.2, 2.7), rng.uniform(0, 0.2)) for _ in range(20)]
    machine = job.machine | {"threads": threads, "precision": precision}
    kill_and_resume(replace(job, machine=machine), moments, capfd)


def save_half(tensors: Any, path: Path, metadata: dict[str, str]) -> None:
    """Write a state, or half of the one after the first epoch, and end as in a power cut."""
    save_file(tensors, path, metadata)
    progress = json.loads(metadata["progress"])
    if progress["epoch"] == 1:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def train_until_the_power_is_cut(job: Job, group: Group) -> None:
    storage.save_file = save_half
    train(job, group)


@pytest.mark.slow
def test_state_that_was_being_written_at_a_power_cut_is_not_used(job, capfd):
    expected = finish(job)
    process = start(job, train_until_the_power_is_cut)
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGKILL
    assert len(list(job.checkpoint.parent.glob(f".{job.checkpoint.name}*"))) == 1
    assert epochs_saved(job) == 0.8
    capfd.readouterr()
    assert finish(job) == expected
    assert "train: resuming after epoch 0, step 40/50" in capfd.readouterr().out


def test_state_that_diverged_does_not_replace_the_last_good_one(job, monkeypatch):
    def poisoned_step(state: TrainingState, *arguments: Any) -> Any:
        result = train_step(state, *arguments)
        if (state.epoch, state.step) == (1, 39):  # which the loss of the next step hides
            state.weights[0].set_value(paddle.full_like(state.weights[0], float("inf")))
        return result

    monkeypatch.setattr("stages.train.loop.train_step", poisoned_step)
    with pytest.raises(PipelineError, match=r"is nan in epoch 2, step 40, at lr .*; try a smaller"):
        train(job, ALONE)
    assert epochs_saved(job) == 1.4


@pytest.mark.medium
def test_resumed_history_is_continuous_and_the_time_adds_up(job, capsys):
    interrupt_in_epoch(job, 2, ALONE)
    saved = json.loads(safe_open(job.checkpoint, "numpy").metadata()["progress"])
    assert (saved["epoch"], saved["step"]) == (1, 40)
    assert list(pd.read_csv(job.reports / "history.csv")["epoch"]) == [1]
    (job.reports / "history.csv").unlink()  # as DVC does before it runs the stage again
    train(job, ALONE)
    assert "train: resuming after epoch 1, step 40/50" in capsys.readouterr().out
    assert list(pd.read_csv(job.reports / "history.csv")["epoch"]) == [1, 2, 3]
    timing = json.loads((job.reports / "timing.json").read_text())
    assert timing["train_seconds"] >= round(saved["seconds"])
    first, second, third = timing["epoch_seconds"]
    assert first == pytest.approx(saved["epoch_seconds"][0], abs=0.1)
    assert first <= saved["seconds"] <= second <= third <= timing["train_seconds"] + 0.6


def test_every_tensor_of_the_state_is_restored(job):
    """Weights, statistics, averages of both, momentum and sums: none of them is the initial one."""
    states = []
    for resumed in (False, True):
        data = load_split(job.processed / "train.npz")
        state = TrainingState.initial(job.params, data, "cpu", "float32", ALONE)
        saved = Checkpoint(job.checkpoint, 0)
        if not resumed:
            plan = EpochPlan(DeviceImages(data), job.params, 0, ALONE)
            state.network.train()
            for step in range(2):
                state.add(*train_step(state, plan.batch(step), 0.05, ALONE))
            state.history, state.epoch_seconds = [{"epoch": 1}], [1.5]
            state.earlier = 1000.0  # seconds before this process
            saved.save(state, ALONE)
        else:
            before = tensors_of(state)
            saved.restore(state, ALONE)
        states.append(state)
    assert states[1].step == 2
    assert states[1].history == [{"epoch": 1}]
    assert states[1].epoch_seconds == [1.5]
    assert states[1].seconds >= 1000
    first, second = map(tensors_of, states)
    assert len(first) == len(second) > 150
    for expected, found, initial in zip(first, second, before, strict=False):
        np.testing.assert_array_equal(found, expected)
        assert not np.array_equal(found, initial)


def test_average_is_of_weights_and_of_batch_norm_statistics(job):
    """Statistics of other weights than the averaged ones would not suit them."""
    data = load_split(job.processed / "train.npz")
    state = TrainingState.initial(job.params, data, "cpu", "float32", ALONE)
    plan = EpochPlan(DeviceImages(data), job.params, 0, ALONE)
    state.network.train()

    def values(network: ResNet) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in (*weights_of(network), *statistics_of(network))]

    expected = values(state.averaged)
    for step in range(3):
        state.add(*train_step(state, plan.batch(step), 0.05, ALONE))
        present = values(state.network)
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, present, strict=True)]
    state.finish_epoch(0.05, ALONE)
    for found, wanted in zip(values(state.averaged), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_finished_training_is_resumed_until_its_model_is_recorded(tmp_path):
    saved, model = tmp_path / "a.safetensors", tmp_path / "model"
    model.write_bytes(b"the model")
    md5 = hashlib.md5(b"the model").hexdigest()
    for recorded, resumed in ((None, True), ("of another one", True), (md5, False)):
        saved.write_bytes(b"the training")
        checkpoint.mark_finished(saved, model)
        assert not saved.exists()
        checkpoint.reopen(saved, recorded)
        assert saved.exists() == resumed
        checkpoint.reopen(saved, recorded)  # nothing else is left
        assert saved.exists() == resumed


def tensors_of(state: TrainingState) -> list[np.ndarray]:
    velocities = state.optimizer.state_dict()
    tensors = [
        *state.weights,
        *statistics_of(state.network),
        *weights_of(state.averaged),
        *statistics_of(state.averaged),
        state.sums,
        *(velocities[f"{w.name}_velocity_0"] for w in state.weights if velocities),
    ]
    return [tensor.numpy() for tensor in tensors]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut off", "one bit"])
def test_damaged_checkpoint_is_not_used(job, capsys, damage):
    train(job, ALONE)
    expected = (job.models / "model.safetensors").read_bytes()
    interrupt_in_epoch(job, 2, ALONE)
    content = bytearray(job.checkpoint.read_bytes())
    if damage == "one bit":
        content[-5] ^= 1
    job.checkpoint.write_bytes(content[:1000] if damage == "cut off" else content)
    train(job, ALONE)
    told = capsys.readouterr().out
    assert "resuming" not in told
    assert f"{job.checkpoint} is damaged and not used" in told
    assert (job.models / "model.safetensors").read_bytes() == expected


@pytest.fixture
def pipeline(tmp_path) -> Path:
    """A dvc.yaml whose stage train depends on a file and a folder, which are there."""
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "room/deeper").mkdir(parents=True)
    (tmp_path / "room/deeper/more.py").write_text("1")
    path = tmp_path / "dvc.yaml"
    path.write_text("stages: {train: {deps: [code.py, room]}}")
    return path


def test_digest_names_params_machine_processes_and_libraries(pipeline, monkeypatch):
    params = load(TrainParameters)
    digests = [
        training_digest(params, MACHINE, 1, pipeline),
        training_digest(params, MACHINE, 2, pipeline),
        training_digest(params.replace(lr=0.123), MACHINE, 1, pipeline),
        *(training_digest(params, MACHINE | {key: "x"}, 1, pipeline) for key in MACHINE),
    ]
    assert training_digest(params, MACHINE, 1, pipeline) == digests[0]
    monkeypatch.setattr(checkpoint, "version", lambda library: "0.0")
    digests.append(training_digest(params, MACHINE, 1, pipeline))
    monkeypatch.setattr(paddle, "__version__", "0.0")
    digests.append(training_digest(params, MACHINE, 1, pipeline))
    assert len(set(digests)) == len(digests) == 3 + len(MACHINE) + 2


def test_digest_names_the_content_of_files_and_folders(pipeline):
    room = pipeline.parent / "room"
    digests = []

    def note() -> None:
        digests.append(training_digest(load(TrainParameters), MACHINE, 1, pipeline))

    note()
    (pipeline.parent / "code.py").write_text("2")
    note()
    (room / "deeper/more.py").write_text("2")
    note()
    (room / "deeper/more.py").rename(room / "more.py")
    note()
    (room / "another.py").write_text("")
    note()
    assert len(set(digests)) == len(digests)
    (room / "__pycache__").mkdir()
    (room / "__pycache__/more.pyc").write_text("compiled")
    note()
    assert digests[-1] == digests[-2]


def test_digest_of_a_dep_that_is_not_there_is_refused(pipeline):
    """A state would be resumed with other data or code than it was made with."""
    (pipeline.parent / "code.py").unlink()
    with pytest.raises(PipelineError, match=r"^\S*code.py: not found, and dvc.yaml has it"):
        training_digest(load(TrainParameters), MACHINE, 1, pipeline)


@pytest.mark.slow
def test_stage_that_was_killed_resumes_to_the_same_bytes(workspace):
    """Through DVC, as users do: it says that the stage failed, and the same command resumes it."""
    names = ("models/model.safetensors", "reports/history.csv")
    expected = [workspace.read(name) for name in names]
    with workspace.training() as dvc:
        stage = training_process(dvc.pid)
        os.kill(stage, signal.SIGKILL)
        rest = dvc.stdout.read()
    assert "failed to reproduce 'train'" in rest
    assert not is_running(stage)
    again = workspace.run("dvc", "repro", "--force", "--single-item", "train")
    assert "train: resuming after epoch 1, step 0/" in again
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
    assert "train: resuming after epoch 2, step 0/" in output
    assert not list((workspace.path / ".checkpoints").rglob("*.safetensors"))
    model = json.loads((workspace.path / "models/model.json").read_text())
    assert model["training"]["params"]["lr"] == 0.05


@pytest.mark.parametrize("shell", [pytest.param("/bin/bash", marks=pytest.mark.slow), "/bin/sh"])
def test_training_ends_with_the_dvc_that_started_it(workspace, shell):
    """One of these shells becomes the stage that DVC has it start, the other waits beside it."""
    workspace.set_params(epochs="1000", lr="0.05")
    with workspace.training(SHELL=shell) as dvc:
        stage = training_process(dvc.pid)
        dvc.kill()
        wait_until(lambda: not is_running(stage), 15)


@pytest.mark.medium
@pytest.mark.parametrize("by_dvc", [False, True])
def test_evaluate_keeps_the_checkpoint_until_dvc_has_recorded_the_training(tmp_path, by_dvc):
    """DVC starts *evaluate* after that; a user who starts it by hand may still need the file."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    finished = tmp_path / FINISHED_CHECKPOINTS / "a.safetensors"
    finished.parent.mkdir(parents=True)
    finished.touch()
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    own = {"PYTHONPATH": str(ROOT)} | ({"DVC_ROOT": str(tmp_path)} if by_dvc else {})
    done = subprocess.run(
        [sys.executable, "-m", "stages.evaluate"],
        cwd=tmp_path,
        env=environment | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "test.npz: not found" in done.stderr
    assert finished.exists() != by_dvc
