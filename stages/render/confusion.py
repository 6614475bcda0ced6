"""Confusion matrices: 20 superclasses with percentages, 100 classes as a heat map of errors."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames
from cifar100.results.tables import readable
from stages.render.style import GREY, RULES, new_figure

# From faint to dark, for the images that are taken for another class.
ERROR_COLORS = LinearSegmentedColormap.from_list(
    "errors", ["#fff7ec", "#fdd49e", "#fc8d59", "#d7301f", "#7f0000"]
)
EMPHASIS = 0.8  # exponent of the scale: below 1 shows single images, above 1 hides them
HABIT = 6  # images from which a cell may be the darkest, so that single ones are faint in any run


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
    labels = [*map(readable, names)]
    axes.set_xticks(range(len(names)), labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("predicted superclass")
    axes.set_ylabel("actual superclass")
    axes.set_title("Superclass confusion: percent of each actual superclass")
    figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1))
    return figure


@matplotlib.rc_context(RULES)
def class_confusion(counts: NDArray[np.int64], classes: ClassNames) -> Figure:
    """Errors of a confusion matrix (100, 100) of image counts, ordered and divided by superclass.

    The diagonal is grey, so that the colours are left to the errors.
    """
    coarse_of_fine = np.array(classes.coarse_of_fine)
    order = np.argsort(coarse_of_fine, kind="stable")
    ordered = counts[np.ix_(order, order)]
    figure = new_figure(11, 9.5)
    axes = figure.subplots()
    diagonal = np.eye(len(ordered), dtype=bool)
    axes.imshow(np.ma.masked_array(diagonal, ~diagonal), cmap="Greys", vmin=0, vmax=4)
    errors: NDArray[np.int64] = np.ma.masked_array(ordered, diagonal | (ordered == 0))
    largest = max(HABIT, int(ordered[~diagonal].max()))
    image = axes.imshow(errors, cmap=ERROR_COLORS, norm=PowerNorm(EMPHASIS, 0, largest))
    _divide_by_superclass(axes, classes)
    axes.set_xlabel("predicted class, by superclass")
    axes.set_ylabel("actual class, by superclass")
    axes.set_title("Class confusion: wrongly classified test images per cell")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format="%d")
    bar.locator = MaxNLocator(integer=True)
    return figure


def _divide_by_superclass(axes: Axes, classes: ClassNames) -> None:
    """Lines between the superclasses, squares around each of them, and its name in the middle."""
    sizes = np.bincount(classes.coarse_of_fine, minlength=len(classes.coarse))
    ends = np.cumsum(sizes)
    for start, size in zip(ends - sizes, sizes, strict=True):
        axes.axhline(start - 0.5, color="#e4e4e4", linewidth=0.6, zorder=0)
        axes.axvline(start - 0.5, color="#e4e4e4", linewidth=0.6, zorder=0)
        corner = (start - 0.5, start - 0.5)
        square = Rectangle(corner, size, size, fill=False, edgecolor=GREY, linewidth=0.8)
        square.set_clip_on(False)  # half of the line at the border would be missing
        axes.add_patch(square)
    centres = ends - sizes / 2 - 0.5
    labels = [*map(readable, classes.coarse)]
    axes.set_xticks(centres, labels, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(centres, labels)
    axes.tick_params(length=0)
