"""Stores the logits of a split, and the table of classes made from them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.dataset.samples import CLASSES, ClassNames
from stages.evaluation.metrics import confusion_matrix, hits_in_top
from stages.running.arrays import load_arrays, save_arrays
from stages.running.errors import PipelineError


@dataclass(frozen=True)
class Predictions:
    """What a network answered for N images.

    logits: float32 (N, 100) · labels: int64 (N,), the actual classes · temperature: what to divide
    the logits by before a softmax, to get probabilities that are as often right as they say.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    temperature: float


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write the predictions in the order of the split; the same ones give the same bytes."""
    save_arrays(
        path,
        logits=predictions.logits,
        labels=predictions.labels,
        temperature=np.array(predictions.temperature),
    )


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote. Raises `PipelineError` if it is missing or not that."""
    names = ["logits", "labels", "temperature"]
    logits, labels, temperature = load_arrays(path, names, "predictions of this pipeline")
    if (
        logits.dtype != np.float32
        or logits.shape != (labels.size, CLASSES)
        or not labels.size
        or not np.isfinite(logits).all()
    ):
        raise PipelineError(f"{path}: expected finite logits of shape (N, {CLASSES})")
    if (
        labels.dtype != np.int64
        or labels.shape != (len(logits),)
        or not 0 <= labels.min() <= labels.max() < CLASSES
    ):
        raise PipelineError(f"{path}: expected N labels from 0 to {CLASSES - 1}")
    if temperature.dtype != np.float64 or temperature.shape or not 0 < temperature < np.inf:
        raise PipelineError(f"{path}: expected a temperature above 0")
    return Predictions(logits, labels, float(temperature))


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
