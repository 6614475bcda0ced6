"""Accuracy of each class."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from stages.figures.style import RULES, new_figure

LABELLED = 10  # at either end
SPREAD = 1.7  # bars from name to name, which would overlap at the distance of the bars


@matplotlib.rc_context(RULES)
def class_accuracy(per_class: pd.DataFrame) -> Figure:
    """Top-1 of each row of `per_class` (columns class, superclass and top1) as bars, best first.

    Twenty colours cannot all be told apart, so they are shades in the order of the superclasses'
    accuracy: what stands out is a class that is far better or worse than its relatives.
    """
    means = per_class.groupby("superclass")["top1"].mean().sort_values(ascending=False)
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 1, len(means)))
    names = [str(name) for name in means.index]
    colors = dict(zip(names, shades, strict=True))
    ranked = per_class.sort_values("top1", ascending=False, kind="stable")
    places, values = np.arange(len(ranked)), ranked["top1"].to_numpy()
    figure = new_figure(12, 5.6)
    axes = figure.subplots()
    axes.bar(places, values, 0.9, color=[colors[name] for name in ranked["superclass"]])
    axes.axhline(values.mean(), color="black", linewidth=0.8, linestyle="--")
    for end, outermost in ((places[:LABELLED], 0), (places[-LABELLED:], places[-1])):
        at = outermost + SPREAD * (end - outermost)
        height = values[int(min(at)) : int(max(at)) + 1].max() + 0.05
        for place, x in zip(end, at, strict=True):
            axes.annotate(
                str(ranked["class"].iloc[place]).replace("_", " "),
                (place, values[place]),
                (x, height),
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=8,
                bbox={"facecolor": "white", "linewidth": 0, "pad": 0.5},
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "relpos": (0.5, 0), "shrinkB": 0},
            )
    title = "Top-1 accuracy of each class, the ten best and the ten worst by name"
    figure.suptitle(title, fontweight="bold")  # not of the axes: long names grow out of these
    axes.set_xlabel("classes in the order of their accuracy; dashed: mean")
    axes.set_xticks([])
    axes.set_xlim(-1, len(ranked))
    axes.set_ylim(0, 1.25)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    legend = [
        Patch(color=colors[name], label=f"{name.replace('_', ' ')} {mean:.0%}")
        for name, mean in zip(names, means, strict=True)
    ]
    figure.legend(handles=legend, loc="outside right upper", fontsize=8, title="superclass, mean")
    return figure
