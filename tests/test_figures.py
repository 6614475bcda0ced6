import dataclasses
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from cifar100.class_activation.overlay import overlay
from cifar100.dataset.splits import load_split, save_split
from cifar100.results.class_maps import mapped_errors
from cifar100.results.predictions import Predictions
from cifar100.running.errors import PipelineError
from stages.evaluate.scoring import score
from stages.render.charts import charts
from stages.render.class_accuracy import class_accuracy, spread
from stages.render.confusion import class_confusion, superclass_confusion
from stages.render.curves import learning_curves
from stages.render.filters import first_layer_filters
from stages.render.gallery import confident_errors, correct_predictions
from stages.render.main import main as render
from stages.render.reliability import reliability_diagram
from stages.render.report import render_report, verdict
from stages.render.results import Results
from stages.render.style import save_figure
from stages.render.training import (
    Training,
    augmentations_of,
    numbers_of,
)

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "lr": [0.1, 0.05, 0.0],
        "image_size": [16, 24, 32],
        "train_loss": [4.0, 3.0, 2.0],
        "train_top1": [0.1, 0.3, 0.5],
        "val_loss": [4.1, 3.1, 2.1],
        "val_top1": [0.1, 0.2, 0.4],
        "val_top5": [0.2, 0.4, 0.6],
    }
)


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 50, (100, 100))


def some_maps(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2, 4, 4)).astype(np.float32)


def of_predictions(logits, samples, classes, temperature=0.9) -> Results:
    predictions = Predictions(logits, samples.fine, temperature)
    return Results(
        images=samples.images,
        predictions=predictions,
        classes=classes,
        scores=score(predictions, classes, 15),
        history=HISTORY,
        filters=np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32),
        class_maps=some_maps(len(mapped_errors(predictions))),
        gallery_images=6,
    )


@pytest.fixture
def results(samples, classes) -> Results:
    """Of 500 images, most of them classified wrongly."""
    logits = np.random.default_rng(0).normal(0, 1, (500, 100)).astype(np.float32)
    logits[np.arange(500), samples.fine] += 2
    return of_predictions(logits, samples, classes)


@pytest.fixture
def perfect(samples, classes) -> Results:
    """Without an error."""
    return of_predictions(20 * np.eye(100, dtype=np.float32)[samples.fine], samples, classes, 1.0)


@pytest.fixture
def untrained(samples, classes) -> Results:
    """All images get the same prediction, with hardly any confidence."""
    logits = np.zeros((500, 100), np.float32)
    logits[:, 7] = 0.1
    return of_predictions(logits, samples, classes)


TRAINING = Training({}, {}, numbers_of({}), augmentations_of({}))  # with the default params


@pytest.mark.medium
def test_figures_are_written_with_the_same_bytes_each_time(tmp_path, counts, classes):
    for name in ("one", "two"):
        save_figure(
            learning_curves(HISTORY, augmented=True, smoothed=True),
            tmp_path / name / "curves.png",
            50,
        )
        save_figure(class_confusion(counts, classes), tmp_path / name / "classes.png", 50)
        coarse = superclass_confusion(counts[:20, :20], classes.coarse)
        save_figure(coarse, tmp_path / name / "superclasses.png", 50)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert Image.open(path).size[0] > 400


def test_class_confusion_is_ordered_by_superclass(counts, classes):
    shown = class_confusion(counts, classes).axes[0].images[-1].get_array()
    # Classes 0, 20, 40, 60 and 80 form the first superclass, 1, 21 and so on the second.
    assert shown[1, 5] == counts[20, 1]
    assert shown[99, 0] == counts[99, 0]


def test_superclass_confusion_shows_shares_of_rows(classes):
    counts = np.eye(20, dtype=np.int64) * 30
    counts[3, 4] = 10
    axes = superclass_confusion(counts, classes.coarse).axes[0]
    assert axes.images[0].get_array()[3, 4] == pytest.approx(0.25)
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[(4, 3)] == "25"
    assert cells[(3, 3)] == "75"


def test_confusions_of_an_empty_class_and_without_errors_are_drawn(tmp_path, classes):
    counts = np.zeros((100, 100), np.int64)
    save_figure(class_confusion(counts, classes), tmp_path / "a.png", 40)
    save_figure(superclass_confusion(counts[:20, :20], classes.coarse), tmp_path / "b.png", 40)


def test_habits_stand_out_from_single_images(counts, classes):
    """On a white page: what happened once is nearly white, what happened often is dark."""
    counts[:] = 1
    counts[3, 23], counts[5, 6] = 25, 8
    figure = class_confusion(counts, classes)
    image = figure.axes[0].images[-1]
    lightness = {
        n: image.cmap(image.norm(n))[:3] @ np.array([0.299, 0.587, 0.114]) for n in (1, 8, 25)
    }
    assert lightness[1] > 0.85
    assert lightness[25] < lightness[8] - 0.4
    assert lightness[8] < lightness[1] - 0.15
    assert image.get_array().mask.diagonal().all()  # the correct predictions have no colour


def test_single_images_are_faint_also_where_nothing_happened_twice(counts, classes):
    counts[:] = 1
    image = class_confusion(counts, classes).axes[0].images[-1]
    assert image.cmap(image.norm(1))[:3] @ np.array([0.299, 0.587, 0.114]) > 0.85


def test_gallery_shows_the_most_confident_errors_first_with_the_maps_of_both_classes(classes):
    logits = np.zeros((4, 100), np.float32)
    for row, (predicted, value) in enumerate([(0, 9), (5, 6), (6, 8), (7, 7)]):
        logits[row, predicted] = value
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    predictions, maps = Predictions(logits, np.arange(4), 1.0), some_maps(3)
    figure = confident_errors(images, predictions, maps, classes.fine, 2)
    shown = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title("left").splitlines() for axes in shown]
    assert titles == [
        ["class 02", f"taken for class 06, {predictions.confidence[2]:.0%}"],
        ["class 03", f"taken for class 07, {predictions.confidence[3]:.0%}"],
    ]
    for axes, image, of_image in zip(shown, images[2:], maps, strict=False):
        assert [text.get_text() for text in axes.texts] == ["image", "predicted", "actual"]
        left, middle, right = (
            axes.images[0].get_array()[:, start : start + 128] for start in (0, 136, 272)
        )
        np.testing.assert_array_equal(left[::4, ::4], image.transpose(1, 2, 0))
        strongest = abs(of_image).max()  # so the two can be compared
        np.testing.assert_array_equal(middle, overlay(image, of_image[0], 128, strongest))
        np.testing.assert_array_equal(right, overlay(image, of_image[1], 128, strongest))


def test_gallery_shows_the_most_confident_correct_predictions_side_by_side(classes):
    """Of the superclass of class 0, which has one of the three images wrong; the rest is white."""
    logits = np.zeros((3, 100), np.float32)
    for row, (predicted, value) in enumerate([(0, 6), (0, 8), (99, 9)]):
        logits[row, predicted] = value
    images = np.random.default_rng(1).integers(0, 255, (3, 3, 32, 32), dtype=np.uint8)
    predictions = Predictions(logits, np.zeros(3, np.int64), 1.0)
    figure = correct_predictions(images, predictions, classes)
    ((picture,),) = [axes.images for part in figure.subfigs for axes in part.axes if axes.images]
    shown = picture.get_array()
    assert shown.shape == (32, 8 * 32 + 7 * 4, 3)
    np.testing.assert_array_equal(shown[:, :32], images[1].transpose(1, 2, 0))
    np.testing.assert_array_equal(shown[:, 36:68], images[0].transpose(1, 2, 0))
    assert (shown[:, 32:36] == 255).all()
    assert (shown[:, 68:] == 255).all()


SLOW = pytest.mark.slow


@pytest.mark.medium
@pytest.mark.parametrize(
    "top1", [*(pytest.param(top1, marks=SLOW) for top1 in (0.0, 0.7, 1.0)), "spread"]
)
def test_names_of_classes_overlap_neither_each_other_nor_the_border(top1):
    """Also where all classes are equally good, and names are as long as those of synthetic data."""
    names = [f"yellow triangle on stripes {i}" for i in range(100)]
    table = pd.DataFrame({"class": names, "superclass": [f"shapes {i % 20}" for i in range(100)]})
    rng = np.random.default_rng(0)
    table["top1"] = rng.integers(30, 95, 100) / 100 if top1 == "spread" else top1
    figure = class_accuracy(table)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert sorted(text.get_text() for text in axes.texts) == sorted(names)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert min(box.x0 for box in boxes) >= axes.bbox.x0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    (title,) = [t for t in figure.findobj(Text) if t.get_text().startswith("Top-1")]
    assert not any(title.get_window_extent().overlaps(box) for box in boxes)


@pytest.mark.medium
def test_class_accuracy_has_a_row_per_superclass_the_best_at_the_top(classes):
    superclasses = [classes.coarse[i] for i in classes.coarse_of_fine]
    table = pd.DataFrame({"class": classes.fine, "superclass": superclasses})
    table["top1"] = np.random.default_rng(0).permutation(np.linspace(0.2, 0.9, 100))
    (axes,) = class_accuracy(table).axes
    rows = [line for line in axes.get_lines() if line.get_marker() == "o"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    means = table.groupby("superclass")["top1"].mean()
    assert labels == means.sort_values(kind="stable").index.tolist()
    for height, (line, name) in enumerate(zip(rows, labels, strict=True)):
        assert set(line.get_ydata()) == {height}
        mine = table.loc[table["superclass"] == name, "top1"]
        assert line.get_xdata().tolist() == sorted(mine)
    assert {text.get_text(): text.xy[0] for text in axes.texts} == dict(
        zip(table["class"], table["top1"], strict=True)
    )


def test_spread_moves_only_what_overlaps():
    widths = np.array([10.0, 10, 10])
    np.testing.assert_allclose(spread(np.array([10.0, 40, 70]), widths, 100), [10, 40, 70])
    np.testing.assert_allclose(spread(np.array([40.0, 40, 40]), widths, 100), [30, 40, 50])
    np.testing.assert_allclose(spread(np.array([0.0, 0, 60]), widths, 100), [5, 15, 60])
    np.testing.assert_allclose(spread(np.array([99.0, 99, 99]), widths, 100), [75, 85, 95])
    assert spread(np.array([]), np.array([]), 100).size == 0


def test_reliability_diagram_leaves_empty_bins_out():
    table = pd.DataFrame(
        {
            "from": [0.0, 0.5],
            "to": [0.5, 1.0],
            "images": [0, 10],
            "confidence": [0.0, 0.8],
            "top1": [0.0, 0.7],
        }
    )
    table = pd.concat([table.assign(calibrated=False), table.assign(calibrated=True)])
    accuracy, _ = reliability_diagram(table).axes
    assert [line.get_ydata().tolist() for line in accuracy.get_lines()[1:]] == [[0.7], [0.7]]
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["perfect calibration", "before calibration", "after calibration"]


def test_every_filter_is_drawn():
    weights = np.random.default_rng(0).normal(size=(20, 3, 3, 3)).astype(np.float32)
    figure = first_layer_filters(weights)
    assert sum(bool(axes.images) for axes in figure.axes) == 20


@pytest.mark.medium
def test_charts_say_what_the_run_shows(results):
    found = {chart.title: chart for chart in charts(results, TRAINING)}
    assert len(found) == 9
    assert all(chart.in_report for chart in found.values())
    wrong = results.predictions.predicted != results.predictions.labels
    assert f"of the {wrong.sum():,} errors" in found["Class confusion"].finding
    assert "40.0% of the validation images" in found["Learning curves"].finding
    assert found["Learning curves"].how_to_read.startswith("Shaded epochs")
    pairs = results.scores.confused_pairs
    assert f"({pairs['images'].iloc[0]} images)" in found["Most confused pairs"].finding
    for chart in found.values():
        assert not re.search("nan|inf", chart.finding)
        assert chart.photos == (chart.file.split("/")[0] == "gallery")
        assert chart.photos == (
            chart.name in ("confused_pairs", "confident_errors", "correct_predictions")
        )


def page_of(results, drawn, tmp_path) -> str:
    for chart in drawn:
        save_figure(chart.figure, tmp_path / chart.file, 40)
    return render_report(results, drawn, TRAINING, tmp_path)


@pytest.mark.slow
def test_report_of_a_run_without_errors_says_so_and_shows_no_empty_chart(perfect, tmp_path):
    drawn = list(charts(perfect, TRAINING))
    assert {chart.title for chart in drawn if chart.in_report} == {
        "Learning curves",
        "Reliability",
        "Most confident correct predictions",
        "First filters",
    }
    page = page_of(perfect, drawn, tmp_path)
    assert "No test image was classified wrongly" in page
    assert not re.search(r"\b0 (images|errors|mistakes)|Look at errors|nan\b", page)
    # DVC wants the figures of every run.
    assert (tmp_path / "figures/class_confusion.png").exists()


@pytest.mark.medium
def test_report_of_a_run_that_learned_nothing_says_so(untrained, tmp_path):
    drawn = list(charts(untrained, TRAINING))
    assert "no better than chance" in page_of(untrained, drawn, tmp_path)
    findings = " ".join(chart.finding for chart in drawn)
    assert not re.search(r"\b0 (images|errors)|nan\b", findings)
    assert "No error was made with a probability above 90 %." in findings


def test_report_of_an_ordinary_run_has_no_verdict(results):
    assert verdict(results) == ""


@pytest.mark.medium
def test_run_in_which_nothing_is_correct_has_no_gallery_of_correct_predictions(samples, classes):
    logits = 20 * np.eye(100, dtype=np.float32)[(samples.fine + 1) % 100]
    wrong = {
        chart.title: chart for chart in charts(of_predictions(logits, samples, classes), TRAINING)
    }
    assert "Most confident correct predictions" not in wrong
    assert "Most confident errors" in wrong


@pytest.mark.slow
def test_one_error_is_told_in_the_singular(samples, classes):
    logits = 20 * np.eye(100, dtype=np.float32)[samples.fine]
    logits[0] = np.roll(logits[0], 20)  # to a class of the same superclass
    found = {c.title: c for c in charts(of_predictions(logits, samples, classes), TRAINING)}
    assert "(1 image)" in found["Most confused pairs"].finding
    assert not found["Superclass confusion"].in_report  # all is on the diagonal


def test_predictions_of_other_test_images_are_refused(workspace, monkeypatch):
    """As after running *preprocess* alone on other data."""
    monkeypatch.chdir(workspace.path)
    path = Path("data/processed/test.npz")
    samples = load_split(path)
    path.unlink()  # it may be a link into DVC's cache
    save_split(path, dataclasses.replace(samples, fine=np.roll(samples.fine, 1)))
    with pytest.raises(PipelineError, match=r"test\.npz: of other images than .*; run `dvc repro`"):
        render()


@pytest.mark.medium
def test_intervals_without_the_top1_are_refused(workspace):
    path = workspace.path / "reports/intervals.csv"
    rows = path.read_text().splitlines(keepends=True)
    path.unlink()  # it may be a link into DVC's cache
    path.write_text("".join(row for row in rows if not row.startswith("top1,")))
    output = workspace.run(sys.executable, "-m", "stages.render", ok=False)
    assert output.strip().splitlines()[-1] == (
        "error: render: reports/intervals.csv: expected one row of metric top1; run `dvc repro`"
    )
    assert "Traceback" not in output


@pytest.mark.medium
@pytest.mark.parametrize(
    ("params", "how_to_read", "labels"),
    [
        (
            {},
            "Training images are also cropped and mirrored, validation images are not.",
            ["training (augmented)", "training (smoothed)"],
        ),
        (
            {"crop_padding": 0, "flip": False, "label_smoothing": 0.0},
            "Training images are not changed, and neither are validation images.",
            ["training", "training"],
        ),
        (
            {"mixup": 0.2, "cutmix": 0.3},
            "Training images are also cropped, mirrored and mixed in 50% of the batches, "
            "validation images are not; mixing lowers the training accuracy.",
            ["training (augmented)", "training (smoothed)"],
        ),
    ],
)
def test_learning_curves_say_what_was_done_to_the_training_images(
    results, params, how_to_read, labels
):
    training = Training({}, {}, numbers_of(params), augmentations_of(params))
    chart = next(charts(results, training))
    assert chart.how_to_read.endswith(how_to_read)
    accuracy, loss, _ = chart.figure.axes
    shown = [axes.get_legend().get_texts()[0].get_text() for axes in (accuracy, loss)]
    assert shown == labels
