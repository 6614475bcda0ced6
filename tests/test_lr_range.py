import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages.dataset.splits import save_split
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from stages.training.lr_range import HIGHEST, LOWEST, Job, measure, rates, smoothed, suggest
from stages.training.workers import run_workers


@pytest.fixture
def job(tmp_path, samples) -> Job:
    save_split(tmp_path / "train.npz", samples)
    changes = {"depth": 20, "width": 2, "batch_size": 64, "progressive_sizes": [16], "threads": 1}
    params = load(TrainParameters).model_copy(update=changes)
    return Job(params, "cpu", tmp_path / "train.npz", 40, tmp_path / "loss.csv")


def test_rates_grow_by_the_same_factor():
    found = rates(5)
    assert (found[0], found[-1]) == (pytest.approx(LOWEST), pytest.approx(HIGHEST))
    np.testing.assert_allclose(found[1:] / found[:-1], found[1] / found[0])


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_losses_are_those_of_the_growing_rates_and_the_same_each_time(job, workers):
    tables = []
    for _ in range(2):
        run_workers(measure, job, workers, "cpu")
        tables.append(job.table.read_bytes())
    assert tables[0] == tables[1]
    table = pd.read_csv(job.table)
    np.testing.assert_allclose(table["lr"], rates(job.steps)[: len(table)])
    assert np.isfinite(table.to_numpy()).all()
    assert table["loss"].iloc[0] == pytest.approx(np.log(100), rel=0.5)  # it guesses at first


def test_test_ends_where_the_loss_explodes(job):
    measure(replace(job, params=job.params.model_copy(update={"weight_decay": 1.0}), steps=100))
    table = pd.read_csv(job.table)
    assert len(table) < 100
    assert np.isfinite(table.to_numpy()).all()


def test_suggestion_is_a_third_of_the_rate_with_the_lowest_loss():
    lr = np.geomspace(0.001, 10, 401)
    loss = 3 + np.log10(lr / 0.6) ** 2
    table = pd.DataFrame({"lr": lr, "loss": loss, "smoothed_loss": loss})
    assert suggest(table) == (pytest.approx(0.6, rel=0.02), pytest.approx(0.2, rel=0.02))


def test_loss_that_only_grows_suggests_nothing():
    table = pd.DataFrame({"lr": [0.1, 0.2], "loss": [1.0, 2.0], "smoothed_loss": [1.0, 2.0]})
    with pytest.raises(PipelineError, match="the loss did not fall"):
        suggest(table)


def test_smoothing_starts_without_bias_and_follows_slowly():
    curve = smoothed([4.0] * 10 + [0.0])
    np.testing.assert_allclose(curve[:10], 4.0)
    assert 3.0 < curve[10] < 4.0


def test_command_prints_the_experiment_to_try_and_leaves_git_clean(workspace):
    output = workspace.run("python", "-m", "stages.training.lr_range", "--steps", "60")
    (peak,) = re.findall(r"dvc exp run -S lr=([\d.e-]+)\n", output)
    assert LOWEST < float(peak) < HIGHEST
    assert workspace.read("lr_range/loss.png").startswith(b"\x89PNG")
    assert workspace.run("git", "status", "--short") == ""


@pytest.mark.slow
def test_missing_data_is_one_line(workspace):
    (workspace.path / "data/processed/train.npz").unlink()
    output = workspace.run("python", "-m", "stages.training.lr_range", ok=False)
    assert re.fullmatch(r"error: lr-range: data/processed/train.npz: .*\n", output)
