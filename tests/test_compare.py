"""`python -m tools.compare` on real revisions and experiments."""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cifar100.results.predictions import Predictions
from stages.evaluate.metrics import scores_per_image
from tools.comparison.revisions import Revision
from tools.comparison.tables import class_differences, metric_differences


def revision(name, classes, right: np.ndarray) -> Revision:
    """One whose answers to 2,000 images are right where `right` says."""
    labels = np.arange(2000) % 100
    logits = np.zeros((2000, 100), np.float32)
    logits[np.arange(2000), np.where(right, labels, (labels + 1) % 100)] = 5
    scores = scores_per_image(logits, labels, np.array(classes.coarse_of_fine))
    metrics = {"top1": float(right.mean()), "calibration_error": 0.1}
    return Revision(name, Predictions(logits, labels, 1.0), scores, metrics, pd.DataFrame())


def test_paired_difference_is_significant_where_the_single_intervals_overlap(classes):
    """20 more right answers to the very same images: a small gain, and a sure one."""
    rng = np.random.default_rng(0)
    before = rng.random(2000) < 0.7
    after = before.copy()
    after[np.flatnonzero(~before)[:20]] = True
    table = metric_differences(revision("a", classes, before), revision("b", classes, after))
    row = table.set_index("metric").loc["top1"]
    assert row["difference"] == pytest.approx(0.01)
    assert row["low"] < 0.01 < row["high"]
    assert row["significant"] == "yes"
    other = rng.permutation(before)
    table = metric_differences(revision("a", classes, before), revision("b", classes, other))
    assert table.set_index("metric").loc["top1", "significant"] == "no"
    assert table.set_index("metric").loc["calibration_error", "significant"] == ""


def test_classes_are_ordered_from_gain_to_loss(classes):
    before, after = np.ones(2000, bool), np.ones(2000, bool)
    before[np.arange(2000) % 100 == 7] = False
    after[np.flatnonzero(np.arange(2000) % 100 == 9)[:5]] = False
    table = class_differences(
        revision("a", classes, before), revision("b", classes, after), classes
    )
    assert table.iloc[0]["class"] == "class 07"
    assert table.iloc[0]["difference"] == 1
    assert table.iloc[-1]["class"] == "class 09"
    assert table.iloc[-1]["difference"] == pytest.approx(-0.25)


@pytest.mark.slow
def test_experiment_is_compared_with_the_commit_that_it_began_from(workspace):
    workspace.run("dvc", "exp", "run", "--name", "plain", "-S", "figure_dpi=45")
    command = [sys.executable, "-m", "tools.compare"]
    shown = workspace.run(*command, "HEAD", "plain", "workspace")
    assert "plain against HEAD" in shown
    assert "workspace against HEAD" in shown
    assert Image.open(workspace.path / "comparison/curves.png").size[0] > 500
    assert workspace.run("git", "status", "--porcelain", "comparison") == ""
    output = workspace.run(*command, "HEAD", "absent", ok=False)
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        "error: compare: absent: no such revision; `dvc exp show` and `git branch` list them"
    ]
    predictions = workspace.path / "data/predictions/test.npz"
    predictions.unlink()
    predictions.write_bytes(b"broken")
    output = workspace.run(*command, "HEAD", ok=False)
    assert "error: compare: workspace: data/predictions/test.npz: not predictions" in output
