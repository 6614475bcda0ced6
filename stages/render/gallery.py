"""Pictures that show images of the data set; they stay out of Git, as the data set does."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from PIL import Image

from cifar100.class_activation.overlay import overlay
from cifar100.dataset.samples import ClassNames
from cifar100.results.predictions import Predictions
from cifar100.results.tables import readable
from stages.render.style import GREY, RULES, new_figure

COLUMNS = 3  # of the gallery of errors
SIDE, GAP = 128, 8  # pixels there: an image and its class maps, and the space between them
PER_CLASS = 4  # examples of each class of a pair
PER_SUPERCLASS = 8
SPACE = 4  # pixels of an image between two in a row


@matplotlib.rc_context(RULES)
def confident_errors(
    images: NDArray[np.uint8],
    predictions: Predictions,
    maps: NDArray[np.float32],
    names: list[str],
    count: int,
) -> Figure:
    """The `count` wrong predictions with the highest probability, each with two class maps.

    maps: (M, 2, H, W), of the predicted and of the actual class of each of the most confident
    errors. Both of an image are drawn on the same scale.
    """
    labels, predicted, confidence = (
        predictions.labels,
        predictions.predicted,
        predictions.confidence,
    )
    shown = predictions.errors_by_confidence[:count]
    rows = -(-len(shown) // COLUMNS)
    figure = new_figure(3 * COLUMNS, 1.55 * rows + 0.4)
    figure.set_layout_engine("constrained", wspace=0.06)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, index, of_image in zip(grid.flat, shown, maps, strict=False):
        strongest = float(abs(of_image).max())
        axes.imshow(side_by_side(images[index], of_image, strongest), interpolation="nearest")
        axes.set_title(
            f"{readable(names[labels[index]])}\n"
            f"taken for {readable(names[predicted[index]])}, {confidence[index]:.0%}",
            fontsize=9,
            fontweight="normal",
        )
        for place, text in enumerate(("image", "predicted", "actual")):
            axes.text(
                (place + 0.5) * SIDE + place * GAP,
                SIDE + 10,
                text,
                color=GREY,
                fontsize=8,
                ha="center",
                va="top",
            )
    title = "Most confident errors, and what spoke for the predicted and for the actual class"
    figure.suptitle(title, fontweight="bold")
    return figure


def side_by_side(
    image: NDArray[np.uint8], maps: NDArray[np.float32], strongest: float
) -> NDArray[np.uint8]:
    """The image (3, S, S) and each of its class maps (K, H, W) over it, with white between them."""
    large = Image.fromarray(image.transpose(1, 2, 0)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    pictures = [np.asarray(large), *(overlay(image, one, SIDE, strongest) for one in maps)]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    return np.hstack([part for picture in pictures for part in (picture, gap)][:-1])


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
    """Draw images (N, 3, S, S), at most `places`, side by side with white between them."""
    size = images.shape[-1]
    row = np.full((size, places * (size + SPACE) - SPACE, 3), 255, np.uint8)
    for image, left in zip(images, range(0, row.shape[1], size + SPACE), strict=False):
        row[:, left : left + size] = image.transpose(1, 2, 0)
    axes = part.subplots()
    axes.axis("off")
    axes.imshow(row, interpolation="nearest")
