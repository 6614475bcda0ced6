import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from stages.evaluation.predictions import Predictions, class_table
from stages.figures.charts import charts
from stages.figures.class_accuracy import class_accuracy
from stages.figures.confusion import class_confusion, superclass_confusion, superclass_pairs
from stages.figures.curves import learning_curves
from stages.figures.filters import first_layer_filters
from stages.figures.gallery import confident_mistakes
from stages.figures.reliability import reliability_diagram
from stages.figures.results import Results
from stages.figures.style import save_figure
from stages.figures.tables import describe_training, read_table
from stages.running.errors import PipelineError

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


@pytest.fixture
def results(samples, classes) -> Results:
    """Of 500 images, most of them answered wrongly."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (500, 100)).astype(np.float32)
    logits[np.arange(500), samples.fine] += 2
    return Results(
        images=samples.images,
        predictions=Predictions(logits, samples.fine, 0.9),
        classes=classes,
        history=HISTORY,
        per_class=class_table(logits, samples.fine, classes),
        filters=rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        bins=15,
        gallery_images=6,
    )


def test_figures_are_written_with_the_same_bytes_each_time(tmp_path, counts, classes):
    for name in ("one", "two"):
        save_figure(learning_curves(HISTORY), tmp_path / name / "curves.png", 50)
        save_figure(class_confusion(counts, classes), tmp_path / name / "classes.png", 50)
        coarse = superclass_confusion(counts[:20, :20], classes.coarse)
        save_figure(coarse, tmp_path / name / "superclasses.png", 50)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
        assert Image.open(path).size[0] > 400


def test_class_confusion_is_ordered_by_superclass(counts, classes):
    shown = class_confusion(counts, classes).axes[0].images[0].get_array()
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


def test_confusions_of_an_empty_class_and_without_mistakes_are_drawn(tmp_path, classes):
    counts = np.zeros((100, 100), np.int64)
    save_figure(class_confusion(counts, classes), tmp_path / "a.png", 40)
    save_figure(superclass_confusion(counts[:20, :20], classes.coarse), tmp_path / "b.png", 40)
    images = np.zeros((100, 3, 32, 32), np.uint8)
    gallery = confident_mistakes(images, np.arange(100), np.eye(100), classes.fine, 6)
    save_figure(gallery, tmp_path / "c.png", 40)
    assert "No mistakes" in gallery.get_suptitle()


def test_superclass_pairs_have_a_row_per_image(classes):
    pairs = superclass_pairs(np.array([0, 21]), np.array([20, 2]), classes)
    assert pairs.to_dict("list") == {
        "actual": ["superclass 00", "superclass 01"],
        "predicted": ["superclass 00", "superclass 02"],
    }


def test_gallery_shows_the_most_confident_mistakes_first(classes):
    labels = np.array([0, 1, 2, 3])
    probabilities = np.full((4, 100), 0.001)
    for row, (answer, value) in enumerate([(0, 0.99), (5, 0.7), (6, 0.9), (7, 0.8)]):
        probabilities[row, answer] = value
    images = np.zeros((4, 3, 32, 32), np.uint8)
    figure = confident_mistakes(images, labels, probabilities, classes.fine, 2)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["class 02", "class 03"]


def test_names_of_classes_that_are_always_right_keep_off_the_title():
    names = [f"yellow triangle on stripes {i}" for i in range(30)]
    table = pd.DataFrame({"class": names, "superclass": "triangles", "top1": 1.0})
    figure = class_accuracy(table)
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent() for text in figure.findobj(Text)}
    (title,) = [extent for text, extent in texts.items() if text.startswith("Top-1")]
    assert not any(texts[name].overlaps(title) for name in names[:10] + names[-10:])


def test_class_accuracy_is_sorted_and_names_both_ends(classes):
    rng = np.random.default_rng(0)
    superclasses = [classes.coarse[i] for i in classes.coarse_of_fine]
    table = pd.DataFrame({"class": classes.fine, "superclass": superclasses})
    table["top1"] = rng.permutation(np.linspace(0.2, 0.9, 100))
    (axes,) = class_accuracy(table).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == sorted(table["top1"], reverse=True)
    ranked = table.sort_values("top1", ascending=False)["class"].tolist()
    assert [text.get_text() for text in axes.texts] == ranked[:10] + ranked[-10:]


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
    accuracy, _ = reliability_diagram(table, table).axes
    assert [line.get_ydata().tolist() for line in accuracy.get_lines()[1:]] == [[0.7], [0.7]]


def test_every_filter_is_drawn():
    weights = np.random.default_rng(0).normal(size=(20, 3, 3, 3)).astype(np.float32)
    figure = first_layer_filters(weights)
    assert sum(bool(axes.images) for axes in figure.axes) == 20


def test_charts_say_what_the_run_shows(results):
    found = {chart.title: chart for chart in charts(results)}
    assert len(found) == 9
    wrong = results.predicted != results.labels
    assert f"Of {wrong.sum():,} mistakes" in found["Class confusion"].finding
    assert "40.0% of the validation images" in found["Learning curves"].finding
    assert f"{results.pairs['images'].iloc[0]} images" in found["Most confused pairs"].finding
    for chart in found.values():
        assert not re.search("nan|inf", chart.finding)
        assert chart.file.startswith("gallery/") == (
            chart.title in ("Most confused pairs", "Most confident mistakes", "Right answers")
        )


def test_charts_of_a_run_without_mistakes_are_drawn(results):
    perfect = 20 * np.eye(100, dtype=np.float32)[results.labels]
    flawless = replace(results, predictions=Predictions(perfect, results.labels, 1.0))
    found = {chart.title: chart.finding for chart in charts(flawless)}
    assert found["Most confused pairs"] == "There is no mistake."
    assert "Of 0 mistakes" in found["Class confusion"]


@pytest.mark.parametrize("content", ["", "a,b\n"])
def test_table_without_rows_is_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(PipelineError, match=r"table\.csv: "):
        read_table(path)
    with pytest.raises(PipelineError, match="not found"):
        read_table(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("metric,value,low\ntop1,0.7,0.6\n", "has no column high"),
        ("metric,value,low,high\ntop1,0.7,much,0.8\n", "column low: expected numbers"),
    ],
)
def test_table_that_someone_changed_is_refused(tmp_path, content, reason):
    path = tmp_path / "intervals.csv"
    path.write_text(content)
    with pytest.raises(PipelineError, match=rf"intervals\.csv: {reason}"):
        read_table(path)


DESCRIPTION = {
    "network": {"depth": 18, "width": 32, "stem": "cifar"},
    "training": {"params": {"seed": 0, "lr": 0.1}, "images": 48000, "validation_images": 2000},
}
SUMMARY = pd.DataFrame({"parameters": [2_820_000], "multiply_adds": [140_000_000]})


def test_training_is_described_in_words(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(DESCRIPTION))
    words = describe_training(path, SUMMARY, HISTORY)
    assert words["Network"] == "ResNet-18, width 32, stem cifar"
    assert words["Training images"] == "48,000, and 2,000 for validation"
    assert words["All params of the stage train"] == "seed 0, lr 0.1"
    path.unlink()
    with pytest.raises(PipelineError, match=r"model\.json: not found"):
        describe_training(path, SUMMARY, HISTORY)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"network": []}',
        json.dumps(DESCRIPTION | {"network": None}),
        json.dumps(DESCRIPTION | {"training": {"params": ["seed"]}}),
        json.dumps(DESCRIPTION | {"training": {"params": {}}}),
        json.dumps(DESCRIPTION | {"training": {"params": {"seed": 0}, "images": "many"}}),
    ],
)
def test_damaged_description_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(PipelineError, match=r"^\S+model\.json: not the description .+\)$"):
        describe_training(path, SUMMARY, HISTORY)
