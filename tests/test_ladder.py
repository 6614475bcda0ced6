"""`python -m tools.ladder`: from the replaced experiment to the committed recipe."""

import io
import itertools
import json
import shlex
import sys

import numpy as np
import pandas as pd
import pytest

from cifar100.running.errors import PipelineError
from tests.conftest import ROOT
from tools.comparison.experiments import changed, literal
from tools.comparison.recipes import params_of, read_stages, recorded_recipe
from tools.ladder import (
    REFERENCE,
    RESULTS,
    RUNGS,
    Rung,
    ladder_figure,
    read_rungs,
    settings_of,
)

COMMAND = [sys.executable, "-m", "tools.ladder"]
SHORT = """
- {name: low, change: a low learning rate, change_zh: 低学习率, params: {lr: 0.01, epochs: 1}}
- {name: high, change: a high one, change_zh: 高学习率, params: {lr: 0.1}}
- {name: all, change: more epochs, change_zh: 更多轮数, params: {}}
"""


@pytest.fixture
def recipe():
    return recorded_recipe(read_stages((ROOT / "dvc.lock").read_bytes(), "dvc.lock"))


def command_of(changes: dict[str, object]) -> str:
    """The line that runs a rung by hand."""
    if not changes:
        return "dvc repro"
    settings = (f"{key}={literal(value)}" for key, value in changes.items())
    return " ".join(["dvc exp run", *(f"-S {shlex.quote(setting)}" for setting in settings)])


def rung(**params) -> Rung:
    return Rung(name="one", change="a change", change_zh="变化", params=params)


def test_each_rung_has_the_changes_of_those_below_and_the_last_has_none(recipe):
    present = recipe["train"]["params"]
    other = {"lr": present["lr"] * 2, "epochs": present["epochs"] + 1}
    rungs = [rung(**other), rung(lr=present["lr"], flip=not present["flip"]), rung()]
    assert settings_of(rungs, recipe) == [
        other,
        {"epochs": other["epochs"], "flip": not present["flip"]},
        {},
    ]


def test_committed_rungs_can_be_run_and_each_changes_something(recipe):
    rungs = read_rungs(ROOT / RUNGS)
    settings = settings_of(rungs, recipe)
    assert len({rung.name for rung in rungs}) == len(rungs) >= 8
    recipes = [changed(recipe, changes) for changes in settings]
    assert all(one != other for one, other in itertools.pairwise(recipes))
    assert recipes[-1] == recipe
    kept = {"eval_flip", "dataset", "val_per_class"}  # all rungs are scored alike
    assert not any(kept & {*changes} for changes in settings)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"figure_dpi": 50}, "one: no stage that scores has figure_dpi"),
        ({"lrr": 0.1}, "one: no stage that scores has lrr"),
        ({"lr": -1.0}, "one: lr: Input should be greater than 0"),
        ({"lr": "0.1"}, "one: lr: Input should be a valid number"),
        ({"mixup": 0.6, "cutmix": 0.6}, "one: params: Value error, mixup + cutmix is 1.2; "),
    ],
)
def test_params_that_cannot_be_are_refused_in_one_line(recipe, params, expected):
    with pytest.raises(PipelineError) as refused:
        settings_of([rung(**params), rung()], recipe)
    assert str(refused.value).startswith(f"{RUNGS}: {expected}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no list of rungs ("),
        ("a: 1", "no list of rungs ("),
        ("[1]", "no list of rungs ("),
        ("[", "no list of rungs ("),
        ("[]", "no rung; give at least one"),
        ("- {name: a, change: b, params: {}}", "change_zh: Field required"),
        ("- {name: a, change: b, change_zh: c, params: 1}", "params: Input should be a valid"),
        ("- {name: a, change: b, change_zh: c, params: {}, d: 1}", "d: Extra inputs are not"),
    ],
)
def test_bad_list_of_rungs_is_refused_in_one_line(tmp_path, content, expected):
    path = tmp_path / "rungs.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PipelineError) as refused:
        read_rungs(path)
    assert str(refused.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(refused.value)
    with pytest.raises(PipelineError, match=r"not found; run from the root"):
        read_rungs(tmp_path / "none.yaml")


def test_command_of_a_rung_is_what_a_user_types():
    changes = {"lr": 0.01, "progressive_sizes": [16, 24], "flip": False, "schedule": "step"}
    assert command_of(changes) == (
        "dvc exp run -S lr=0.01 -S 'progressive_sizes=[16,24]' -S flip=false -S schedule=step"
    )
    assert command_of({}) == "dvc repro"


def test_figure_has_a_bar_per_rung_of_the_height_of_its_score():
    table = pd.DataFrame(
        {
            "rung": [0, 1, 2],
            "change": ["before", "a change", "another"],
            "minutes": [600, 5.2, 30.1],
            "top1": [0.3469, 0.4, 0.7],
            "low": [np.nan, 0.39, 0.69],
            "high": [np.nan, 0.41, 0.71],
        }
    )
    (axes,) = ladder_figure(table).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([34.69, 40, 70])
    assert [text.get_text() for text in axes.texts] == [
        "34.7%, over 600 min",
        "40.0%, 5 min",
        "70.0%, 30 min",
    ]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["0  before", "1  a change", "2  another"]


def test_curve_of_the_replaced_experiment_ends_as_the_readme_says():
    reference = pd.read_csv(ROOT / REFERENCE)
    assert reference["epoch"].tolist() == [*range(1, 21)]
    assert f"{reference['test_top1'].iloc[-1]:.2%}".replace("%", " %") in (
        ROOT / "README.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["docs/ladder.md", "docs/ladder.zh-CN.md"])
def test_pages_say_what_was_measured_and_how(page, recipe):
    """Each rung of results.csv, with the line that runs it."""
    table, text = pd.read_csv(ROOT / RESULTS), (ROOT / page).read_text(encoding="utf-8")
    rungs = read_rungs(ROOT / RUNGS)
    assert table["name"].tolist() == ["replaced", *(rung.name for rung in rungs)]
    lines = {line.split(" | ")[0]: line for line in text.splitlines()}
    for row in table.itertuples():
        line = lines[f"| {row.rung}"]
        assert f"| {row.epochs} |" in line
        assert f"| {row.train_top1 * 100:.1f} % |" in line
        assert f"{row.top1 * 100:.2f} %" in line
        if row.rung > 0:
            assert f"| {row.minutes:.1f} |" in line
            assert f" {row.high * 100:.1f})" in line
            assert f"({row.low * 100:.1f} " in line
    for changes in settings_of(rungs, recipe):
        assert command_of(changes) in text


@pytest.mark.slow
def test_ladder_resumes_and_writes_what_the_experiments_say(workspace):
    (workspace.path / RUNGS).write_text(SHORT, encoding="utf-8")
    for file in (RESULTS, RESULTS.with_name("ladder.png")):
        (workspace.path / file).unlink(missing_ok=True)
    workspace.commit("Rungs that run in seconds")
    before = workspace.run("git", "status", "--porcelain")
    output = workspace.run(*COMMAND)
    assert output.count("running experiment") == 2  # the last is the committed run
    assert "ladder: all: the committed run, there already" in output
    refs = workspace.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/*")
    top1, train_top1 = {}, {}
    for commit in refs.split():
        lock, metrics, history = (
            workspace.run("git", "show", f"{commit}:{path}")
            for path in ("dvc.lock", "reports/metrics.json", "reports/history.csv")
        )
        lr = params_of(read_stages(lock.encode(), ""))["lr"]
        top1[lr] = json.loads(metrics)["top1"]
        train_top1[lr] = pd.read_csv(io.StringIO(history))["train_top1"].iloc[-1]
    table = pd.read_csv(workspace.path / RESULTS).set_index("name")
    assert table.index.tolist() == ["replaced", "low", "high", "all"]
    for name, lr in (("low", 0.01), ("high", 0.1)):
        assert table.loc[name, "top1"] == pytest.approx(top1[lr], abs=1e-4)
        assert table.loc[name, "train_top1"] == pytest.approx(train_top1[lr], abs=1e-4)
    own = json.loads(workspace.read("reports/metrics.json"))
    assert table.loc["all", "top1"] == pytest.approx(own["top1"], abs=1e-4)
    assert table["epochs"].tolist() == [20, 1, 1, 2]
    assert workspace.read("docs/ladder/ladder.png").startswith(b"\x89PNG")
    changed_files = workspace.run("git", "status", "--porcelain").splitlines()
    assert {line[3:] for line in changed_files} - {line[3:] for line in before.splitlines()} == {
        "docs/ladder/ladder.png",
        "docs/ladder/results.csv",
    }
    assert "running experiment" not in workspace.run(*COMMAND)
