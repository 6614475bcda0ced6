"""The training batches of one epoch, the same for any number of workers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.training.augmentation import apply_mix, crop_and_flip, draw_mix


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step; `weight` is that of `labels`, the rest of `mixed_labels`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    mixed_labels: NDArray[np.int64]
    weight: float


@dataclass(frozen=True)
class Augmentation:
    """The augmentation keys of params.yaml."""

    crop_padding: int
    flip: bool
    mixup: float
    cutmix: float


def epoch_batches(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    batch_size: int,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    worker: int = 0,
    workers: int = 1,
) -> Iterator[Batch]:
    """Yield this worker's share of each full batch; images (N, 3, S, S), labels (N,).

    The last N modulo `batch_size` images of the shuffled epoch are left out: each step has the
    same size. Every worker augments the whole batch, which is cheap, and keeps its own rows.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(labels))
    share = batch_size // workers
    mine = slice(worker * share, (worker + 1) * share)
    for start in range(0, len(order) - batch_size + 1, batch_size):
        rows = order[start : start + batch_size]
        batch = crop_and_flip(images[rows], augmentation.crop_padding, augmentation.flip, rng)
        mix = draw_mix(batch_size, images.shape[-1], augmentation.mixup, augmentation.cutmix, rng)
        if mix is None:
            yield Batch(batch[mine], labels[rows[mine]], labels[rows[mine]], 1.0)
        else:
            partners = rows[mix.partner]
            yield Batch(
                apply_mix(batch, mix)[mine], labels[rows[mine]], labels[partners[mine]], mix.weight
            )
