"""How far a score would move with other test images: percentile bootstrap.

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
    """The interval that holds the mean of `share` of all samples drawn from values (N,).

    It says what another choice of test images would change; not what another seed of the training
    would. The draw is the same for arrays of the same length, so that pairs stay pairs.
    """
    rng = np.random.default_rng(SEED)
    count = len(values)
    means = [values[rng.integers(0, count, count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def interval_table(scores: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Columns metric, value, low and high, with 95 % intervals, from the scores of each image."""
    rows = []
    for name, values in scores.items():
        low, high = bootstrap_interval(values)
        rows.append({"metric": name, "value": values.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)
