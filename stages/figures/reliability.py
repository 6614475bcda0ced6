"""How far the probabilities of the network can be trusted."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.figures.style import BLUE, GREY, ORANGE, RULES, new_figure


@matplotlib.rc_context(RULES)
def reliability_diagram(before: pd.DataFrame, after: pd.DataFrame) -> Figure:
    """Accuracy over confidence, before and after temperature scaling, above a histogram of both.

    The tables have a row per bin of confidence: from, to, images, confidence and top1.
    """
    figure = new_figure(7, 6)
    accuracy, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    accuracy.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as often right as it says")
    styles = (("as the network answers", before, BLUE), ("divided by temperature", after, ORANGE))
    for name, table, color in styles:
        filled = table[table["images"] > 0]
        accuracy.plot(
            filled["confidence"], filled["top1"], color=color, marker="o", markersize=4, label=name
        )
        edges = [*table["from"], table["to"].iloc[-1]]
        shares = table["images"] / table["images"].sum()
        histogram.stairs(shares, edges, color=color, linewidth=1.5)
    accuracy.set_title("Reliability: how often the answer is right, by its probability")
    accuracy.set_ylabel("top-1 accuracy")
    accuracy.legend(loc="upper left")
    histogram.set_ylabel("share of images")
    histogram.set_xlabel("probability of the answer")
    for axes in (accuracy, histogram):
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(color="#dddddd", linewidth=0.6)
    accuracy.set_ylim(top=1)
    return figure
