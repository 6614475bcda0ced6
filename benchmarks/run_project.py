"""Training speed of this project: `python -m benchmarks.run_project --network resnet18-w32`."""

import time
from pathlib import Path

import numpy as np

from benchmarks.runner import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    positive,
    random_images,
    report,
    runner_options,
)
from cifar100.dataset.samples import Samples
from cifar100.running import cpu
from cifar100.running.guard import run_command
from cifar100.running.params import load
from stages.train.params import TrainParameters

DEVICE = "cpu"
IMAGES = 48_000  # as many as the training split has, so that the memory is that of a real training


def measure(params: TrainParameters, precision: str, warmup: int, steps: int) -> float:
    """Images per second of so many steps after the warm-up: batches, augmentation, update."""
    from stages.train.batches import DeviceImages, EpochPlan
    from stages.train.group import Alone
    from stages.train.state import TrainingState
    from stages.train.step import train_step

    images, labels = random_images(IMAGES)
    names = np.array([b""] * IMAGES)
    data = Samples(images, labels, np.zeros(IMAGES, np.int64), names)
    state = TrainingState.initial(params, data, DEVICE, precision, Alone())
    plan = EpochPlan(DeviceImages(data), params, 0, Alone())
    state.network.train()
    for step in range(warmup + steps):
        if step == warmup:
            float(state.sums[0])  # waits for the device
            started = time.perf_counter()
        state.add(*train_step(state, plan.batch(step % state.steps), params.lr, Alone()))
    state.running_loss(params.lr)
    return steps * params.batch_size / (time.perf_counter() - started)


def benchmark_params(depth: int, width: int) -> TrainParameters:
    """Those of params.yaml, but the benchmark's network, batch and optimizer, at 32 pixels."""
    return load(TrainParameters).replace(
        depth=depth,
        width=width,
        stem="cifar",
        batch_size=BATCH_SIZE,
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
        progressive_sizes=[],
    )


def peak_memory() -> float:
    """The most memory that this process had resident so far, in MiB; 0 where it is not known."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def auto_or_positive(text: str) -> int | str:
    """`auto`, or a count of at least one; `ValueError` for anything else."""
    return text if text == "auto" else positive(text)


def main() -> None:
    """Train with the params of params.yaml, but the benchmark's network, batch and optimizer."""
    parser = runner_options(__doc__)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--threads", type=auto_or_positive, default="auto", help="auto or a number")
    options = parser.parse_args()
    threads = cpu.choose_threads(options.threads, "argument --threads")
    cpu.prepare(threads)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.network.device import choose_precision, make_reproducible

    params = benchmark_params(*options.network)
    precision = choose_precision(options.precision, DEVICE)
    make_reproducible()
    speed = measure(params, precision, options.warmup, options.steps)
    report(
        images_per_second=speed,
        peak_memory_mib=peak_memory(),
        precision=precision,
        threads=threads,
        paddle=paddle.__version__,
    )


if __name__ == "__main__":
    run_command("run-project", main)
