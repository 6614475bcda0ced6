"""Scores of a classifier from its logits: NumPy only, no Paddle."""

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C), in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of the labels (N,), in nats."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sums - shifted[np.arange(len(labels)), labels]))


def hits_in_top(
    logits: NDArray[np.floating], labels: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Whether each label (N,) is among the `k` largest logits; of equals the first class wins."""
    top = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return (top == labels[:, None]).any(axis=1)


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int
) -> float:
    """Mean gap between confidence and accuracy over equally wide bins, weighted by their counts.

    Guo et al., "On Calibration of Modern Neural Networks" (https://arxiv.org/abs/1706.04599),
    equation 5. 0 is perfect, 1 the worst.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    # Bins are closed on the right, so that a confidence of exactly 1 falls into the last.
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def confusion_matrix(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts (classes, classes): rows are the actual, columns the predicted classes."""
    return np.bincount(actual * classes + predicted, minlength=classes**2).reshape(classes, classes)


def score(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    coarse_of_fine: NDArray[np.int64],
) -> dict[str, float]:
    """The headline metrics of logits (N, 100) for labels (N,).

    superclass_top1 is that of the predicted class; errors_in_superclass is the share of wrong
    answers whose superclass is right. `coarse_of_fine` (100,) maps classes to superclasses.
    """
    predicted = np.argmax(logits, axis=1)
    same_superclass = coarse_of_fine[predicted] == coarse_of_fine[labels]
    wrong = predicted != labels
    return {
        "top1": float(np.mean(~wrong)),
        "top5": float(np.mean(hits_in_top(logits, labels, 5))),
        "superclass_top1": float(np.mean(same_superclass)),
        "errors_in_superclass": float(np.mean(same_superclass[wrong])) if wrong.any() else 0.0,
        "loss": log_loss(logits, labels),
    }
