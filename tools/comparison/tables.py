"""How results differ, and whether the difference is more than the choice of test images."""

import numpy as np
import pandas as pd

from cifar100.dataset.samples import ClassNames
from stages.evaluate.intervals import bootstrap_interval
from tools.comparison.revisions import Revision


def metric_differences(base: Revision, other: Revision) -> pd.DataFrame:
    """One row per metric: its value in both, the difference, and whether that is significant.

    low and high are the 95 % interval of the difference by a bootstrap of pairs: both answer the
    same images. It is significant if zero lies outside. Metrics that are not a mean over images
    have none.
    """
    rows = []
    for name, before in base.metrics.items():
        after = other.metrics.get(name, np.nan)
        low, high, significant = np.nan, np.nan, ""
        if name in base.scores:
            low, high = bootstrap_interval(other.scores[name] - base.scores[name])
            significant = "yes" if low > 0 or high < 0 else "no"
        rows.append([name, before, after, after - before, low, high, significant])
    # Not a mapping: a branch may have the name of another column, or be compared with itself.
    columns = ["metric", base.name, other.name, "difference", "low", "high", "significant"]
    return pd.DataFrame(rows, columns=columns)


def class_differences(base: Revision, other: Revision, classes: ClassNames) -> pd.DataFrame:
    """One row per class, the largest gain first: its top-1 in both, and the difference."""
    labels = base.predictions.labels
    images = np.maximum(np.bincount(labels, minlength=len(classes.fine)), 1)
    before, after = (
        np.bincount(labels, revision.scores["top1"], len(classes.fine)) / images
        for revision in (base, other)
    )
    order = np.argsort(before - after, kind="stable")
    rows = [(classes.fine[i], before[i], after[i], after[i] - before[i]) for i in order]
    return pd.DataFrame(rows, columns=["class", base.name, other.name, "difference"])
