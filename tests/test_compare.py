"""`python -m tools.compare` on real revisions and experiments."""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cifar100.results.predictions import Predictions
from cifar100.running.errors import printable
from stages.evaluate.metrics import scores_per_image
from tests.conftest import ROOT, Workspace, clone_working_tree
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


@pytest.mark.parametrize("names", [("main", "main"), ("metric", "low"), ("class", "difference")])
def test_revision_may_be_named_like_a_column_or_twice(classes, names):
    rng = np.random.default_rng(0)
    before, after = (revision(name, classes, rng.random(2000) < 0.5) for name in names)
    table = metric_differences(before, after)
    assert list(table)[1:3] == list(names)
    row = table.iloc[0]
    assert row.iloc[2] - row.iloc[1] == row.iloc[3] != 0
    assert row.iloc[4] < row.iloc[3] < row.iloc[5]
    table = class_differences(before, after, classes)
    np.testing.assert_allclose(table.iloc[:, 2] - table.iloc[:, 1], table.iloc[:, 3])


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> Workspace:
    """A repository with two commits and no results."""
    workspace = clone_working_tree(tmp_path_factory.mktemp("history") / "repository")
    (workspace.path / "notes").write_text("a")
    workspace.commit("Add notes (a: b)")
    workspace.run("git", "tag", "--annotate", "--message", "A tag", "annotated")
    workspace.run("git", "branch", "größe/1")
    return workspace


READ = """
import sys
from cifar100.running.errors import PipelineError, printable
from tests.conftest import ROOT, Workspace, clone_working_tree
from tools.comparison.revisions import _read
for name in sys.argv[1:]:
    try:
        print(_read(name, "notes").decode())
    except PipelineError as error:
        print(error)
"""
GOOD = ["HEAD", "@", "annotated", "größe/1", "HEAD^{commit}", "HEAD@{0}", "refs/heads/größe/1"]
GOOD += [":/Add notes", "annotated~0", "HEAD~0"]
BAD = [
    "",
    " ",
    "-",
    "--help",
    "HEAD~1000",
    "a..b",
    "HEAD^{tree}",
    "HEAD:notes",
    ":/nothing",
    "@{u}",
]
BAD += ["refs/heads/", "x" * 5000, "a\nb", "0" * 40, "deadbeef", "*", "HEAD@{9}", "\\", "a b", "é"]


def test_any_name_is_a_revision_or_none_in_one_line(history):
    program = [sys.executable, "-c", READ]
    environment = {"PYTHONPATH": str(ROOT)}
    sha = history.run("git", "rev-parse", "HEAD").strip()
    names = [*GOOD, sha, sha[:7]]
    assert history.run(*program, *names, **environment).splitlines() == ["a"] * len(names)
    for name, line in zip(
        BAD, history.run(*program, *BAD, **environment).splitlines(), strict=True
    ):
        assert line.startswith(f"{printable(name)}: no such revision; `dvc exp show` "), line


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
