"""Logits of a stored model for many images, on the GPU or on all CPU cores."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray

from stages.hardware import cpu
from stages.network.storage import TrainedModel, load_model

MOST_WORKERS = 8  # each is a process of its own with Paddle and the network in memory
FEWEST_BATCHES = 4  # for a worker: to start one takes as long as these


def predict_logits(
    weights: Path,
    description: Path,
    images: NDArray[np.uint8],
    batch_size: int,
    flip: bool,
    device: str,
) -> NDArray[np.float32]:
    """Logits (N, classes) of uint8 images (N, 3, H, W).

    With `flip` they are the mean over each image and its mirror image. On a CPU each core takes a
    contiguous part of the batches; the result does not depend on the number of cores. Raises
    `PipelineError` if the model cannot be loaded.
    """
    load_model(weights, description)  # here, so that a bad file gives its one line
    starts = range(0, len(images), batch_size)
    batches = [images[start : start + batch_size] for start in starts]
    run = partial(_logits_of_batches, weights, description, flip=flip, device=device)
    useful = min(len(cpu.available_cores()), len(batches) // FEWEST_BATCHES, MOST_WORKERS)
    workers = 1 if device == "gpu" else useful
    if workers <= 1:
        return np.concatenate(run(batches))
    parts = [list(part) for part in np.array_split(np.arange(len(batches)), workers)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cpu.keep_memory) as pool:
        results = pool.map(run, [[batches[i] for i in part] for part in parts])
        return np.concatenate([logits for result in results for logits in result])


def _logits_of_batches(
    weights: Path, description: Path, batches: list[NDArray[np.uint8]], flip: bool, device: str
) -> list[NDArray[np.float32]]:
    paddle.set_device(device)
    model = load_model(weights, description)
    return [logits_of_batch(model, batch, flip) for batch in batches]


def logits_of_batch(
    model: TrainedModel, images: NDArray[np.uint8], flip: bool
) -> NDArray[np.float32]:
    """Logits (N, classes) of one batch of uint8 images (N, 3, H, W)."""
    with paddle.no_grad():
        inputs = model.normalise(images)
        logits = model.network(inputs)
        if flip:
            logits = (logits + model.network(inputs.flip([3]))) / 2
    return logits.numpy()
