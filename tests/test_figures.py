import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.figures.confusion import class_confusion, superclass_confusion, superclass_pairs
from stages.figures.curves import learning_curves
from stages.figures.gallery import confident_mistakes
from stages.figures.report import render_report
from stages.figures.style import save_figure
from stages.figures.tables import read_table
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


def test_report_shows_the_numbers_and_needs_no_other_file(tmp_path, classes):
    save_figure(learning_curves(HISTORY), tmp_path / "curves.png", 40)
    metrics = {
        "top1": 0.6789,
        "top5": 0.9,
        "superclass_top1": 0.8,
        "errors_in_superclass": 0.3,
        "loss": 1.25,
    }
    table = pd.DataFrame(
        {
            "class": ["<b>bold</b>", "b"],
            "superclass": ["c", "d"],
            "images": [10, 10],
            "top1": [0.9, 0.1],
            "top5": [1.0, 0.2],
            "superclass_top1": [1.0, 0.2],
            "taken_for": ["b", ""],
            "taken_for_images": [1, 0],
        }
    )
    page = render_report(
        metrics, [("Curves", "How to read", tmp_path / "curves.png")], table, HISTORY
    )
    assert "67.89 %" in page
    assert "&lt;b&gt;bold" in page
    assert page.index('<th scope="row">b<') < page.index("&lt;b&gt;bold")  # worst first
    assert 'src="data:image/png;base64,' in page
    assert not re.search(r'(src|href)="(?!data:)', page)


@pytest.mark.parametrize("content", ["", "a,b\n"])
def test_table_without_rows_is_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(PipelineError, match=r"table\.csv: "):
        read_table(path)
    with pytest.raises(PipelineError, match="not found"):
        read_table(tmp_path / "absent.csv")
