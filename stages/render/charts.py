"""The figures of the report, each with how to read it and what it shows in this run."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from cifar100.results.tables import readable
from stages.render.class_accuracy import class_accuracy
from stages.render.confusion import class_confusion, superclass_confusion
from stages.render.curves import learning_curves
from stages.render.filters import first_layer_filters
from stages.render.gallery import confident_errors, correct_predictions, pair_examples
from stages.render.reliability import reliability_diagram
from stages.render.results import Results, images_in_words
from stages.render.training import Training

CALIBRATED = 0.02  # distance of the temperature from 1 up to which a network is well calibrated


@dataclass(frozen=True)
class Chart:
    """A figure: its title, how to read it, what it shows in this run, and the name of its file.

    photos: whether it shows images of the data set, which must stay out of Git · in_report: whether
    there is anything to see in this run.
    """

    title: str
    how_to_read: str
    finding: str
    name: str
    figure: Figure
    photos: bool = False
    in_report: bool = True

    @property
    def file(self) -> str:
        """The path below reports/."""
        return f"{'gallery' if self.photos else 'figures'}/{self.name}.png"


def charts(results: Results, training: Training) -> Iterator[Chart]:
    """All figures of a run; galleries without an image are left out."""
    any_correct = results.errors < len(results.predictions.labels)
    yield _learning_curves(results, training)
    yield _superclass_confusion(results)
    yield _class_confusion(results)
    yield _class_accuracy(results)
    if results.errors:
        yield _pairs(results)
    yield _reliability(results)
    if results.errors:
        yield _confident_errors(results)
    if any_correct:
        yield _correct_predictions(results)
    yield _filters(results)


def _learning_curves(results: Results, training: Training) -> Chart:
    history, last = results.history, results.history.iloc[-1]
    best = history.loc[history["val_top1"].idxmax()]
    shaded = (
        "Shaded epochs train and validate on smaller images, so a step at their end is no error. "
    )
    better = f" ({best['val_top1']:.1%} after epoch {best['epoch']:.0f})"
    return Chart(
        "Learning curves",
        f"{shaded if history['image_size'].nunique() > 1 else ''}"
        f"Training images are {_augmentation(training)}.",
        f"After epoch {last['epoch']:.0f} the network is correct on {last['val_top1']:.1%} of the "
        f"validation images{better if best['val_top1'] > last['val_top1'] else ''} and on "
        f"{last['train_top1']:.1%} of the training images.",
        "learning_curves",
        learning_curves(
            history,
            augmented=bool(training.augmentations),
            smoothed=training.numbers["label_smoothing"] > 0,
        ),
    )


def _augmentation(training: Training) -> str:
    if not training.augmentations:
        return "not changed, and neither are validation images"
    *first, last = training.augmentations
    words = f"{', '.join(first)} and {last}" if first else last
    lower = "; mixing lowers the training accuracy" if training.mixed else ""
    return f"also {words}, validation images are not{lower}"


def _superclass_confusion(results: Results) -> Chart:
    counts, names = results.superclass_counts, [*map(readable, results.classes.coarse)]
    shares = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    errors = counts - np.diag(np.diag(counts))
    actual, predicted = np.unravel_index(errors.argmax(), errors.shape)
    finding = "No image was taken for another superclass."
    if errors.any():
        finding = (
            f"Easiest: {names[shares.argmax()]} ({shares.max():.0%}). Hardest: "
            f"{names[shares.argmin()]} ({shares.min():.0%}). Most frequent error: {names[actual]} "
            f"taken for {names[predicted]} ({images_in_words(errors.max())})."
        )
    return Chart(
        "Superclass confusion",
        "Each row shows how the images of one superclass were classified. The diagonal is correct.",
        finding,
        "superclass_confusion",
        superclass_confusion(counts, results.classes.coarse),
        in_report=bool(errors.any()),
    )


def _class_confusion(results: Results) -> Chart:
    share = results.scores.metrics["errors_in_superclass"]
    return Chart(
        "Class confusion",
        "One cell per pair of classes, in the order of their superclasses: faint cells are single "
        "images, dark cells are habits. Cells inside a square confuse related classes. Correct "
        "predictions are the grey diagonal.",
        f"{share:.0%} of the {results.errors:,} errors stay inside the superclass; by chance it "
        "would be about 4 %.",
        "class_confusion",
        class_confusion(results.class_counts, results.classes),
        in_report=results.errors > 0,
    )


def _class_accuracy(results: Results) -> Chart:
    ranked = results.scores.per_class.sort_values("top1", kind="stable")
    worst, best = ranked.iloc[0], ranked.iloc[-1]
    return Chart(
        "Accuracy of each class",
        "One row per superclass, the best at the top, with a dot for each of its classes. A dot "
        "far from the others is a class that is much easier or harder than its relatives.",
        f"Hardest: {readable(worst['class'])} ({worst['top1']:.0%}). "
        f"Easiest: {readable(best['class'])} ({best['top1']:.0%}).",
        "class_accuracy",
        class_accuracy(results.scores.per_class),
        in_report=results.errors > 0,
    )


def _pairs(results: Results) -> Chart:
    pairs, predictions = results.scores.confused_pairs, results.predictions
    first, related = pairs.iloc[0], int(pairs["same_superclass"].sum())
    return Chart(
        "Most confused pairs",
        "Four images of each class of a pair, first those that were taken for the other class.",
        f"Most often confused: {readable(first['class_a'])} and {readable(first['class_b'])} "
        f"({images_in_words(first['images'])}). The pairs shown account for "
        f"{pairs['images'].sum():,} of the {results.errors:,} errors; {related} of {len(pairs)} "
        "are in one superclass.",
        "confused_pairs",
        pair_examples(results.images, predictions, pairs, results.classes.fine),
        photos=True,
    )


def _reliability(results: Results) -> Chart:
    metrics, temperature = results.scores.metrics, results.predictions.temperature
    tendency = "well calibrated"
    if abs(temperature - 1) > CALIBRATED:
        tendency = "overconfident" if temperature > 1 else "underconfident"
    return Chart(
        "Reliability",
        "On the dashed line predictions with a probability of 70 % are correct in 70 of 100 cases. "
        "Below it the network is overconfident, above it underconfident.",
        f"The mean gap is {metrics['calibration_error']:.1%}, and "
        f"{metrics['calibrated_error']:.1%} after calibration: the logits are divided by the "
        f"temperature {temperature:.2f}, which was fitted on the validation images, where the "
        f"network was {tendency}.",
        "reliability",
        reliability_diagram(results.scores.reliability),
    )


def _confident_errors(results: Results) -> Chart:
    share = results.scores.metrics["confident_errors"]
    return Chart(
        "Most confident errors",
        "The actual class, and the predicted class with its calibrated probability; often both "
        "names fit. Beside each image are its class activation maps (Zhou et al., 2016) for both "
        "classes, on one scale: orange parts speak for the class, blue parts against it.",
        f"{share:.1%} of the test images are classified wrongly with a probability above 90 %."
        if share
        else "No error was made with a probability above 90 %.",
        "confident_errors",
        confident_errors(
            results.images,
            results.predictions,
            results.class_maps,
            results.classes.fine,
            results.gallery_images,
        ),
        photos=True,
    )


def _correct_predictions(results: Results) -> Chart:
    correct = len(results.predictions.labels) - results.errors
    return Chart(
        "Most confident correct predictions",
        "For each superclass the correctly classified images with the highest probability.",
        f"{correct:,} of {len(results.predictions.labels):,} test images are classified correctly.",
        "correct_predictions",
        correct_predictions(results.images, results.predictions, results.classes),
        photos=True,
    )


def _filters(results: Results) -> Chart:
    count, _, side, _ = results.filters.shape
    return Chart(
        "First filters",
        "What the first convolution responds to: a flat colour to that colour, two colours side by "
        "side to an edge between them.",
        f"{count} filters of {side}×{side} pixels.",
        "first_filters",
        first_layer_filters(results.filters),
    )
