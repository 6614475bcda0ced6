"""Predictions for a split: logits, actual classes and temperature, and their file."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cifar100.dataset.arrays import load_arrays, save_arrays
from cifar100.dataset.samples import CLASSES
from cifar100.running.errors import PipelineError


@dataclass(frozen=True)
class Predictions:
    """What a network predicts for N images.

    logits: float32 (N, 100) · labels: int64 (N,), the actual classes · temperature: divides the
    logits before the softmax, for calibrated probabilities.
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    temperature: float

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class with the largest logit (N,)."""
        return self.logits.argmax(axis=1)

    @cached_property
    def raw_probabilities(self) -> NDArray[np.float64]:
        """Probabilities (N, 100) without the temperature."""
        return probabilities_of(self.logits, 1.0)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities (N, 100)."""
        return probabilities_of(self.logits, self.temperature)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The calibrated probability (N,) of the predicted class."""
        return self.probabilities.max(axis=1)

    @cached_property
    def errors_by_confidence(self) -> NDArray[np.int64]:
        """The places (M,) of the images that are predicted wrongly, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]


def probabilities_of(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Softmax (N, C), in double precision, of float32 logits (N, C) divided by `temperature`."""
    scaled = (logits / temperature).astype(np.float64)
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


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
