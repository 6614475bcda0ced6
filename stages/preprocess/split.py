"""Divides the training samples into those to train on and those to validate with."""

import numpy as np
from numpy.typing import NDArray

from cifar100.dataset.samples import CLASSES
from cifar100.running.errors import PipelineError


def stratified_split(
    fine: NDArray[np.int64], val_per_class: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training and of the validation samples, both in rising order.

    Exactly `val_per_class` samples of each class go to validation, drawn by `seed`. Raises
    `PipelineError` if that leaves a class without training samples.
    """
    smallest = int(np.bincount(fine, minlength=CLASSES).min())
    if val_per_class >= smallest:
        raise PipelineError(
            f"params.yaml: val_per_class: {val_per_class} leaves nothing to train on; "
            f"the smallest class has {smallest} images, so give at most {smallest - 1}"
        )
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero(fine == label))[:val_per_class] for label in range(CLASSES)
    ]
    in_val = np.zeros(len(fine), bool)
    in_val[np.concatenate(drawn)] = True
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)
