"""The figures of the report, each with how to read it and what it shows in this run."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from stages.evaluation.metrics import expected_calibration_error, softmax
from stages.figures.class_accuracy import class_accuracy
from stages.figures.confusion import class_confusion, superclass_confusion
from stages.figures.curves import learning_curves
from stages.figures.filters import first_layer_filters
from stages.figures.gallery import confident_mistakes, pair_examples, right_answers
from stages.figures.reliability import reliability_diagram
from stages.figures.results import Results


@dataclass(frozen=True)
class Chart:
    """A figure: its title, how to read it, what it shows in this run, and its file in reports/."""

    title: str
    how_to_read: str
    finding: str
    file: str
    figure: Figure


def charts(results: Results) -> Iterator[Chart]:
    """All figures of the report; those in gallery/ show images of the data set."""
    yield _learning_curves(results)
    yield _superclass_confusion(results)
    yield _class_confusion(results)
    yield _class_accuracy(results)
    yield _pairs(results)
    yield _reliability(results)
    yield _mistakes(results)
    yield _right_answers(results)
    yield _filters(results)


def _learning_curves(results: Results) -> Chart:
    history, last = results.history, results.history.iloc[-1]
    best = history.loc[history["val_top1"].idxmax()]
    return Chart(
        "Learning curves",
        "Shaded epochs train and validate on smaller images, so a step at their end is no error. "
        "Training images are also cropped and mirrored, validation images are not.",
        f"After {last['epoch']:.0f} epochs {last['val_top1']:.1%} of the validation images are "
        f"right (best: {best['val_top1']:.1%} in epoch {best['epoch']:.0f}), and "
        f"{last['train_top1']:.1%} of the training images.",
        "figures/learning_curves.png",
        learning_curves(history),
    )


def _superclass_confusion(results: Results) -> Chart:
    counts, names = results.superclass_counts, _readable(results.classes.coarse)
    shares = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    mistakes = counts - np.diag(np.diag(counts))
    actual, taken_for = np.unravel_index(mistakes.argmax(), mistakes.shape)
    return Chart(
        "Superclass confusion",
        "Each row shows where the images of one superclass went. The diagonal is right.",
        f"Easiest: {names[shares.argmax()]} ({shares.max():.0%}). Hardest: "
        f"{names[shares.argmin()]} ({shares.min():.0%}). Most frequent mistake: {names[actual]} "
        f"taken for {names[taken_for]} ({mistakes.max()} images).",
        "figures/superclass_confusion.png",
        superclass_confusion(counts, results.classes.coarse),
    )


def _class_confusion(results: Results) -> Chart:
    coarse = np.array(results.classes.coarse_of_fine)
    wrong = results.predicted != results.labels
    inside = coarse[results.predicted] == coarse[results.labels]
    share = inside[wrong].mean() if wrong.any() else 0.0
    return Chart(
        "Class confusion",
        "Classes stand in the order of their superclass. Dark cells beside the diagonal, inside a "
        "square, are confusions of related classes.",
        f"Of {wrong.sum():,} mistakes {share:.0%} stay inside the superclass; by chance it would "
        "be about 4 %.",
        "figures/class_confusion.png",
        class_confusion(results.class_counts, results.classes),
    )


def _class_accuracy(results: Results) -> Chart:
    ranked = results.per_class.sort_values("top1", kind="stable")
    worst, best, names = ranked.iloc[0], ranked.iloc[-1], _readable(list(ranked["class"]))
    low, high = ranked["top1"].quantile([0.25, 0.75])
    return Chart(
        "Accuracy of each class",
        "One bar per class. Bars of one shade belong to one superclass; the legend has its mean.",
        f"From {names[0]} ({worst['top1']:.0%}) to {names[-1]} ({best['top1']:.0%}); the middle "
        f"half of the classes lies between {low:.0%} and {high:.0%}.",
        "figures/class_accuracy.png",
        class_accuracy(results.per_class),
    )


def _pairs(results: Results) -> Chart:
    pairs, names = results.pairs, results.classes.fine
    finding = "There is no mistake."
    if len(pairs):
        first = pairs.iloc[0]
        a, b = _readable([first["class_a"], first["class_b"]])
        wrong = int((results.predicted != results.labels).sum())
        finding = (
            f"First {a} and {b}: {first['images']} images. These {len(pairs)} pairs, of 4,950, "
            f"hold {pairs['images'].sum() / wrong:.0%} of all mistakes, and "
            f"{pairs['same_superclass'].mean():.0%} of them are relatives."
        )
    return Chart(
        "Most confused pairs",
        "Four images of each class of a pair, first those that were taken for the other class.",
        finding,
        "gallery/confused_pairs.png",
        pair_examples(results.images, results.labels, results.predicted, pairs, names),
    )


def _reliability(results: Results) -> Chart:
    raw = softmax(results.predictions.logits)
    before, after = (
        expected_calibration_error(each, results.labels, results.bins)
        for each in (raw, results.probabilities)
    )
    return Chart(
        "Reliability",
        "On the dashed line an answer of 70 % is right in 70 of 100 cases. Above it the network is "
        "too modest, below it too sure of itself.",
        f"The mean gap is {before:.1%}, and {after:.1%} once the logits are divided by the "
        f"temperature {results.predictions.temperature:.2f}, which the validation images gave.",
        "figures/reliability.png",
        reliability_diagram(*results.reliability),
    )


def _mistakes(results: Results) -> Chart:
    wrong = results.predicted != results.labels
    sure = int((results.probabilities.max(axis=1)[wrong] > 0.9).sum())
    return Chart(
        "Most confident mistakes",
        "Actual class above, answer and its calibrated probability below. Often two names fit.",
        f"{sure:,} of {wrong.sum():,} mistakes were made with a probability above 90 %.",
        "gallery/confident_mistakes.png",
        confident_mistakes(
            results.images,
            results.labels,
            results.probabilities,
            results.classes.fine,
            results.gallery_images,
        ),
    )


def _right_answers(results: Results) -> Chart:
    right = results.predicted == results.labels
    sure = int((results.probabilities.max(axis=1)[right] > 0.9).sum())
    return Chart(
        "Right answers",
        "For each superclass the images that the network was right about and most sure of.",
        f"{sure:,} of {right.sum():,} right answers were given with a probability above 90 %.",
        "gallery/right_answers.png",
        right_answers(results.images, results.labels, results.probabilities, results.classes),
    )


def _filters(results: Results) -> Chart:
    count, _, side, _ = results.filters.shape
    return Chart(
        "First filters",
        "What the first convolution responds to: a flat colour to that colour, two colours side by "
        "side to an edge between them.",
        f"{count} filters of {side}×{side} pixels.",
        "figures/first_filters.png",
        first_layer_filters(results.filters),
    )


def _readable(names: list[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]
