"""Random crop, flip, Mixup and CutMix for whole batches of uint8 images; no loop over images.

All random numbers of a step are drawn for the whole batch, whatever the number of workers, so that
an image gets the same augmentation in a training with one worker and with several.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed with a shuffled copy of itself.

    partner: row of the image that each image is mixed with · weight: share of the own label ·
    box: (top, bottom, left, right) that is pasted, or None for Mixup.
    """

    partner: NDArray[np.int64]
    weight: float
    box: tuple[int, int, int, int] | None


def crop_and_flip(
    images: NDArray[np.uint8], padding: int, flip: bool, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Shift each image (N, 3, S, S) by up to `padding` pixels, and mirror half of them.

    The standard augmentation of CIFAR (He et al., https://arxiv.org/abs/1512.03385, section 4.2),
    with reflection in place of zeros.
    """
    count, channels, size, _ = images.shape
    top, left = rng.integers(0, 2 * padding + 1, (2, count, 1))
    mirror = rng.random((count, 1)) < (0.5 if flip else 0.0)
    rows = reflect(top + np.arange(size) - padding, size)
    columns = reflect(left + np.arange(size) - padding, size)
    columns = np.where(mirror, columns[:, ::-1], columns)
    n, c = np.arange(count), np.arange(channels)
    return images[
        n[:, None, None, None], c[:, None, None], rows[:, None, :, None], columns[:, None, None]
    ]


def reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold positions outside 0 to size - 1 back inside, the border pixel not repeated."""
    index = np.abs(index)
    return np.where(index >= size, 2 * (size - 1) - index, index)


def draw_mix(
    count: int, size: int, mixup: float, cutmix: float, rng: np.random.Generator
) -> Mix | None:
    """Decide whether and how a batch of `count` images of side `size` is mixed.

    `mixup` and `cutmix` are the shares of batches that get each (Zhang et al.,
    https://arxiv.org/abs/1710.09412, with weights from Beta(0.2, 0.2); Yun et al.,
    https://arxiv.org/abs/1905.04899, with areas from Beta(1, 1)).
    """
    kind = rng.random()
    if kind >= mixup + cutmix:
        return None
    partner = rng.permutation(count)
    if kind < mixup:
        return Mix(partner, float(rng.beta(0.2, 0.2)), None)
    side = size * np.sqrt(1 - rng.beta(1, 1))
    centre = rng.integers(0, size, 2)
    low = np.clip(np.round(centre - side / 2), 0, size).astype(int)
    high = np.clip(np.round(centre + side / 2), 0, size).astype(int)
    weight = 1 - float(np.prod(high - low)) / size**2
    return Mix(partner, weight, (int(low[0]), int(high[0]), int(low[1]), int(high[1])))


def apply_mix(images: NDArray[np.uint8], mix: Mix) -> NDArray[np.uint8]:
    """Blend or paste each image's partner into it; (N, 3, S, S) to the same shape."""
    partners = images[mix.partner]
    if mix.box is None:
        blended = mix.weight * images + (1 - mix.weight) * partners
        return np.round(blended).astype(np.uint8)
    top, bottom, left, right = mix.box
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed
