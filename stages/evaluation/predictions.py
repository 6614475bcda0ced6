"""Stores the logits of a split, and the table of classes made from them."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.dataset.samples import CLASSES, ClassNames
from stages.evaluation.metrics import confusion_matrix, hits_in_top
from stages.running.arrays import load_arrays, save_arrays
from stages.running.errors import PipelineError


def save_predictions(path: Path, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write logits (N, 100) and labels (N,), in the order of the split."""
    save_arrays(path, logits=logits, labels=labels)


def load_predictions(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read what `save_predictions` wrote. Raises `PipelineError` if it is missing or not that."""
    logits, labels = load_arrays(path, ["logits", "labels"], "predictions of this pipeline")
    if (
        logits.dtype != np.float32
        or logits.shape != (labels.size, CLASSES)
        or not np.isfinite(logits).all()
    ):
        raise PipelineError(f"{path}: expected finite logits of shape (N, {CLASSES})")
    if (
        labels.dtype != np.int64
        or labels.shape != (len(logits),)
        or not 0 <= labels.min() <= labels.max() < CLASSES
    ):
        raise PipelineError(f"{path}: expected N labels from 0 to {CLASSES - 1}")
    return logits, labels


def class_table(
    logits: NDArray[np.float32], labels: NDArray[np.int64], classes: ClassNames
) -> pd.DataFrame:
    """One row per class, in the order of the labels.

    Columns: class, superclass, images, top1, top5, superclass_top1, and the class that it is most
    often taken for with the number of such images (empty and 0 if there is no mistake).
    """
    coarse_of_fine = np.array(classes.coarse_of_fine)
    predicted = logits.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, CLASSES)
    images = counts.sum(axis=1)
    same_superclass = coarse_of_fine[predicted] == coarse_of_fine[labels]
    mistakes = counts - np.diag(np.diag(counts))
    rivals = mistakes.argmax(axis=1)

    def share(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(labels, weights=hits, minlength=CLASSES) / np.maximum(images, 1)

    return pd.DataFrame(
        {
            "class": classes.fine,
            "superclass": [classes.coarse[i] for i in classes.coarse_of_fine],
            "images": images,
            "top1": share(predicted == labels),
            "top5": share(hits_in_top(logits, labels, 5)),
            "superclass_top1": share(same_superclass),
            "taken_for": [
                classes.fine[rival] if mistakes[row, rival] else ""
                for row, rival in enumerate(rivals)
            ],
            "taken_for_images": mistakes.max(axis=1),
        }
    )
