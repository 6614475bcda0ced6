"""`python -m tools.seeds`: experiments that differ in the seed, and what they say together."""

import copy
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import pandas as pd
import psutil
import pytest
from ruamel.yaml import YAML

from cifar100.results.scores import METRICS
from cifar100.running.errors import PipelineError
from stages.train.params import TrainParameters
from tests.conftest import ROOT
from tools.comparison.experiments import experiments, scores_of, seconds_of, train_top1_of
from tools.comparison.recipes import (
    params_of,
    present_recipe,
    read_stages,
    recorded_recipe,
    without_seed,
)
from tools.seeds import name_of, score_table, seeds_from

COMMAND = [sys.executable, "-m", "tools.seeds"]


def error_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error: ")]


def some_scores(rng: np.random.Generator) -> pd.DataFrame:
    table = pd.DataFrame({"value": rng.random(3)}, index=["top1", "loss", "calibration_error"])
    table["low"] = table["value"] - [0.01, 0.02, np.nan]
    table["high"] = table["value"] + [0.03, 0.02, np.nan]
    return table


def test_mean_and_deviation_are_those_of_another_library():
    rng = np.random.default_rng(0)
    scores = {seed: some_scores(rng) for seed in (5, 6, 7, 8)}
    table = score_table(scores).set_index("metric")
    for metric in ("top1", "loss", "calibration_error"):
        values = [float(one.loc[metric, "value"]) for one in scores.values()]
        row = table.loc[metric]
        assert row["mean"] == pytest.approx(statistics.fmean(values))
        assert row["sd"] == pytest.approx(statistics.stdev(values))
        assert row[[f"seed {seed}" for seed in scores]].tolist() == values
    assert table["half_interval"].tolist()[:2] == pytest.approx([0.02, 0.02])
    assert np.isnan(table.loc["calibration_error", "half_interval"])


def test_seeds_go_on_from_the_present_one_and_end_where_seeds_end():
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params = TrainParameters(**{key: values[key] for key in TrainParameters.model_fields})
    assert [*seeds_from(params.replace(seed=4), 3)] == [4, 5, 6]
    with pytest.raises(PipelineError, match=r"seed: 3 seeds from 4294967294 on end at 4294967296"):
        seeds_from(params.replace(seed=2**32 - 2), 3)


@pytest.fixture
def stages() -> dict:
    return read_stages((ROOT / "dvc.lock").read_bytes(), "dvc.lock")


def test_recipe_of_a_lock_has_code_params_and_commands_of_the_scoring_stages(stages):
    recipe = recorded_recipe(stages)
    assert list(recipe) == ["download", "preprocess", "train", "evaluate"]
    assert recipe["train"]["cmd"] == "python stages/train"
    assert "stages/train" in recipe["train"]["code"]
    assert "data/processed/train.npz" not in recipe["train"]["code"]
    assert recipe["train"]["params"]["lr"] == params_of(stages)["lr"]
    assert "figure_dpi" not in params_of(stages)


def test_recipes_are_equal_but_for_the_seed(stages):
    other = copy.deepcopy(stages)
    other["train"]["params"]["params.yaml"]["seed"] += 1
    other["render"]["params"]["params.yaml"]["figure_dpi"] += 1
    one, two = recorded_recipe(stages), recorded_recipe(other)
    assert one != two
    assert without_seed(one) == without_seed(two)
    assert name_of(0, one) == name_of(0, two)
    other["train"]["params"]["params.yaml"]["lr"] *= 2
    assert without_seed(one) != without_seed(recorded_recipe(other))
    assert name_of(0, one) != name_of(0, recorded_recipe(other))


def test_scores_of_another_network_than_the_trained_one_have_no_recipe(stages):
    """As `dvc exp run train` leaves them: the scores are those of the training before."""
    (weights,) = [d for d in stages["train"]["outs"] if d["path"].endswith("model.safetensors")]
    weights["md5"] = "0" * 32
    assert recorded_recipe(stages) is None
    del stages["evaluate"]
    assert recorded_recipe(stages) is None


def test_recipe_takes_an_address_among_deps_and_a_stage_without_outputs(stages):
    stages["download"]["deps"].append({"path": "https://example.org/list", "etag": "b"})
    stages["download"]["outs"] = []
    recipe = recorded_recipe(stages)
    assert recipe["download"]["code"]["https://example.org/list"] is None
    del stages["download"]["outs"]
    assert recorded_recipe(stages) == recipe


def test_reports_of_another_run_than_that_of_dvc_lock_are_refused(workspace, monkeypatch):
    """As after committing dvc.lock of a new run without its reports."""
    monkeypatch.chdir(workspace.path)
    (committed,) = experiments()
    assert (
        scores_of(committed)["value"]["top1"]
        == json.loads(workspace.read("reports/metrics.json"))["top1"]
    )
    assert seconds_of(committed) > 0
    assert 0 <= train_top1_of(committed) <= 1
    for name, read in (
        ("metrics.json", scores_of),
        ("intervals.csv", scores_of),
        ("history.csv", train_top1_of),
        ("timing.json", seconds_of),
    ):
        path = workspace.path / "reports" / name
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        workspace.commit(f"Change {name} alone")
        with pytest.raises(
            PipelineError, match=rf"^the committed run: reports/{name}: not the one"
        ):
            read(committed)
        path.write_bytes(before)
        workspace.commit("Back")


@pytest.mark.parametrize("content", [b"", b"\xff", b"stages: 1", b"[", b"schema: '2.0'"])
def test_damaged_lock_is_refused_in_one_line(content):
    with pytest.raises(PipelineError, match=r"^exp: not a dvc\.lock \(.+\)$"):
        read_stages(content, "exp")


def test_present_recipe_is_what_dvc_records(workspace, monkeypatch):
    monkeypatch.chdir(workspace.path)
    recorded = recorded_recipe(read_stages(workspace.read("dvc.lock"), "dvc.lock"))
    assert present_recipe() == recorded
    workspace.set_params(lr="0.05")
    changed = present_recipe()
    assert changed["train"]["params"] == recorded["train"]["params"] | {"lr": 0.05}
    with (workspace.path / "stages/train/loop.py").open("a") as file:
        file.write("# changed\n")
    assert {
        k for k, v in present_recipe()["train"]["code"].items() if v != changed["train"]["code"][k]
    } == {"stages/train"}
    (workspace.path / "dvc.yaml").unlink()
    with pytest.raises(PipelineError, match=r"dvc\.yaml or params\.yaml: has no"):
        present_recipe()


def test_bad_input_is_refused_before_anything_runs(workspace):
    output = workspace.run(*COMMAND, "--count", "1", ok=False)
    assert "argument --count: expected a whole number of at least 2" in output
    workspace.set_params(lr="-1")
    assert error_lines(workspace.run(*COMMAND, ok=False)) == [
        "error: seeds: params.yaml: lr: -1 is not allowed; give a number above 0, up to 100"
    ]
    assert workspace.run("git", "for-each-ref", "refs/exps") == ""


# Code that fails for seed 1 until there is a file `repaired` outside of the copy in which it runs.
FAILING = """
def main() -> None:
    from cifar100.running.errors import PipelineError

    if load(TrainParameters).seed == 1 and not Path("{repaired}").exists():
        raise PipelineError("made to fail")
    train()
"""


@pytest.mark.slow
def test_finished_seeds_are_kept_and_the_same_command_goes_on(workspace, tmp_path):
    repaired = tmp_path / "repaired"
    file = workspace.path / "stages/train/main.py"
    source = file.read_text(encoding="utf-8").replace("def main(", "def train(")
    file.write_text(source + FAILING.format(repaired=repaired), encoding="utf-8")
    workspace.set_params(epochs="1", progressive_sizes="[]")
    before = workspace.run("git", "status", "--porcelain"), workspace.read("reports/metrics.json")

    output = workspace.run(*COMMAND, "--count", "2", ok=False)
    assert "error: train: made to fail" in output
    (line,) = [line for line in error_lines(output) if line.startswith("error: seeds")]
    (first,) = names(workspace)
    assert f"finished and kept: seed 0 ({first}); run the same command again to resume" in line

    repaired.touch()
    path = tmp_path / "seeds.csv"
    shown = workspace.run(*COMMAND, "--count", "2", "--table", str(path))
    assert f"seed 0: {first}, there already" in shown
    assert [name.rsplit("-", 1)[0] for name in names(workspace)] == ["seed-0", "seed-1"]
    assert before == (
        workspace.run("git", "status", "--porcelain"),
        workspace.read("reports/metrics.json"),
    )

    table = pd.read_csv(path).set_index("metric")
    metrics = [
        json.loads(workspace.run("git", "show", f"{commit}:reports/metrics.json"))
        for commit in workspace.run("git", "for-each-ref", "--format=%(objectname)", REFS).split()
    ]
    assert list(table.index) == [*METRICS]
    for metric, row in table.iterrows():
        values = [one[metric] for one in metrics]
        assert row["mean"] == pytest.approx(statistics.fmean(values), abs=1e-4)
        assert row["sd"] == pytest.approx(statistics.stdev(values), abs=1e-4)
    assert table.loc["top1", "sd"] > 0
    assert 0 < table.loc["top1", "half_interval"] < 0.1
    assert workspace.run(*COMMAND, "--count", "2").count("there already") == 2


REFS = "refs/exps/*/*/*"


def names(workspace) -> list[str]:
    """The experiments of a workspace."""
    listed = workspace.run("git", "for-each-ref", "--format=%(refname)", REFS)
    return sorted(line.rsplit("/", 1)[-1] for line in listed.split())


@pytest.mark.slow
def test_committed_run_is_one_of_the_seeds(workspace):
    shown = workspace.run(*COMMAND, "--count", "2")
    assert "seed 0: the committed run, there already" in shown
    assert [name.rsplit("-", 1)[0] for name in names(workspace)] == ["seed-1"]


@contextmanager
def two_seeds(workspace) -> Iterator["tuple[subprocess.Popen[str], IO[str]]"]:
    """The command while it runs, and what it prints."""
    with subprocess.Popen(
        [*COMMAND, "--count", "2"],
        cwd=workspace.path,
        env=workspace.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        yield running, running.stdout


@pytest.mark.slow
def test_interrupted_seeds_name_what_is_finished(workspace):
    workspace.set_params(lr="0.05")  # else the committed run would be seed 0
    with two_seeds(workspace) as (running, printed):
        lines = []
        for line in printed:
            lines.append(line)
            if line.startswith("epoch") and any("seed 0: seed-0" in one for one in lines):
                running.terminate()  # in the training of the second seed
                break
        lines += list(printed)
        assert running.wait(timeout=60) == 130
    output = "".join(lines)
    (name,) = names(workspace)
    assert f"seeds: finished and kept: seed 0 ({name}); run the same command again" in output
    assert error_lines(output)[-1] == "error: seeds: interrupted"


@pytest.mark.slow
def test_killed_seeds_leave_no_training(workspace):
    workspace.set_params(lr="0.05", epochs="20")
    with two_seeds(workspace) as (running, printed):
        next(line for line in printed if line.startswith("epoch"))
        started = psutil.Process(running.pid).children(recursive=True)
        assert len(started) >= 2  # DVC and the stage
        running.kill()
        rest = list(printed)  # until the last of them has closed it
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert not any(line.startswith(("epoch  20/20", "evaluate:")) for line in rest)
    assert names(workspace) == []
