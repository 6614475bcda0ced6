"""Learning curves of one training with its schedule, and of several for comparison."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.render.style import BLUE, GREEN, GREY, ORANGE, RULES, new_figure

COLORS = (BLUE, ORANGE, GREEN, GREY)
LINES = ("-", "--", ":", "-.")


@matplotlib.rc_context(RULES)
def learning_curves(history: pd.DataFrame, *, augmented: bool, smoothed: bool) -> Figure:
    """Accuracy, loss and learning rate over the epochs of `history`, side by side.

    `augmented`: whether the training images were changed. `smoothed`: whether their labels were.
    """
    figure = new_figure(12, 3.8)
    accuracy, loss, rate = figure.subplots(1, 3)
    epochs = history["epoch"]
    style = {"marker": "o", "markersize": 3.5}

    images = "training (augmented)" if augmented else "training"
    labels = "training (smoothed)" if smoothed else "training"
    accuracy.plot(epochs, history["train_top1"], color=BLUE, label=images, **style)
    accuracy.plot(epochs, history["val_top1"], color=ORANGE, label="validation", **style)
    accuracy.set_title("Top-1 accuracy")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.set_ylim(0, 1)
    accuracy.legend(loc="lower right")

    loss.plot(epochs, history["train_loss"], color=BLUE, label=labels, **style)
    loss.plot(epochs, history["val_loss"], color=ORANGE, label="validation", **style)
    loss.set_title("Cross-entropy loss")
    loss.set_ylim(bottom=0)
    loss.legend(loc="lower left")

    rate.plot(epochs, history["lr"], color=GREEN, **style)
    rate.set_title("Learning rate at epoch end")
    rate.set_ylim(bottom=0)

    for axes in (accuracy, loss, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        _shade_small_images(axes, history)
    for axes in (loss, rate):
        axes.set_ylim(top=1.15 * axes.get_ylim()[1])  # room for the sizes and the legend
    return figure


def _shade_small_images(axes: matplotlib.axes.Axes, history: pd.DataFrame) -> None:
    """Mark the epochs that trained on smaller images, with their size in pixels."""
    full = history["image_size"].max()
    for size, rows in history.groupby("image_size"):
        if size < full:
            first, last = rows["epoch"].min() - 0.5, rows["epoch"].max() + 0.5
            shade = 0.05 + 0.3 * (1 - size / full)
            axes.axvspan(first, last, color=GREY, alpha=shade, linewidth=0)
            place: dict[str, Any] = {
                "ha": "center",
                "va": "top",
                "transform": axes.get_xaxis_transform(),
            }
            axes.text((first + last) / 2, 0.98, f"{size} px", color=GREY, fontsize=9, **place)


@matplotlib.rc_context(RULES)
def compared_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """Validation accuracy and loss over the epochs of several trainings, by their names."""
    figure = new_figure(10, 4)
    accuracy, loss = figure.subplots(1, 2)
    for number, (name, history) in enumerate(histories.items()):
        style = {
            "label": name,
            "color": COLORS[number % len(COLORS)],
            "linestyle": LINES[number // len(COLORS) % len(LINES)],
        }
        accuracy.plot(history["epoch"], history["val_top1"], **style)
        loss.plot(history["epoch"], history["val_loss"], **style)
    accuracy.set_title("Top-1 on the validation images")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    loss.set_title("Cross-entropy loss on them")
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_ylim(bottom=0)
    accuracy.legend(loc="lower right")
    return figure
