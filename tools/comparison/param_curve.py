"""A score over the one param in which runs differ: which learning rate?"""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter

from stages.evaluate.intervals import bootstrap_interval
from stages.render.style import BLUE, GREEN, GREY, ORANGE, RULES, new_figure
from tools.comparison.revisions import Revision

SCORES = ("top1", "top5", "superclass_top1", "superclass_top1_summed", "loss")  # means over images
LOG_FROM = 8  # ratio of the largest value to the smallest from which the axis is logarithmic


def differing_params(runs: list[Revision]) -> list[str]:
    """The names of the params whose values are not the same in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    return [name for name in names if any(_value(r, name) != _value(runs[0], name) for r in runs)]


def _value(run: Revision, name: str) -> object:
    value = run.params.get(name)
    return (type(value) is bool, value)  # in Python True equals 1


def why_no_curve(names: list[str], runs: list[Revision]) -> str:
    """Why a curve over `differing_params` would say nothing; '' if it says something."""
    if not names:
        return "the runs have the same params"
    if len(names) > 1:
        return f"the runs differ in several params: {', '.join(names)}"
    if names == ["seed"]:
        return "the runs differ in seed alone: python -m tools.seeds gives their mean and deviation"
    values = [run.params.get(names[0]) for run in runs]
    if any(type(value) not in (int, float) for value in values):
        return f"the runs differ in {names[0]}, whose values are not all numbers"
    return ""


def curve_over(param: str, score: str, runs: list[Revision]) -> pd.DataFrame:
    """One row per run, by the rising value of `param`: the score, and how far from the best run's.

    Columns: the param, run, the score, low and high (its 95 % interval over test images), val_top1
    (after the last epoch), worse_low and worse_high (the interval of what it is worse than the best
    one, by a bootstrap of pairs), and state: "best", "same" (zero is in that interval: they cannot
    be told apart) or "worse". The loss is best where it is lowest.
    """
    sign = -1 if score == "loss" else 1
    best = max(runs, key=lambda run: sign * run.scores[score].mean())
    rows = []
    for run in sorted(runs, key=lambda run: run.params[param]):
        low, high = bootstrap_interval(run.scores[score])
        worse = bootstrap_interval(sign * (best.scores[score] - run.scores[score]))
        state = "best" if run is best else "same" if worse[0] <= 0 else "worse"
        rows.append(
            {
                param: run.params[param],
                "run": run.name,
                score: run.scores[score].mean(),
                "low": low,
                "high": high,
                "val_top1": run.history["val_top1"].iloc[-1],
                "worse_low": worse[0],
                "worse_high": worse[1],
                "state": state,
            }
        )
    return pd.DataFrame(rows)


def verdict(curve: pd.DataFrame) -> str:
    """The best value of the param, and those that cannot be told apart from it."""
    param, _, score = curve.columns[:3]
    best = curve[curve["state"] == "best"].iloc[0]
    same = curve[curve["state"] == "same"]
    listed = ", ".join(f"{row[param]:g} ({row['run']})" for _, row in same.iterrows())
    return (
        f"best {score}: {param} {best[param]:g} ({best['run']}); "
        f"cannot be told apart from it by these test images: {listed or 'none'}"
    )


@matplotlib.rc_context(RULES)
def curve_figure(curve: pd.DataFrame) -> Figure:
    """The score of each run over the param, with its interval; colours say what `state` says."""
    param, _, score = curve.columns[:3]
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    axes.plot(curve[param], curve[score], color=GREY, linewidth=1, zorder=1)
    for state, color, label in (
        ("best", ORANGE, "best"),
        ("same", BLUE, "cannot be told apart from the best"),
        ("worse", GREY, "worse"),
    ):
        rows = curve[curve["state"] == state]
        if len(rows):
            bars = np.abs(rows[["low", "high"]].to_numpy().T - rows[score].to_numpy())
            axes.errorbar(
                rows[param], rows[score], bars, fmt="o", capsize=3, color=color, label=label
            )
    if score == "top1":
        axes.plot(curve[param], curve["val_top1"], ":.", color=GREEN, label="validation images")
    if score != "loss":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    values = curve[param].unique()
    if values[0] > 0 and values[-1] / values[0] >= LOG_FROM:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(param)
    axes.set_ylabel("bars: 95 % confidence interval")
    axes.set_title(f"{score} of the test images over {param}")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(loc="best")
    return figure
