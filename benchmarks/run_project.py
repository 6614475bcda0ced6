"""Training speed of this project: `python -m benchmarks.run_project --network resnet18-w32`."""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    random_images,
    report,
    runner_options,
)
from stages.hardware import cpu
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters

DEVICE = "cpu"
IMAGES = 48_000  # as many as the training split has, so that the memory is that of a real training


@dataclass(frozen=True)
class Job:
    """What a training process needs to know; the first one writes its result as a file."""

    params: TrainParameters
    warmup: int
    steps: int
    result: Path


def measure(job: Job) -> None:
    """Time an epoch of `job.steps` steps in the project's own loop; runs in every worker.

    What an epoch does at its end, such as the exchange of batch-norm statistics, is counted, and
    weighs more here than in the hundreds of steps of a real epoch.
    """
    import paddle

    from stages.hardware.device import make_reproducible
    from stages.training.trainer import Trainer, initial_network
    from stages.training.workers import total, worker_count, worker_rank

    params = job.params
    paddle.set_device(DEVICE)
    make_reproducible()
    images, labels = random_images(IMAGES)
    network, mean, std = initial_network(params, images)
    warm, timed = job.warmup * BATCH_SIZE, job.steps * BATCH_SIZE
    trainer = Trainer(params, network, mean, std, timed)
    trainer.run_epoch(images[:warm], labels[:warm])
    started = time.perf_counter()  # all workers are here: an epoch ends with sums over them
    trainer.run_epoch(images[:timed], labels[:timed])
    seconds = time.perf_counter() - started
    (memory,) = total([peak_memory()])
    if worker_rank() == 0:
        result = {"images_per_second": timed / seconds, "peak_memory_mib": memory}
        result |= {"workers": worker_count(), "paddle": paddle.__version__}
        job.result.write_text(json.dumps(result), encoding="utf-8")


def peak_memory() -> float:
    """The most memory that this process had resident so far, in MiB; 0 where it is not known."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Train with the params of params.yaml, but the benchmark's network, batch and optimizer."""
    options = runner_options(__doc__).parse_args()
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from stages.training.workers import count_workers, run_workers

    depth, width = options.network
    changes = {
        "depth": depth,
        "width": width,
        "stem": "cifar",
        "epochs": 2,  # the first is the warm-up
        "batch_size": BATCH_SIZE,
        "lr": LEARNING_RATE,
        "momentum": MOMENTUM,
        "nesterov": True,
        "weight_decay": WEIGHT_DECAY,
        "progressive_sizes": [],
    }
    params = load(TrainParameters).model_copy(update=changes)
    workers = count_workers(params.threads, DEVICE, BATCH_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(params, options.warmup, options.steps, Path(folder) / "result.json")
        run_workers(measure, job, workers, DEVICE)
        result = json.loads(job.result.read_text(encoding="utf-8"))
    if workers > 1:
        result["peak_memory_mib"] += peak_memory()
    report(**result)


if __name__ == "__main__":
    main()
