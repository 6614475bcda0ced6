import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from benchmarks import peer_recipe, time_to_accuracy
from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from stages.train.params import TrainParameters
from tests.conftest import ROOT
from tests.pytorch import TORCH_PYTHON, needs_torch


def test_peers_learning_rate_is_the_recipes_scaled():
    steps, warmup = 2000, 100
    rates = [peer_recipe.learning_rate(step, warmup, step / steps) for step in range(steps)]
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


def test_plot_shows_both_runners():
    table = pd.DataFrame(
        [
            ("project", 1, 1.0, "val", 0.2, "bfloat16"),
            ("project", 2, 2.0, "val", 0.4, "bfloat16"),
            ("project", 2, 2.0, "test", 0.41, "bfloat16"),
            ("pytorch-cifar100", 1, 1.5, "val", 0.1, "float32"),
            ("pytorch-cifar100", 1.4, 2.0, "val", 0.2, "float32"),
            ("pytorch-cifar100", 1.4, 2.0, "test", 0.19, "float32"),
        ],
        columns=["runner", "epoch", "minutes", "split", "top1", "precision"],
    )
    (axes,) = time_to_accuracy.plot(table).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "bfloat16: 41.0%" in labels[0]
    assert "float32: 19.0%" in labels[1]
    assert len(axes.get_lines()) == 4


def test_curve_comes_from_the_reports_of_a_training(tmp_path):
    timing = {"train_seconds": 241, "epoch_seconds": [126.0, 240.6], "precision": "bfloat16"}
    (tmp_path / "timing.json").write_text(json.dumps(timing))
    (tmp_path / "metrics.json").write_text('{"top1": 0.41}')
    history = pd.DataFrame({"epoch": [1, 2], "val_loss": [3.0, 2.0], "val_top1": [0.5, 0.6]})
    history.to_csv(tmp_path / "history.csv", index=False)
    table = time_to_accuracy.curve(tmp_path)
    assert table["epoch"].tolist() == [1, 2, 2]
    assert table["minutes"].tolist() == pytest.approx([2.1, 4.01, 4.01])
    assert table["split"].tolist() == ["val", "val", "test"]
    assert table["top1"].tolist() == [0.5, 0.6, 0.41]
    assert set(table["precision"]) == {"bfloat16"}


def test_network_of_other_reports_is_refused(workspace, monkeypatch):
    monkeypatch.chdir(workspace.path)
    params = load(TrainParameters)
    time_to_accuracy.check_trained(params)
    with pytest.raises(PipelineError, match=r"params\.yaml: width is 200, but \d+ in the run that"):
        time_to_accuracy.check_trained(params.replace(width=200))


def test_quick_run_takes_nothing_from_reports():
    command = [sys.executable, "-m", "benchmarks.time_to_accuracy", "--quick", "--from-reports"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--quick trains both" in done.stderr


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
    assert minutes.max() < 1.5 * minutes.min()
    assert table["precision"].isin(["float32", "bfloat16"]).all()
    assert (tmp_path / "time_to_accuracy.png").is_file()


@needs_torch
@pytest.mark.slow
def test_peer_sees_its_whole_schedule_in_the_time_that_it_has(tmp_path):
    """Whatever the speed of the machine: many epochs of two steps in ten seconds."""
    rng = np.random.default_rng(0)
    for name in ("train", "val", "test"):
        images = rng.integers(0, 256, (256, 3, 32, 32), dtype=np.uint8)
        fine = rng.integers(0, 100, 256)
        np.savez(tmp_path / f"{name}.npz", images=images, fine=fine)
    command = [TORCH_PYTHON, "-m", "benchmarks.run_peer", f"--data={tmp_path}", "--seconds=10"]
    command += ["--depth=20", "--width=4", f"--output={tmp_path / 'peer.csv'}"]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    rates = [float(rate) for rate in re.findall(r"lr ([\d.]+)", printed)]
    assert rates[0] == 0.1
    assert rates[-1] == 0.0008
    assert rates == sorted(rates, reverse=True)
    assert set(rates) <= {0.1, 0.02, 0.004, 0.0008}
    minutes = pd.read_csv(tmp_path / "peer.csv")["minutes"]
    assert minutes.is_monotonic_increasing
    assert minutes.iloc[-1] >= 10 / 60
