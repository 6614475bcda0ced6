"""Trains the network of the params, with validation after each epoch, and writes the results."""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import paddle
import pandas as pd

from stages.dataset.splits import load_classes, load_split
from stages.hardware.device import make_reproducible
from stages.network.storage import save_description, save_weights
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from stages.running.outputs import write_text
from stages.training.checkpoint import Checkpoint
from stages.training.trainer import Trainer, initial_network
from stages.training.validation import calibrated_temperature, validate
from stages.training.workers import worker_rank


@dataclass(frozen=True)
class Job:
    """All that a training process needs to know: the params, cpu or gpu, and where things lie.

    processed has the splits and class names; models and reports take the results. The state of the
    training is saved at `checkpoint` after each epoch, and inside it every `save_every` seconds.
    """

    params: TrainParameters
    device: str
    processed: Path
    models: Path
    reports: Path
    checkpoint: Path
    save_every: float = 120.0


def train(job: Job) -> None:
    """Train and write model.safetensors, model.json, history.csv and timing.json; in every worker.

    Raises `PipelineError` if the data do not fit the params or the loss is not finite.
    """
    params, first = job.params, worker_rank() == 0
    paddle.set_device(job.device)
    make_reproducible()
    data, val = (load_split(job.processed / f"{split}.npz") for split in ("train", "val"))
    classes = asdict(load_classes(job.processed / "classes.json"))
    if params.batch_size > len(data):
        raise PipelineError(
            f"params.yaml: batch_size: {params.batch_size} exceeds the {len(data)} training images"
        )
    network, mean, std = initial_network(params, data.images)
    trainer = Trainer(params, network, mean, std, len(data))
    checkpoint = Checkpoint(job.checkpoint, trainer, job.save_every)
    checkpoint.restore()
    if first and (trainer.epoch or trainer.step):
        done = f"{trainer.epoch} epochs and {trainer.step} of {trainer.steps} steps"
        print(f"train: goes on after {done}, from {job.checkpoint}", flush=True)
    while trainer.epoch < params.epochs:
        epoch_started, steps = time.perf_counter(), trainer.steps - trainer.step
        row = trainer.run_epoch(data.images, data.fine, checkpoint.save_if_due)
        speed = steps * params.batch_size / (time.perf_counter() - epoch_started)
        row |= validate(trainer.result(), val.images, val.fine, mean, std, int(row["image_size"]))
        if not math.isfinite(row["val_loss"]):
            raise PipelineError(
                f"the validation loss is {row['val_loss']} in epoch {trainer.epoch}, "
                f"step {trainer.steps}, at lr {row['lr']:.3g}; "
                "try a smaller lr or a longer warmup"
            )
        checkpoint.history.append(row)
        checkpoint.save()
        if first:
            print(epoch_line(row, params.epochs, speed, checkpoint.seconds()), flush=True)
    if first:
        seconds = checkpoint.seconds()
        images = params.epochs * trainer.steps * params.batch_size
        temperature = calibrated_temperature(trainer.result(), val.images, val.fine, mean, std)
        save_weights(job.models / "model.safetensors", trainer.result())
        training = {
            "images": len(data),
            "validation_images": len(val),
            "params": params.model_dump(),
        }
        save_description(
            job.models / "model.json", network.config, mean, std, temperature, classes, training
        )
        history = pd.DataFrame(checkpoint.history).to_csv(index=False, lineterminator="\n")
        write_text(job.reports / "history.csv", history)
        timing = {"train_seconds": round(seconds), "images_per_second": round(images / seconds, 1)}
        write_text(job.reports / "timing.json", json.dumps(timing, indent=1) + "\n")
        checkpoint.lay_aside()


def epoch_line(row: dict[str, float], epochs: int, speed: float, seconds: float) -> str:
    """One line with aligned columns; `speed` in images/s, `seconds` since the training began."""
    left = seconds / row["epoch"] * (epochs - row["epoch"])
    return (
        f"epoch {row['epoch']:>3}/{epochs}  {row['image_size']} px  lr {row['lr']:.4f}  "
        f"train loss {row['train_loss']:.3f} top-1 {row['train_top1']:6.2%}  "
        f"val loss {row['val_loss']:.3f} top-1 {row['val_top1']:6.2%}  "
        f"{speed:6,.0f} images/s  {seconds / 60:5.1f} min, about {left / 60:.1f} left"
    )
