"""Pictures that show images of the data set; they stay out of Git, as the data set does."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from stages.dataset.samples import ClassNames
from stages.figures.style import GREEN, ORANGE, RULES, new_figure

COLUMNS = 6  # of the gallery of mistakes
PER_CLASS = 4  # examples of each class of a pair
PER_SUPERCLASS = 8


@matplotlib.rc_context(RULES)
def confident_mistakes(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    names: list[str],
    count: int,
) -> Figure:
    """The `count` wrong answers with the highest probability, each with both class names."""
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = new_figure(2 * COLUMNS, 2.45 * rows + 0.5)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, shown, strict=False):
        axes.imshow(images[index].transpose(1, 2, 0), interpolation="nearest")
        axes.set_title(_readable(names[labels[index]]), fontsize=9, color=GREEN, loc="center")
        axes.text(
            0.5,
            -0.03,
            f"{_readable(names[predicted[index]])} {confidence[index]:.0%}",
            color=ORANGE,
            fontsize=9,
            ha="center",
            va="top",
            transform=axes.transAxes,
        )
    title = "Most confident mistakes: actual class above, answer below"
    figure.suptitle(title if len(shown) else "No mistakes on the test split", fontweight="bold")
    return figure


@matplotlib.rc_context(RULES)
def pair_examples(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    pairs: pd.DataFrame,
    names: list[str],
) -> Figure:
    """Images of both classes of each of the `pairs`: first those taken for the other class."""
    figure = new_figure(12, 1.25 * max(1, -(-len(pairs) // 2)) + 0.5)
    figure.suptitle(
        "Most confused pairs: images of both classes, those taken for the other first"
        if len(pairs)
        else "No mistakes on the test split",
        fontweight="bold",
    )
    for part, pair in zip(_parts(figure, len(pairs)), pairs.to_dict("records"), strict=False):
        a, b = names.index(pair["class_a"]), names.index(pair["class_b"])
        part.suptitle(
            f"{_readable(names[a])} → {_readable(names[b])}: {pair['a_as_b']} images, "
            f"{_readable(names[b])} → {_readable(names[a])}: {pair['b_as_a']}",
            fontsize=9,
        )
        shown = [
            np.flatnonzero(labels == one)[
                np.argsort(predicted[labels == one] != other, kind="stable")
            ][:PER_CLASS]
            for one, other in ((a, b), (b, a))
        ]
        _show_row(part, images[np.concatenate(shown)], 2 * PER_CLASS)
    return figure


@matplotlib.rc_context(RULES)
def right_answers(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: ClassNames,
) -> Figure:
    """For each superclass the right answers with the highest probability."""
    coarse = np.array(classes.coarse_of_fine)[labels]
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    figure = new_figure(12, 1.25 * (len(classes.coarse) // 2) + 0.5)
    figure.suptitle("Right answers that the network was most sure of", fontweight="bold")
    parts = _parts(figure, len(classes.coarse))
    for index, (part, name) in enumerate(zip(parts, classes.coarse, strict=False)):
        shown = order[right[order] & (coarse[order] == index)][:PER_SUPERCLASS]
        part.suptitle(_readable(name) if len(shown) else f"{_readable(name)}: none", fontsize=9)
        _show_row(part, images[shown], PER_SUPERCLASS)
    return figure


def _parts(figure: Figure, count: int) -> list[SubFigure]:
    """Places for `count` rows of images, in two columns."""
    return list(figure.subfigures(max(1, -(-count // 2)), 2, squeeze=False).flat)


def _show_row(part: SubFigure, images: NDArray[np.uint8], places: int) -> None:
    grid = part.subplots(1, places)
    for axes in grid:
        axes.axis("off")
    for axes, image in zip(grid, images, strict=False):
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")


def _readable(name: str) -> str:
    return name.replace("_", " ")
