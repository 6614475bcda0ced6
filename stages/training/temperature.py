"""Temperature scaling: makes the probabilities of a trained network as often right as they say.

Guo et al., "On Calibration of Modern Neural Networks" (https://arxiv.org/abs/1706.04599),
section 4.2.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The number by which to divide logits (N, C), so that their loss for labels (N,) is lowest.

    Between 0.05 and 20, to four digits; which class is the most probable does not change.
    """
    wide, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(wide / np.exp(log_temperature), 1)[rows, labels].mean())

    best = minimize_scalar(loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded")
    return float(f"{np.exp(best.x):.4g}")
