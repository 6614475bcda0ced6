"""Trains the network of the params, with validation after each epoch, and writes the results."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cifar100.dataset.splits import load_classes, load_split
from cifar100.network.storage import save_description, save_weights
from cifar100.running.outputs import write_csv, write_text
from stages.train.batches import DeviceImages, EpochPlan
from stages.train.checkpoint import Checkpoint, mark_finished
from stages.train.group import Group
from stages.train.params import TrainParameters
from stages.train.schedule import learning_rate, share_done
from stages.train.state import Row, TrainingState, check_finite
from stages.train.step import train_step
from stages.train.validation import calibrated_temperature, validate

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Job:
    """What to train and where things lie.

    machine: device, precision, threads and what else the result depends on · processed has the
    splits and class names; models and reports take the results · checkpoint: where the state is
    saved after each epoch, and inside it when `save_every` seconds have passed at a look at the
    loss, which is every `look_every` steps: each look waits for the device.
    """

    params: TrainParameters
    machine: dict[str, str | int]
    processed: Path
    models: Path
    reports: Path
    checkpoint: Path
    save_every: float = 120.0
    look_every: int = 100


def train(job: Job, group: Group) -> None:
    """Train and write model.safetensors, model.json, history.csv and timing.json.

    Every process of the group calls it; the one with rank 0 writes. history.csv gets its row after
    each epoch. Raises `PipelineError` if the data do not fit the params or training diverges.
    """
    params = job.params
    device, precision = str(job.machine["device"]), str(job.machine["precision"])
    data = load_split(job.processed / "train.npz")
    state = TrainingState.initial(params, data, device, precision, group)
    images, val = DeviceImages(data), DeviceImages(load_split(job.processed / "val.npz"))
    del data  # its images are on the device now
    checkpoint = Checkpoint(job.checkpoint, job.save_every)
    checkpoint.restore(state, group)
    if group.rank == 0 and state.progress > 0:
        done = f"epoch {state.epoch}, step {state.step}/{state.steps}"
        print(f"train: resuming after {done}", flush=True)

    while state.epoch < params.epochs:
        started, first_step = time.perf_counter(), state.step
        plan = EpochPlan(images, params, state.epoch, group)
        state.network.train()
        bar = progress_bar(state, group)
        for step in bar:
            lr = learning_rate(params, state.progress)
            loss, correct = train_step(state, plan.batch(step), lr, group)
            state.add(loss, correct)
            if state.step % job.look_every == 0 and state.step < state.steps:
                bar.set_postfix_str(f"loss {state.running_loss(lr):.3f}")
                checkpoint.save_if_due(state, group)
        state.running_loss(lr)  # waits for the device, and ends a training that diverged
        speed = (state.steps - first_step) * params.batch_size / (time.perf_counter() - started)

        row = state.finish_epoch(lr, group)
        row |= validate(state.result, val, int(row["image_size"]), group)
        check_finite("validation", row["val_loss"], state.epoch, state.steps, lr)
        state.history.append(row)
        state.epoch_seconds.append(state.seconds)
        checkpoint.save(state, group)
        if group.rank == 0:
            write_history(job, state)
            print(epoch_line(params, row, speed, state.seconds), flush=True)

    if group.rank == 0:
        write_results(job, state, val, len(images), group.size)
        mark_finished(job.checkpoint, job.models / WEIGHTS)


def progress_bar(state: TrainingState, group: Group) -> "tqdm[int]":
    """The steps that are left of the epoch, with a bar where somebody may watch it."""
    return tqdm(
        range(state.step, state.steps),
        desc=f"epoch {state.epoch + 1}/{state.params.epochs}",
        initial=state.step,
        total=state.steps,
        unit=" images",
        unit_scale=state.params.batch_size,
        disable=group.rank > 0 or not sys.stderr.isatty(),
        leave=False,
    )


def epoch_line(params: TrainParameters, row: Row, speed: float, seconds: float) -> str:
    """One line with aligned columns; `speed` in images/s, `seconds` since the training began."""
    done = share_done(params, int(row["epoch"]))
    left = seconds / done * (1 - done)
    return (
        f"epoch {row['epoch']:>3}/{params.epochs}  {row['image_size']} px  lr {row['lr']:.4f}  "
        f"train loss {row['train_loss']:.3f} top-1 {row['train_top1']:6.2%}  "
        f"val loss {row['val_loss']:.3f} top-1 {row['val_top1']:6.2%}  "
        f"{speed:6,.0f} images/s  {seconds / 60:5.1f} min, about {left / 60:.1f} left"
    )


def write_history(job: Job, state: TrainingState) -> None:
    """Write history.csv, with a row for each epoch so far."""
    write_csv(job.reports / "history.csv", pd.DataFrame(state.history))


def write_results(
    job: Job, state: TrainingState, val: DeviceImages, images: int, processes: int
) -> None:
    """Write the network, its description, the history and the times of a training that is done.

    `images` are those for training; `processes` is their number, which on GPUs is that of the GPUs.
    """
    network, params, seconds = state.result, job.params, state.seconds
    network.set_precision("float32")  # in which it is scored: its temperature has to suit that
    temperature = calibrated_temperature(network, val)
    classes = asdict(load_classes(job.processed / "classes.json"))
    machine = job.machine | {"processes": processes}
    training: dict[str, Any] = {"images": images, "validation_images": len(val), **machine}
    save_weights(job.models / WEIGHTS, network)
    save_description(
        job.models / "model.json",
        network,
        temperature,
        classes,
        training | {"params": params.model_dump()},
    )
    write_history(job, state)
    shown = params.epochs * state.steps * params.batch_size
    timing = {
        "train_seconds": round(seconds),
        "images_per_second": round(shown / seconds, 1),
        "epoch_seconds": [round(second, 1) for second in state.epoch_seconds],
        **machine,
    }
    write_text(job.reports / "timing.json", json.dumps(timing, indent=1) + "\n")
