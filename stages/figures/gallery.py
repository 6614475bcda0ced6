"""Pictures that show images of the data set; they stay out of Git, as the data set does."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stages.figures.style import GREEN, ORANGE, RULES, new_figure

COLUMNS = 6


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
        axes.set_title(names[labels[index]], fontsize=9, color=GREEN, loc="center")
        axes.text(
            0.5,
            -0.03,
            f"{names[predicted[index]]} {confidence[index]:.0%}",
            color=ORANGE,
            fontsize=9,
            ha="center",
            va="top",
            transform=axes.transAxes,
        )
    title = "Most confident mistakes: actual class above, answer below"
    figure.suptitle(title if len(shown) else "No mistakes on the test split", fontweight="bold")
    return figure
