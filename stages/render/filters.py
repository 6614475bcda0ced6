"""What the first convolution looks for."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stages.render.style import RULES, new_figure

COLUMNS = 16


@matplotlib.rc_context(RULES)
def first_layer_filters(weights: NDArray[np.float32]) -> Figure:
    """The filters (K, 3, S, S) as colours, each scaled to its largest weight; grey is zero."""
    rows = -(-len(weights) // COLUMNS)
    figure = new_figure(0.62 * COLUMNS, 0.66 * rows + 0.6)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, values in zip(grid.flat, weights, strict=False):
        scaled = 0.5 + 0.5 * values / max(float(np.abs(values).max()), 1e-12)
        axes.imshow(scaled.transpose(1, 2, 0), interpolation="nearest")
    figure.suptitle("Filters of the first convolution", fontweight="bold")
    return figure
