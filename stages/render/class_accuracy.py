"""Accuracy of each class, in a row per superclass."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from cifar100.results.tables import readable
from stages.render.style import BLUE, GREY, RULES, new_figure

FONT_SIZE = 8  # of the names of classes, in points
GAP = 5.0  # between two names, in points
HEIGHT = 4.0  # of a name above or below its row, in points
STEP = 0.1  # the axis begins and ends at a multiple of this accuracy


@matplotlib.rc_context(RULES)
def class_accuracy(per_class: pd.DataFrame) -> Figure:
    """Top-1 of each class as a dot with its name, in a row per superclass, the best one first.

    `per_class` has the columns class, superclass and top1. A grey line marks the mean of a row.
    """
    means = per_class.groupby("superclass")["top1"].mean().sort_values(kind="stable")
    low = np.floor(per_class["top1"].min() / STEP - 1e-9) * STEP
    high = np.ceil(per_class["top1"].max() / STEP + 1e-9) * STEP
    rows = np.arange(len(means))
    figure = new_figure(12, 0.6 + 0.47 * len(means))
    axes = figure.subplots()
    axes.vlines(means, rows - 0.12, rows + 0.12, color=GREY, linewidth=2)
    axes.set_title("Top-1 accuracy of each class, by superclass; grey: mean of the superclass")
    axes.set_yticks(rows, [readable(str(name)) for name in means.index])
    axes.set_ylim(-0.7, len(means) - 0.3)
    axes.set_xlim(max(low, -0.02), min(high, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(axis="y", length=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.draw_without_rendering()  # gives the axes their final width, by which names are placed
    for row, superclass in enumerate(means.index):
        members = per_class[per_class["superclass"] == superclass].sort_values("top1")
        axes.plot(members["top1"], [row] * len(members), "o", color=BLUE, markersize=5, alpha=0.8)
        for side, first in ((1, 0), (-1, 1)):  # every other name above the row
            _name(axes, members.iloc[first::2], row, side)
    return figure


def _name(axes: Axes, members: pd.DataFrame, row: int, side: int) -> None:
    """Write the names of some classes above (`side` 1) or below (-1) their dots, side by side."""
    names = [readable(name) for name in members["class"]]
    points_per_pixel = 72 / axes.figure.dpi
    width = axes.bbox.width * points_per_pixel
    left, right = axes.get_xlim()
    dots = (members["top1"].to_numpy() - left) / (right - left) * width
    widths = np.array(
        [TextPath((0, 0), name, size=FONT_SIZE).get_extents().width for name in names]
    )
    for name, top1, shift in zip(
        names, members["top1"], spread(dots, widths + GAP, width) - dots, strict=True
    ):
        axes.annotate(
            name,
            (top1, row),
            (shift, side * HEIGHT),
            textcoords="offset points",
            ha="center",
            va="bottom" if side > 0 else "top",
            fontsize=FONT_SIZE,
        )


def spread(
    centres: NDArray[np.float64], widths: NDArray[np.float64], width: float
) -> NDArray[np.float64]:
    """Centres of intervals that do not overlap, as near as possible to the rising `centres` (N,).

    `widths` (N,) are those of the intervals, which are kept between 0 and `width` if they fit.
    """
    if not len(centres):
        return centres
    offsets = np.concatenate([[0], np.cumsum((widths[:-1] + widths[1:]) / 2)])
    blocks: list[list[float]] = []  # pool-adjacent-violators: overlapping names share a centre
    for start in centres - offsets:
        blocks.append([start])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    starts = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    placed: NDArray[np.float64] = offsets + np.clip(
        starts, widths[0] / 2, max(widths[0] / 2, width - offsets[-1] - widths[-1] / 2)
    )
    return placed
