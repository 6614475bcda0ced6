"""What a run left to draw."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames
from cifar100.results.predictions import Predictions
from cifar100.results.scores import Scores
from cifar100.results.tables import confusion_counts


@dataclass(frozen=True)
class Results:
    """What a run left to draw: test images (N, 3, 32, 32), their predictions, scores and history.

    history: the rows of reports/history.csv · filters: the weights (K, 3, S, S) of the first
    convolution · class_maps: (M, 2, H, W), of the predicted and of the actual class of the most
    confident errors · gallery_images: how many errors the gallery shows at most.
    """

    images: NDArray[np.uint8]
    predictions: Predictions
    classes: ClassNames
    scores: Scores
    history: pd.DataFrame
    filters: NDArray[np.float32]
    class_maps: NDArray[np.float32]
    gallery_images: int

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """Confusion of the classes (100, 100)."""
        return confusion_counts(self.scores.class_confusion, self.classes.fine)

    @cached_property
    def superclass_counts(self) -> NDArray[np.int64]:
        """Confusion of the superclasses (20, 20)."""
        return confusion_counts(self.scores.superclass_confusion, self.classes.coarse)

    @cached_property
    def errors(self) -> int:
        """How many test images were predicted wrongly."""
        return int(self.class_counts.sum() - np.trace(self.class_counts))

    @cached_property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether each image (N,) was predicted wrongly."""
        return self.predictions.predicted != self.predictions.labels


def images_in_words(count: int) -> str:
    """A number of images, in the singular where it is one."""
    return "1 image" if count == 1 else f"{count:,} images"
