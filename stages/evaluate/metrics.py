"""Scores of a classifier from its logits, without Paddle."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.results.predictions import probabilities_of
from cifar100.results.scores import CONFIDENT


def losses(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cross-entropy (N,) of each label in nats, in double precision."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return log_sums - shifted[np.arange(len(labels)), labels]


def correct_in_top(
    logits: NDArray[np.floating], labels: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Whether each label (N,) is among the `k` largest logits; of equals the first class wins."""
    top = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return (top == labels[:, None]).any(axis=1)


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int
) -> pd.DataFrame:
    """How often predictions are correct, by confidence: one row for each of equally wide bins.

    Columns: from, to (the confidence of the bin, closed on the right), images, confidence and top1
    (means, 0 in an empty bin). Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599, section 2.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    confidence_sums, correct_counts = (
        np.bincount(bin_of, weights=values, minlength=bins) for values in (confidence, correct)
    )
    return pd.DataFrame(
        {
            "from": np.arange(bins) / bins,
            "to": np.arange(1, bins + 1) / bins,
            "images": images,
            "confidence": confidence_sums / np.maximum(images, 1),
            "top1": correct_counts / np.maximum(images, 1),
        }
    )


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, by their images.

    Equation 5 of Guo et al. 0 is perfect, 1 the worst.
    """
    gaps = (table["confidence"] - table["top1"]).abs()
    return float((gaps * table["images"]).sum() / table["images"].sum())


def confident_errors(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The share of images (N,) that are predicted wrongly with a probability above `CONFIDENT`."""
    wrong = probabilities.argmax(axis=1) != labels
    return float((wrong & (probabilities.max(axis=1) > CONFIDENT)).mean())


def scores_per_image(
    logits: NDArray[np.float32], labels: NDArray[np.int64], coarse_of_fine: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Per-image scores, each (N,): 0 or 1 for the accuracies, the cross-entropy for `loss`.

    Each metric is the mean of its scores. superclass_top1 is the accuracy of the superclass of the
    predicted class, superclass_top1_summed that of the superclass whose classes have the highest
    probability in sum. `coarse_of_fine` (100,) maps classes to superclasses.
    """
    actual = coarse_of_fine[labels]
    predicted = np.argmax(logits, axis=1)
    superclasses = np.eye(coarse_of_fine.max() + 1)[coarse_of_fine]
    summed = probabilities_of(logits, 1.0) @ superclasses
    correct = {
        "top1": predicted == labels,
        "top5": correct_in_top(logits, labels, 5),
        "superclass_top1": coarse_of_fine[predicted] == actual,
        "superclass_top1_summed": summed.argmax(axis=1) == actual,
    }
    scores = {name: values.astype(np.float64) for name, values in correct.items()}
    return scores | {"loss": losses(logits, labels)}


def errors_in_superclass(scores: dict[str, NDArray[np.float64]]) -> float:
    """The share of errors within the actual superclass, of `scores_per_image`; 0 of no errors."""
    wrong = scores["top1"] == 0
    return float(scores["superclass_top1"][wrong].mean()) if wrong.any() else 0.0
