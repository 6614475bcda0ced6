"""How far the probabilities of the network can be trusted."""

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.render.style import BLUE, GREY, ORANGE, RULES, new_figure


@matplotlib.rc_context(RULES)
def reliability_diagram(table: pd.DataFrame) -> Figure:
    """Accuracy over confidence, before and after temperature scaling, beside a histogram of both.

    `table` has a row per bin of confidence and state: from, to, images, confidence, top1 and
    calibrated.
    """
    figure = new_figure(12, 4.6)
    accuracy, histogram = figure.subplots(1, 2)
    accuracy.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
    for name, calibrated, color in (
        ("before calibration", False, BLUE),
        ("after calibration", True, ORANGE),
    ):
        bins = table[table["calibrated"] == calibrated]
        filled = bins[bins["images"] > 0]
        style = {"color": color, "linewidth": 1.5}
        accuracy.plot(
            filled["confidence"], filled["top1"], marker="o", markersize=4, label=name, **style
        )
        edges = [*bins["from"], bins["to"].iloc[-1]]
        histogram.stairs(bins["images"] / bins["images"].sum(), edges, label=name, **style)
    accuracy.set_title("Reliability: accuracy by predicted probability")
    accuracy.set_ylabel("top-1 accuracy")
    accuracy.set_ylim(0, 1)
    histogram.set_title("Distribution of the predicted probabilities")
    histogram.set_ylabel("share of images")
    histogram.set_ylim(bottom=0)
    for axes in (accuracy, histogram):
        axes.set_xlabel("probability of the predicted class")
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(color="#dddddd", linewidth=0.6)
    accuracy.legend(loc="best")
    return figure
