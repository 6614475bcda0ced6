"""Learning-rate range test: `python -m tools.lr_range`.

Smith, "Cyclical Learning Rates for Training Neural Networks", https://arxiv.org/abs/1506.01186,
section 3.3: the rate grows from step to step until the loss does; the peak of a training lies
somewhat below the rate at which the loss was lowest. All steps have images of the size that the
first epoch of a training has: with a warm-up, the peak falls into the epochs with small images.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cifar100.dataset.samples import Samples
from cifar100.dataset.splits import load_split
from cifar100.results.tables import LR_RANGE, write_table
from cifar100.running import cpu
from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.params import load
from stages.render.style import save_figure
from stages.train.params import TrainParameters
from stages.train.schedule import image_size
from tools.lr_range_figure import lr_range_figure

if TYPE_CHECKING:
    from stages.train.batches import Batch, DeviceImages

TRAIN = Path("data/processed/train.npz")
OUTPUT = Path("lr_range")
MIN_LR, MAX_LR = 1e-3, 10.0
SMOOTHING = 0.95  # of the loss, per step
DIVERGED = 1.3  # times the lowest smoothed loss: where the test ends
SHARE = 1 / 3  # of the rate at which the loss is lowest


def rates(steps: int) -> NDArray[np.floating[Any]]:
    """The learning rate of each step, growing by the same factor each time."""
    return np.geomspace(MIN_LR, MAX_LR, steps)


def measure(
    params: TrainParameters, data: Samples, steps: int, device: str, precision: str
) -> pd.DataFrame:
    """Train with growing rates until the loss has grown too; columns lr, loss, smoothed_loss.

    Mixing and the averaging of weights are left out. Raises `PipelineError` if a batch is larger
    than the data.
    """
    from stages.train.batches import DeviceImages
    from stages.train.group import Alone
    from stages.train.state import TrainingState
    from stages.train.step import train_step

    params = params.replace(mixup=0.0, cutmix=0.0, ema_decay=0.0, cuda_graph=False)
    state = TrainingState.initial(params, data, device, precision, Alone())
    state.network.train()
    batches = endless_batches(DeviceImages(data), params)
    losses: list[float] = []
    with tqdm(rates(steps), desc="lr-range", unit=" steps", disable=not sys.stderr.isatty()) as bar:
        for lr in bar:
            loss, _ = train_step(state, next(batches), float(lr), Alone())
            losses.append(float(loss))
            bar.set_postfix_str(f"lr {lr:.3g}, loss {losses[-1]:.3f}")
            if diverged(losses):
                break
    finite = [loss for loss in losses if math.isfinite(loss)]
    table = pd.DataFrame({"lr": rates(steps)[: len(finite)], "loss": finite})
    table["smoothed_loss"] = smoothed(finite)
    return table


def endless_batches(images: "DeviceImages", params: TrainParameters) -> "Iterator[Batch]":
    """The batches of a training, epoch after epoch."""
    from stages.train.batches import EpochPlan
    from stages.train.group import Alone

    for epoch in count():
        plan = EpochPlan(images, params, epoch, Alone())
        yield from map(plan.batch, range(len(images) // params.batch_size))


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
    parser = argparse.ArgumentParser(prog="python -m tools.lr_range", description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=300, help="from the lowest rate to the highest"
    )
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("argument --steps: expected a whole number of at least 2")
    params = load(TrainParameters)
    threads = cpu.choose_threads(params.threads)
    cpu.prepare(threads)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from cifar100.network.device import choose_device, choose_precision, make_reproducible

    device = choose_device(params.device)
    precision = choose_precision(params.precision, device)
    make_reproducible(precision)
    table = measure(params, load_split(TRAIN), options.steps, device, precision)
    write_table(LR_RANGE, table, OUTPUT)
    lowest, peak = suggest(table)
    save_figure(lr_range_figure(table, peak), OUTPUT / "loss.png", dpi=110)
    side = image_size(params, 0)
    print(f"lr-range: {OUTPUT / 'loss.png'}: the loss is lowest at lr {lowest:g}, at {side} pixels")
    print(f"lr-range: try a third of that as the peak: dvc exp run -S lr={peak:g}")


if __name__ == "__main__":
    run_command("lr-range", main)
