"""Confidence intervals of scores over the choice of test images, by the percentile bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 2000
SEED = 0


def bootstrap_interval(
    values: NDArray[np.float64], share: float = 0.95, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile-bootstrap confidence interval of the mean of `values` (N,), at level `share`.

    It covers the choice of test images, not the seed of the training. Arrays of the same length are
    resampled at the same places, so that the difference of two paired arrays keeps its pairs.
    """
    rng = np.random.default_rng(SEED)
    count = len(values)
    means = [values[rng.integers(0, count, count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def interval_table(scores: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Metric, value, low and high of 95 % confidence intervals, from the scores of each image."""
    rows = []
    for name, values in scores.items():
        low, high = bootstrap_interval(values)
        rows.append({"metric": name, "value": values.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)
