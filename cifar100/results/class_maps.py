"""Class activation maps of the most confident errors of a split, and their file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar100.dataset.arrays import load_arrays, save_arrays
from cifar100.results.predictions import Predictions
from cifar100.running.errors import PipelineError

MAX_ERRORS = 100  # that have maps: as many as the report can show


def mapped_errors(predictions: Predictions) -> NDArray[np.int64]:
    """The places (M,) of the images that have maps, the most confident first."""
    return predictions.errors_by_confidence[:MAX_ERRORS]


def save_class_maps(path: Path, maps: NDArray[np.float32], predictions: Predictions) -> None:
    """Write the maps (M, 2, H, W) of `mapped_errors`: of the predicted and of the actual class."""
    save_arrays(path, images=mapped_errors(predictions), maps=maps)


def load_class_maps(path: Path, predictions: Predictions) -> NDArray[np.float32]:
    """The maps that `save_class_maps` wrote for these predictions.

    Raises `PipelineError` if the file is missing, or not that.
    """
    images, maps = load_arrays(path, ["images", "maps"], "class activation maps of this pipeline")
    if maps.dtype != np.float32 or maps.ndim != 4 or not np.isfinite(maps).all():
        raise PipelineError(f"{path}: expected finite maps of shape (M, 2, H, W); run `dvc repro`")
    expected = mapped_errors(predictions)
    if not np.array_equal(images, expected) or maps.shape[:2] != (len(expected), 2):
        raise PipelineError(
            f"{path}: does not belong to the predictions beside it; run `dvc repro`"
        )
    return maps
