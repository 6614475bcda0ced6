"""Computes all that is published about the predictions for a split."""

import numpy as np
import pandas as pd

from cifar100.dataset.samples import ClassNames
from cifar100.results.predictions import Predictions
from cifar100.results.scores import Scores
from cifar100.results.tables import confusion_table
from stages.evaluate.confusion import (
    class_table,
    confused_pairs,
    confusion_matrix,
    superclass_matrix,
)
from stages.evaluate.intervals import interval_table
from stages.evaluate.metrics import (
    confident_errors,
    correct_in_top,
    errors_in_superclass,
    expected_calibration_error,
    reliability,
    scores_per_image,
)


def score(predictions: Predictions, classes: ClassNames, bins: int) -> Scores:
    """Metrics and tables, not rounded; `bins` is the number of bins of the reliability diagram."""
    logits, labels = predictions.logits, predictions.labels
    per_image = scores_per_image(logits, labels, np.array(classes.coarse_of_fine))
    counts = confusion_matrix(labels, predictions.predicted, len(classes.fine))
    per_class = class_table(counts, correct_in_top(logits, labels, 5), labels, classes)
    before = reliability(predictions.raw_probabilities, labels, bins)
    after = reliability(predictions.probabilities, labels, bins)
    metrics = {name: float(values.mean()) for name, values in per_image.items()} | {
        "macro_f1": float(per_class["f1"].mean()),
        "errors_in_superclass": errors_in_superclass(per_image),
        "confident_errors": confident_errors(predictions.probabilities, labels),
        "calibration_error": expected_calibration_error(before),
        "calibrated_error": expected_calibration_error(after),
    }
    return Scores(
        metrics,
        interval_table(per_image),
        per_class,
        confusion_table(counts, classes.fine),
        confusion_table(superclass_matrix(counts, classes), classes.coarse),
        confused_pairs(counts, classes),
        pd.concat(
            [before.assign(calibrated=False), after.assign(calibrated=True)], ignore_index=True
        ),
    )
