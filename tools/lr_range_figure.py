"""The curve of a learning-rate range test."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from stages.render.style import BLUE, GREY, ORANGE, RULES, new_figure


@matplotlib.rc_context(RULES)
def lr_range_figure(table: pd.DataFrame, peak: float) -> Figure:
    """Loss over learning rate, from columns lr, loss and smoothed_loss; `peak` is marked."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.plot(table["lr"], table["loss"], color=GREY, alpha=0.4, linewidth=0.8, label="each step")
    axes.plot(table["lr"], table["smoothed_loss"], color=BLUE, label="smoothed")
    axes.axvline(peak, color=ORANGE, linestyle="--", label=f"suggested peak: {peak:g}")
    axes.set_xscale("log")
    axes.set_title("Training loss while the learning rate grows")
    axes.set_xlabel("learning rate")
    low, high = table["smoothed_loss"].min(), table["smoothed_loss"].max()
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(loc="lower left")
    return figure
