"""Learning-rate range test: `python -m stages.training.lr_range`.

Smith, "Cyclical Learning Rates for Training Neural Networks", https://arxiv.org/abs/1506.01186,
section 3.3: the rate grows from step to step until the loss does; the peak of a training lies
somewhat below the rate at which the loss was lowest.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from stages.dataset.samples import Samples
from stages.dataset.splits import load_split
from stages.evaluation.tables import LR_RANGE, read_table, write_table
from stages.figures.lr_range import lr_range_figure
from stages.figures.style import save_figure
from stages.hardware import cpu
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.running.entry import run_stage
from stages.running.errors import PipelineError
from stages.training.batches import Augmentation, Batch, epoch_batches
from stages.training.schedule import image_size

TRAIN = Path("data/processed/train.npz")
OUTPUT = Path("lr_range")
LOWEST, HIGHEST = 1e-3, 10.0
SMOOTHING = 0.95  # of the loss, per step
DIVERGED = 1.3  # times the lowest smoothed loss: where the test ends
SHARE = 1 / 3  # of the rate at which the loss is lowest


@dataclass(frozen=True)
class Job:
    """What a process of the test needs to know; the first one writes the losses to `table`."""

    params: TrainParameters
    device: str
    train: Path
    steps: int
    table: Path


def rates(steps: int) -> NDArray[np.floating[Any]]:
    """The learning rate of each step, growing by the same factor each time."""
    return np.geomspace(LOWEST, HIGHEST, steps)


def measure(job: Job) -> None:
    """Train with growing rates until the loss has grown too; runs in every worker.

    Writes a CSV with the columns lr, loss and smoothed_loss. Mixing and the averaging of weights
    are left out. Raises `PipelineError` if a batch is larger than the data.
    """
    import paddle

    from stages.hardware.device import make_reproducible
    from stages.training.trainer import Trainer, initial_network
    from stages.training.workers import total, worker_count, worker_rank

    params = job.params
    paddle.set_device(job.device)
    make_reproducible()
    data = load_split(job.train)
    if params.batch_size > len(data):
        raise PipelineError(
            f"params.yaml: batch_size: {params.batch_size} exceeds the {len(data)} training images"
        )
    network, mean, std = initial_network(params, data.images)
    trainer = Trainer(params, network, mean, std, len(data))
    network.train()
    size = image_size(0, params.epochs, params.progressive_sizes, params.progressive_fraction)
    losses: list[float] = []
    visible = worker_rank() == 0 and sys.stderr.isatty()
    batches = endless_batches(data, params, worker_rank(), worker_count())
    with tqdm(rates(job.steps), desc="lr-range", unit=" steps", disable=not visible) as bar:
        for rate in bar:
            loss, _ = trainer.run_step(next(batches), size, float(rate))
            losses.append(total([float(loss)])[0] / worker_count())
            bar.set_postfix_str(f"lr {rate:.3g}, loss {losses[-1]:.3f}")
            if diverged(losses):
                break
    if worker_rank() == 0:
        finite = [loss for loss in losses if math.isfinite(loss)]
        table = pd.DataFrame({"lr": rates(job.steps)[: len(finite)], "loss": finite})
        table["smoothed_loss"] = smoothed(finite)
        write_table(LR_RANGE, table, job.table.parent)


def endless_batches(
    data: Samples, params: TrainParameters, worker: int, workers: int
) -> Iterator[Batch]:
    """This worker's batches, epoch after epoch, cropped and flipped as in a training."""
    augmentation = Augmentation(params.crop_padding, params.flip, mixup=0.0, cutmix=0.0)
    for epoch in count():
        yield from epoch_batches(
            data.images,
            data.fine,
            params.batch_size,
            augmentation,
            params.seed,
            epoch,
            worker,
            workers,
        )


def smoothed(losses: list[float]) -> NDArray[np.float64]:
    """Exponential moving average, free of the bias towards its start."""
    return pd.Series(losses, dtype=float).ewm(alpha=1 - SMOOTHING).mean().to_numpy()


def diverged(losses: list[float]) -> bool:
    """Whether the last loss is not finite, or the smoothed loss is far above its lowest value."""
    if not math.isfinite(losses[-1]):
        return True
    curve = smoothed(losses)
    return bool(curve[-1] > DIVERGED * curve.min())


def suggest(table: pd.DataFrame) -> tuple[float, float]:
    """The rate with the lowest smoothed loss, and the peak `lr` to try, two digits each.

    Raises `PipelineError` if the loss did not fall, so that the test says nothing.
    """
    if table.empty or table["smoothed_loss"].idxmin() == 0:
        raise PipelineError("the loss did not fall at any rate; try more --steps")
    lowest = float(table["lr"][table["smoothed_loss"].idxmin()])
    return float(f"{lowest:.2g}"), float(f"{SHARE * lowest:.2g}")


def main() -> None:
    """Write lr_range/loss.csv and loss.png, and print the rate to try."""
    parser = argparse.ArgumentParser(prog="python -m stages.training.lr_range", description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=300, help="from the lowest rate to the highest"
    )
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("argument --steps: expected a whole number of at least 2")
    params = load(TrainParameters)
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from stages.hardware.device import choose_device
    from stages.training.workers import count_workers, run_workers

    device = choose_device(params.device)
    workers = count_workers(params.workers, device, params.batch_size)
    job = Job(params, device, TRAIN, options.steps, OUTPUT / LR_RANGE.name)
    run_workers(measure, job, workers, device)
    table = read_table(LR_RANGE, OUTPUT)
    lowest, peak = suggest(table)
    save_figure(lr_range_figure(table, peak), OUTPUT / "loss.png", dpi=110)
    print(f"lr-range: {OUTPUT / 'loss.png'}: the loss is lowest at lr {lowest:g}")
    print(f"lr-range: try a third of that as the peak: dvc exp run -S lr={peak:g}")


if __name__ == "__main__":
    run_stage("lr-range", main)
