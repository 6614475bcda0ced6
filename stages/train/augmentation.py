"""What random crop, flip, Mixup and CutMix do to a batch: drawn on the host, for whole batches.

Nothing here touches an image: `batches.py` turns these numbers into positions of pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with a shuffled copy of itself.

    partner: row of the image that each image is mixed with · ratio: share of the own label ·
    box: (top, bottom, left, right) that is pasted, or None for Mixup.
    """

    partner: NDArray[np.int64]
    ratio: float
    box: tuple[int, int, int, int] | None


def draw_crops(
    count: int, padding: int, flip: bool, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each image two rows of `source_positions`, (count,): for its lines and its columns.

    The standard augmentation of CIFAR (He et al., https://arxiv.org/abs/1512.03385, section 4.2),
    with reflection in place of zeros: each image is shifted by up to `padding` pixels, and with
    `flip` half of them are mirrored.
    """
    shifts = 2 * padding + 1
    top, left = rng.integers(0, shifts, (2, count))
    mirror = rng.random(count) < (0.5 if flip else 0.0)
    return top, left + shifts * mirror


def source_positions(side: int, padding: int) -> NDArray[np.int64]:
    """Where the pixels of a line come from, (2 · (2 · padding + 1), side): a row for each shift.

    The second half of the rows is mirrored. Positions outside of the image are folded back inside,
    the border pixel not repeated.
    """
    shift = np.arange(2 * padding + 1)[:, None] - padding
    position = np.abs(shift + np.arange(side))
    position = np.where(position >= side, 2 * (side - 1) - position, position)
    return np.concatenate([position, position[:, ::-1]])


def draw_mix(
    count: int, side: int, mixup: float, cutmix: float, rng: np.random.Generator
) -> Mix | None:
    """Decide whether and how a batch of `count` images of this side is mixed.

    `mixup` and `cutmix` are the shares of batches that get each (Zhang et al.,
    https://arxiv.org/abs/1710.09412, with ratios from Beta(0.2, 0.2); Yun et al.,
    https://arxiv.org/abs/1905.04899, with areas from Beta(1, 1)).
    """
    kind = rng.random()
    if kind >= mixup + cutmix:
        return None
    partner = rng.permutation(count)
    if kind < mixup:
        return Mix(partner, float(rng.beta(0.2, 0.2)), None)
    box_side = side * np.sqrt(1 - rng.beta(1, 1))
    centre = rng.integers(0, side, 2)
    low = np.clip(np.round(centre - box_side / 2), 0, side).astype(int)
    high = np.clip(np.round(centre + box_side / 2), 0, side).astype(int)
    ratio = 1 - float(np.prod(high - low)) / side**2
    return Mix(partner, ratio, (int(low[0]), int(high[0]), int(low[1]), int(high[1])))
