"""What a run left to draw, and what follows from it for more than one figure."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.dataset.samples import ClassNames
from stages.evaluation.metrics import confusion_matrix, reliability, softmax
from stages.evaluation.pairs import confused_pairs
from stages.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Results:
    """What a run left to draw: test images (N, 3, 32, 32), the answers to them, and tables.

    history, per_class: reports/history.csv and per_class.csv · filters: the weights (K, 3, S, S) of
    the first convolution.
    """

    images: NDArray[np.uint8]
    predictions: Predictions
    classes: ClassNames
    history: pd.DataFrame
    per_class: pd.DataFrame
    filters: NDArray[np.float32]
    bins: int
    gallery_images: int
    most_pairs: int = 20

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The actual classes (N,)."""
        return self.predictions.labels

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted classes (N,)."""
        return self.predictions.logits.argmax(axis=1)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated, (N, 100)."""
        return softmax(self.predictions.logits / self.predictions.temperature)

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """Confusion of classes (100, 100)."""
        return confusion_matrix(self.labels, self.predicted, len(self.classes.fine))

    @cached_property
    def superclass_counts(self) -> NDArray[np.int64]:
        """Confusion of superclasses (20, 20)."""
        coarse = np.array(self.classes.coarse_of_fine)
        count = len(self.classes.coarse)
        return confusion_matrix(coarse[self.labels], coarse[self.predicted], count)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """The most confused pairs of classes."""
        return confused_pairs(self.class_counts, self.classes, self.most_pairs)

    @cached_property
    def reliability(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Accuracy by confidence, before and after temperature scaling."""
        raw = softmax(self.predictions.logits)
        before, after = (
            reliability(each, self.labels, self.bins) for each in (raw, self.probabilities)
        )
        return before, after
