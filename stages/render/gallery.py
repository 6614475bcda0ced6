"""Pictures that show images of the data set; they stay out of Git, as the data set does."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames
from cifar100.results.predictions import Predictions
from cifar100.results.tables import readable
from stages.render.style import GREEN, ORANGE, RULES, new_figure

COLUMNS = 6  # of the gallery of errors
PER_CLASS = 4  # examples of each class of a pair
PER_SUPERCLASS = 8


@matplotlib.rc_context(RULES)
def confident_errors(
    images: NDArray[np.uint8], predictions: Predictions, names: list[str], count: int
) -> Figure:
    """The `count` wrong predictions with the highest probability, each with both class names."""
    labels, predicted, confidence = (
        predictions.labels,
        predictions.predicted,
        predictions.confidence,
    )
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    rows = -(-len(shown) // COLUMNS)
    figure = new_figure(2 * COLUMNS, 2.45 * rows + 0.5)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index in zip(grid.flat, shown, strict=False):
        axes.imshow(images[index].transpose(1, 2, 0), interpolation="nearest")
        axes.set_title(readable(names[labels[index]]), fontsize=9, color=GREEN, loc="center")
        axes.text(
            0.5,
            -0.03,
            f"{readable(names[predicted[index]])} {confidence[index]:.0%}",
            color=ORANGE,
            fontsize=9,
            ha="center",
            va="top",
            transform=axes.transAxes,
        )
    title = "Most confident errors: actual class above, predicted class below"
    figure.suptitle(title, fontweight="bold")
    return figure


@matplotlib.rc_context(RULES)
def pair_examples(
    images: NDArray[np.uint8], predictions: Predictions, pairs: pd.DataFrame, names: list[str]
) -> Figure:
    """Images of both classes of each of the `pairs`: first those taken for the other class."""
    labels, predicted = predictions.labels, predictions.predicted
    figure = new_figure(12, 1.25 * -(-len(pairs) // 2) + 0.5)
    title = "Most confused pairs, and how many images of each class were taken for the other"
    figure.suptitle(title, fontweight="bold")
    for part, pair in zip(_parts(figure, len(pairs)), pairs.to_dict("records"), strict=False):
        a, b = names.index(pair["class_a"]), names.index(pair["class_b"])
        part.suptitle(
            f"{readable(names[a])} ({pair['a_as_b']}) / {readable(names[b])} ({pair['b_as_a']})",
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
def correct_predictions(
    images: NDArray[np.uint8], predictions: Predictions, classes: ClassNames
) -> Figure:
    """For each superclass the correct predictions with the highest probability."""
    coarse = np.array(classes.coarse_of_fine)[predictions.labels]
    correct = predictions.predicted == predictions.labels
    order = np.argsort(-predictions.confidence, kind="stable")
    shown = {
        name: order[correct[order] & (coarse[order] == index)][:PER_SUPERCLASS]
        for index, name in enumerate(classes.coarse)
    }
    shown = {name: rows for name, rows in shown.items() if len(rows)}
    figure = new_figure(12, 1.25 * -(-len(shown) // 2) + 0.5)
    figure.suptitle("Correct predictions with the highest probability", fontweight="bold")
    for part, (name, rows) in zip(_parts(figure, len(shown)), shown.items(), strict=False):
        part.suptitle(readable(name), fontsize=9)
        _show_row(part, images[rows], PER_SUPERCLASS)
    return figure


def _parts(figure: Figure, count: int) -> list[SubFigure]:
    """Places for `count` rows of images, in two columns."""
    return list(figure.subfigures(-(-count // 2), 2, squeeze=False).flat)


def _show_row(part: SubFigure, images: NDArray[np.uint8], places: int) -> None:
    grid = part.subplots(1, places)
    for axes in grid:
        axes.axis("off")
    for axes, image in zip(grid, images, strict=False):
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
