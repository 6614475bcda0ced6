"""Confusion matrices: 20 superclasses with numbers, 100 classes as a heat map."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from stages.dataset.samples import ClassNames
from stages.figures.style import RULES, new_figure


@matplotlib.rc_context(RULES)
def superclass_confusion(counts: NDArray[np.int64], names: list[str]) -> Figure:
    """Row-normalised matrix (20, 20) with the percentage in each cell from half a percent on."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new_figure(11, 9.5)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
        axes.text(
            column,
            row,
            f"{100 * shares[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if shares[row, column] > 0.5 else "black",
        )
    labels = _readable(names)
    axes.set_xticks(range(len(names)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("predicted superclass")
    axes.set_ylabel("actual superclass")
    axes.set_title("Superclass confusion: percent of each actual superclass")
    figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1))
    return figure


@matplotlib.rc_context(RULES)
def class_confusion(counts: NDArray[np.int64], classes: ClassNames) -> Figure:
    """Matrix (100, 100) of image counts, ordered and divided by superclass."""
    coarse_of_fine = np.array(classes.coarse_of_fine)
    order = np.argsort(coarse_of_fine, kind="stable")
    ordered = counts[np.ix_(order, order)].astype(float)
    figure = new_figure(11, 9.5)
    axes = figure.subplots()
    image = axes.imshow(
        np.ma.masked_equal(ordered, 0), cmap="viridis_r", norm=LogNorm(1, max(2, ordered.max()))
    )
    sizes = np.bincount(coarse_of_fine, minlength=len(classes.coarse))
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="#bbbbbb", linewidth=0.6)
        axes.axvline(end - 0.5, color="#bbbbbb", linewidth=0.6)
    centres = ends - sizes / 2 - 0.5
    labels = _readable(classes.coarse)
    axes.set_xticks(centres, labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(centres, labels)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class, by superclass")
    axes.set_ylabel("actual class, by superclass")
    axes.set_title("Class confusion: test images per cell, log colour scale")
    ticks = [value for value in (1, 3, 10, 30, 100, 300) if value <= ordered.max()]
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=ticks, format="%d")
    bar.minorticks_off()
    return figure


def _readable(names: list[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def superclass_pairs(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: ClassNames
) -> pd.DataFrame:
    """One row per image with the columns actual and predicted, for DVC's confusion template."""
    names = np.array(classes.coarse)[np.array(classes.coarse_of_fine)]
    return pd.DataFrame({"actual": names[labels], "predicted": names[predicted]})
