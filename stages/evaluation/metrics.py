"""Scores of a classifier from its logits, without Paddle."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C), in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def losses(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Negative log-likelihood (N,) of each label, in nats."""
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    return log_sums - shifted[np.arange(len(labels)), labels]


def hits_in_top(
    logits: NDArray[np.floating], labels: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Whether each label (N,) is among the `k` largest logits; of equals the first class wins."""
    top = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return (top == labels[:, None]).any(axis=1)


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int
) -> pd.DataFrame:
    """How often answers are right, by how sure they are: one row for each of equally wide bins.

    Columns: from, to (the confidence of the bin, closed on the right), images, confidence and top1
    (means, 0 in an empty bin). Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599, section 2.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    confidences, hits = (
        np.bincount(bin_of, weights=values, minlength=bins) for values in (confidence, right)
    )
    return pd.DataFrame(
        {
            "from": np.arange(bins) / bins,
            "to": np.arange(1, bins + 1) / bins,
            "images": images,
            "confidence": confidences / np.maximum(images, 1),
            "top1": hits / np.maximum(images, 1),
        }
    )


def expected_calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int
) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, by their images.

    Equation 5 of Guo et al. 0 is perfect, 1 the worst.
    """
    table = reliability(probabilities, labels, bins)
    gaps = (table["confidence"] - table["top1"]).abs()
    return float((gaps * table["images"]).sum() / len(labels))


def confusion_matrix(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts (classes, classes): rows are the actual, columns the predicted classes."""
    return np.bincount(actual * classes + predicted, minlength=classes**2).reshape(classes, classes)


def scores_per_image(
    logits: NDArray[np.float32], labels: NDArray[np.int64], coarse_of_fine: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """What each image (N,) adds to each metric, which is the mean of it: 0 or 1, and the loss.

    superclass_top1 is that of the predicted class, superclass_top1_summed that of the superclass
    whose classes have the highest probability in sum. `coarse_of_fine` (100,) maps classes to
    superclasses.
    """
    actual = coarse_of_fine[labels]
    predicted = np.argmax(logits, axis=1)
    superclasses = np.eye(coarse_of_fine.max() + 1)[coarse_of_fine]
    hits = {
        "top1": predicted == labels,
        "top5": hits_in_top(logits, labels, 5),
        "superclass_top1": coarse_of_fine[predicted] == actual,
        "superclass_top1_summed": (softmax(logits) @ superclasses).argmax(axis=1) == actual,
    }
    scores = {name: values.astype(np.float64) for name, values in hits.items()}
    return scores | {"loss": losses(logits, labels)}


def errors_in_superclass(scores: dict[str, NDArray[np.float64]]) -> float:
    """The share of wrong answers whose superclass is right, of `scores_per_image`; 0 of none."""
    wrong = scores["top1"] == 0
    return float(scores["superclass_top1"][wrong].mean()) if wrong.any() else 0.0
