"""The recipe of github.com/weiaicunzai/pytorch-cifar100, its 200 epochs scaled to a given time.

SGD with Nesterov momentum from 0.1, one epoch of linear warm-up, a fifth of the rate after 60, 120
and 160 of 200 epochs; random crop with zeros, mirror image and rotation.
"""

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 128
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4  # Nesterov
MILESTONES, FACTOR = (60 / 200, 120 / 200, 160 / 200), 0.2
PADDING, DEGREES = 4, 15
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # of the training images, 0 to 1


def learning_rate(step: int, warmup: int, progress: float) -> float:
    """The learning rate of `step`: it rises to 0.1 in the first `warmup` steps, then falls.

    `progress` is the share of the training that is over, from 0 to 1.
    """
    if step < warmup:
        return LEARNING_RATE * (step + 1) / warmup
    return LEARNING_RATE * FACTOR ** sum(progress >= share for share in MILESTONES)


def augment(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Crop, mirror and rotate each of (N, 3, S, S) images at random.

    `RandomCrop(32, padding=4)`, `RandomHorizontalFlip()` and `RandomRotation(15)` of torchvision.
    """
    count = len(images)
    top, left = rng.integers(-PADDING, PADDING + 1, (2, count))
    return move(images, top, left, rng.random(count) < 0.5, rng.uniform(-DEGREES, DEGREES, count))


def move(
    images: NDArray[np.uint8],
    top: NDArray[np.int64],
    left: NDArray[np.int64],
    mirror: NDArray[np.bool_],
    degrees: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Crop (N, 3, S, S) images at `top` and `left`, mirror, rotate counter-clockwise; each (N,).

    A rotated pixel takes the value of the nearest one, and what comes from outside is black.
    """
    count, channels, size, _ = images.shape
    top, left, mirror = top[:, None, None], left[:, None, None], mirror[:, None, None]
    # From each pixel of the result back to its source: through rotation, mirror and crop.
    centre, angle = (size - 1) / 2, np.deg2rad(degrees)[:, None, None]
    y, x = np.mgrid[:size, :size] - centre
    rows = np.rint(np.cos(angle) * y + np.sin(angle) * x + centre).astype(int)
    columns = np.rint(np.cos(angle) * x - np.sin(angle) * y + centre).astype(int)
    inside = in_range(rows, size) & in_range(columns, size)
    rows, columns = rows + top, np.where(mirror, size - 1 - columns, columns) + left
    inside &= in_range(rows, size) & in_range(columns, size)
    rows, columns = rows.clip(0, size - 1), columns.clip(0, size - 1)
    n, c = np.arange(count)[:, None, None, None], np.arange(channels)[:, None, None]
    return images[n, c, rows[:, None], columns[:, None]] * inside[:, None]


def in_range(index: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Where 0 ≤ index < size."""
    return (index >= 0) & (index < size)
