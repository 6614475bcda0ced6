"""Temperature scaling: calibrates the probabilities of a trained network.

Guo et al., "On Calibration of Modern Neural Networks" (https://arxiv.org/abs/1706.04599),
section 4.2.
"""

import numpy as np
from numpy.typing import NDArray

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
HALVINGS = 30  # of the interval between the logarithms of these, to far below the fourth digit


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The number by which to divide logits (N, C), so that their loss for labels (N,) is lowest.

    Between 0.05 and 20, to four digits; which class is the most probable does not change. The loss
    is convex in 1 / temperature, so its slope changes its sign once, where the bisection ends.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    of_labels = wide[np.arange(len(labels)), labels].mean()
    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        weights = np.exp(wide / np.exp(middle))
        expected = ((weights * wide).sum(1) / weights.sum(1)).mean()
        # Of the logits, the labels have less than the probabilities say: they are too confident.
        low, high = (middle, high) if of_labels < expected else (low, middle)
    return float(f"{np.exp((low + high) / 2):.4g}")
