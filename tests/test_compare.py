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
from tools.comparison.param_curve import (
    SCORES,
    curve_figure,
    curve_over,
    differing_params,
    verdict,
    why_no_curve,
)
from tools.comparison.revisions import Revision
from tools.comparison.tables import class_differences, metric_differences


def revision(name, classes, right: np.ndarray, **params) -> Revision:
    """One whose answers to 2,000 images are right where `right` says."""
    labels = np.arange(2000) % 100
    logits = np.zeros((2000, 100), np.float32)
    logits[np.arange(2000), np.where(right, labels, (labels + 1) % 100)] = 5
    scores = scores_per_image(logits, labels, np.array(classes.coarse_of_fine))
    metrics = {"top1": float(right.mean()), "calibration_error": 0.1}
    history = pd.DataFrame({"val_top1": [0.1, metrics["top1"] - 0.01]})
    return Revision(name, Predictions(logits, labels, 1.0), scores, metrics, history, params, {})


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


def test_name_of_experiments_on_several_commits_is_told_with_these(history, tmp_path):
    """As by `dvc exp run --name try` on two commits, from a third."""
    repository = history.copy(tmp_path / "repository")
    commits = repository.run("git", "rev-list", "--max-count=2", "HEAD").split()
    for commit in commits:
        reference = f"refs/exps/{commit[:2]}/{commit[2:]}/try"
        repository.run("git", "update-ref", reference, commit)
    repository.run("git", "commit", "--quiet", "--allow-empty", "--message", "A third")
    program = [sys.executable, "-c", READ]
    asked = ["try", "t*", *commits]
    printed = repository.run(*program, *asked, PYTHONPATH=str(ROOT)).splitlines()
    line, pattern, with_notes, without = printed
    assert pattern.startswith("t*: no such revision; ")
    assert with_notes == "a"
    assert "notes is neither in Git nor in the DVC cache" in without
    start = "try: 2 experiments of different commits have this name; name the commit of one: "
    assert line.startswith(start)
    named = line.removeprefix(start).split(", ")
    assert sorted(named) == sorted(
        repository.run("git", "rev-parse", "--short", commit).strip() for commit in commits
    )


@pytest.fixture
def rates(classes) -> list[Revision]:
    """The best at lr 0.2; at 0.1 one image worse, at 0.05 and 0.8 a hundred."""
    right = np.arange(2000) % 10 > 0
    fewer = {name: right.copy() for name in ("slow", "near", "fast")}
    fewer["slow"][1:1000:10] = False
    fewer["near"][1] = False
    fewer["fast"][1001::10] = False
    return [
        revision("near", classes, fewer["near"], lr=0.1, epochs=3, flip=True),
        revision("best", classes, right, lr=0.2, epochs=3, flip=True),
        revision("fast", classes, fewer["fast"], lr=0.8, epochs=3, flip=True),
        revision("slow", classes, fewer["slow"], lr=0.05, epochs=3, flip=True),
    ]


def test_best_learning_rate_is_named_with_what_cannot_be_told_apart(rates):
    assert differing_params(rates) == ["lr"]
    assert why_no_curve(["lr"], rates) == ""
    curve = curve_over("lr", "top1", rates)
    assert curve["lr"].tolist() == [0.05, 0.1, 0.2, 0.8]
    assert curve["state"].tolist() == ["worse", "same", "best", "worse"]
    assert curve["top1"].tolist() == pytest.approx([0.85, 0.8995, 0.9, 0.85])
    # The standard error of a share: the interval is that of the normal distribution, nearly.
    half = 1.96 * np.sqrt(curve["top1"] * (1 - curve["top1"]) / 2000)
    np.testing.assert_allclose(curve["high"] - curve["top1"], half, rtol=0.1)
    np.testing.assert_allclose(curve["top1"] - curve["low"], half, rtol=0.1)
    assert verdict(curve) == (
        "best top1: lr 0.2 (best); cannot be told apart from it by these test images: 0.1 (near)"
    )
    assert verdict(curve[curve["state"] != "same"]).endswith(": none")


def test_lowest_loss_is_the_best(rates):
    curve = curve_over("lr", "loss", rates).set_index("run")
    assert curve["loss"].idxmin() == curve["state"].eq("best").idxmax() == "best"
    assert curve.loc["slow", "state"] == "worse"


def test_curve_is_drawn_with_the_intervals(rates):
    curve = curve_over("lr", "top1", rates)
    figure = curve_figure(curve)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.05", "0.1", "0.2", "0.8"]
    bars = [segment[:, 1] for bar in axes.collections for segment in bar.get_segments()]
    np.testing.assert_allclose(
        sorted(map(list, bars)), sorted(curve[["low", "high"]].to_numpy().tolist())
    )
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["validation images", "best", "cannot be told apart from the best", "worse"]


def test_scores_to_draw_are_those_of_each_image(rates):
    assert set(SCORES) == set(rates[0].scores)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ([{"lr": 0.1}, {"lr": 0.1}], "the runs have the same params"),
        (
            [{"lr": 0.1, "epochs": 2, "flip": True}, {"lr": 0.2, "epochs": 3, "flip": True}],
            "the runs differ in several params: lr, epochs",
        ),
        (
            [{"schedule": "linear"}, {"schedule": "cosine"}],
            "the runs differ in schedule, whose values are not all numbers",
        ),
        ([{"flip": True}, {"flip": False}], "the runs differ in flip, whose values are not all n"),
        ([{"flip": True}, {"flip": 1}], "the runs differ in flip, whose values are not all numb"),
        ([{"threads": "auto"}, {"threads": 2}], "the runs differ in threads, whose values are no"),
        ([{"lr": 0.1, "new": 1}, {"lr": 0.1}], "the runs differ in new, whose values are not all"),
        ([{"seed": 0}, {"seed": 1}], "the runs differ in seed alone: python -m tools.seeds gives"),
    ],
)
def test_why_there_is_no_curve_is_said_in_one_line(classes, params, reason):
    runs = [revision("run", classes, np.ones(2000, bool), **values) for values in params]
    told = why_no_curve(differing_params(runs), runs)
    assert told.startswith(reason)
    assert "\n" not in told


@pytest.mark.slow
def test_experiment_is_compared_with_the_commit_that_it_began_from(workspace):
    workspace.run("dvc", "exp", "run", "--name", "plain", "-S", "figure_dpi=45")
    command = [sys.executable, "-m", "tools.compare"]
    shown = workspace.run(*command, "HEAD", "plain", "workspace")
    assert "plain against HEAD" in shown
    assert "workspace against HEAD" in shown
    assert "no chart of top1 over a param: the runs have the same params" in shown
    assert Image.open(workspace.path / "comparison/curves.png").size[0] > 500
    assert workspace.run("git", "status", "--porcelain", "comparison") == ""
    workspace.run("dvc", "exp", "run", "--temp", "--name", "slower", "-S", "lr=0.01")
    shown = workspace.run(*command, "plain", "slower", "--score", "loss")
    assert "\nbest loss: lr 0.1 (plain); cannot be told apart" in shown
    assert Image.open(workspace.path / "comparison/loss_over_lr.png").size[0] > 500
    assert "made by other code" not in shown
    with (workspace.path / "stages/evaluate/main.py").open("a") as file:
        file.write("# changed\n")
    workspace.run("dvc", "exp", "run", "--name", "changed")
    assert "\nmade by other code than HEAD: changed\n" in workspace.run(*command, "HEAD", "changed")
    output = workspace.run(*command, "HEAD", "absent", ok=False)
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        "error: compare: absent: no such revision; `dvc exp show` and `git branch` list them"
    ]
    predictions = workspace.path / "data/predictions/test.npz"
    predictions.unlink()
    predictions.write_bytes(b"broken")
    output = workspace.run(*command, "HEAD", ok=False)
    assert "error: compare: workspace: data/predictions/test.npz: not predictions" in output
