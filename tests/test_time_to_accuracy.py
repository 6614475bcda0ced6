import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from benchmarks import peer_recipe, time_to_accuracy
from stages.running.errors import PipelineError
from stages.training.loop import epoch_line
from tests.conftest import ROOT
from tests.pytorch import needs_torch


def test_peers_learning_rate_is_the_recipes_scaled():
    steps, warmup = 2000, 100
    rates = [peer_recipe.learning_rate(step, steps, warmup) for step in range(steps)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[99:600] == pytest.approx([0.1] * 501)
    for first, rate in ((600, 0.02), (1200, 0.004), (1600, 0.0008)):
        assert rates[first] == pytest.approx(rate)
        assert rates[first - 1] == pytest.approx(rate / 0.2)


def test_peers_augmentation_equals_pillows():
    """Crop with zeros, mirror and rotation, one image after another."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    top, left = rng.integers(-4, 5, (2, 8))
    mirror, degrees = np.arange(8) % 2 == 0, rng.uniform(-15, 15, 8)
    moved = peer_recipe.move(images, top, left, mirror, degrees)
    for i, image in enumerate(images):
        expected = ImageOps.expand(Image.fromarray(image.transpose(1, 2, 0)), 4)
        x, y = int(left[i]) + 4, int(top[i]) + 4
        expected = expected.crop((x, y, x + 32, y + 32))
        expected = ImageOps.mirror(expected) if mirror[i] else expected
        expected = expected.rotate(float(degrees[i]))
        equal = moved[i].transpose(1, 2, 0) == np.asarray(expected)
        assert equal.mean() > 0.99  # all but pixels halfway between two


def test_peers_augmentation_keeps_shape_and_type():
    images = np.full((4, 3, 32, 32), 255, np.uint8)
    moved = peer_recipe.augment(images, np.random.default_rng(0))
    assert moved.shape == images.shape
    assert moved.dtype == np.uint8
    assert set(np.unique(moved)) == {0, 255}


def test_plot_shows_both_runners(tmp_path):
    table = pd.DataFrame(
        [
            ("project", 1, 1.0, "val", 0.2),
            ("project", 2, 2.0, "val", 0.4),
            ("project", 2, 2.0, "test", 0.41),
            ("pytorch-cifar100", 1, 1.5, "val", 0.1),
            ("pytorch-cifar100", 1.4, 2.0, "val", 0.2),
            ("pytorch-cifar100", 1.4, 2.0, "test", 0.19),
        ],
        columns=["runner", "epoch", "minutes", "split", "top1"],
    )
    (axes,) = time_to_accuracy.plot(table).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "41.0%" in labels[0]
    assert "19.0%" in labels[1]
    assert len(axes.get_lines()) == 4


def test_curve_comes_from_the_lines_of_a_training(tmp_path):
    row = {"epoch": 1, "image_size": 24, "lr": 0.1}
    row |= {f"{split}_{score}": 0.5 for split in ("train", "val") for score in ("loss", "top1")}
    lines = [
        epoch_line(row | {"epoch": i}, 2, 330.0, seconds) for i, seconds in ((1, 126), (2, 240))
    ]
    log = tmp_path / "repro.log"
    log.write_text("\n".join(["Running stage 'train':", *lines, "evaluate: top1 0.41"]))
    (tmp_path / "reports").mkdir()
    timing = tmp_path / "reports/timing.json"
    timing.write_text('{"train_seconds": 241}')
    minutes = time_to_accuracy.finished_minutes(log, timing)
    assert minutes.tolist() == [2.1, 241 / 60]
    (tmp_path / "reports/metrics.json").write_text('{"top1": 0.41}')
    history = pd.DataFrame([row, row | {"epoch": 2, "val_top1": 0.6}])
    history.to_csv(tmp_path / "reports/history.csv", index=False)
    table = time_to_accuracy.curve(tmp_path, minutes)
    assert table["split"].tolist() == ["val", "val", "test"]
    assert table["minutes"].tolist() == [2.1, 241 / 60, 241 / 60]
    assert table["top1"].tolist() == [0.5, 0.6, 0.41]
    with pytest.raises(PipelineError, match=r"^1 epochs in the log, 2 in reports/history.csv"):
        time_to_accuracy.curve(tmp_path, np.array([2.1]))
    timing.write_text('{"train_seconds": 260}')
    with pytest.raises(PipelineError, match=r"no training of 4\.3 minutes"):
        time_to_accuracy.finished_minutes(log, timing)


@needs_torch
@pytest.mark.slow
def test_quick_time_to_accuracy_trains_both_for_the_same_time(workspace, tmp_path):
    (workspace.path / ".venv-bench").symlink_to(ROOT / ".venv-bench")
    command = [sys.executable, "-m", "benchmarks.time_to_accuracy", "--quick"]
    workspace.run(*command, "--output", str(tmp_path))
    table = pd.read_csv(tmp_path / "time_to_accuracy.csv")
    assert set(table["split"]) == {"val", "test"}
    minutes = table.groupby("runner")["minutes"].max()
    assert set(minutes.index) == {"project", "pytorch-cifar100"}
    assert minutes.max() < 2 * minutes.min()
    assert (tmp_path / "time_to_accuracy.png").is_file()
