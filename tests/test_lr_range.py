import re

import numpy as np
import pandas as pd
import pytest

from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from stages.train.params import TrainParameters
from tools.lr_range import MAX_LR, MIN_LR, measure, rates, smoothed, suggest

PARAMS = load(TrainParameters).replace(
    depth=20, width=2, batch_size=64, progressive_sizes=[16], mixup=0.5
)


def test_rates_grow_by_the_same_factor():
    found = rates(5)
    assert (found[0], found[-1]) == (pytest.approx(MIN_LR), pytest.approx(MAX_LR))
    np.testing.assert_allclose(found[1:] / found[:-1], found[1] / found[0])


@pytest.mark.medium
def test_losses_are_those_of_the_growing_rates_and_the_same_each_time(samples):
    tables = [measure(PARAMS, samples, 40, "cpu", "float32") for _ in range(2)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    np.testing.assert_array_equal(tables[0]["lr"], rates(40)[: len(tables[0])])
    assert np.isfinite(tables[0].to_numpy()).all()
    assert tables[0]["loss"].iloc[0] == pytest.approx(np.log(100), rel=0.5)  # it guesses at first


@pytest.mark.medium
def test_test_ends_where_the_loss_explodes(samples):
    table = measure(PARAMS.replace(weight_decay=1.0), samples, 100, "cpu", "float32")
    assert len(table) < 100
    assert np.isfinite(table.to_numpy()).all()


def test_batch_larger_than_the_data_is_refused(samples):
    with pytest.raises(PipelineError, match=r"batch_size: 512 exceeds the 500 training images"):
        measure(PARAMS.replace(batch_size=512), samples, 5, "cpu", "float32")


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
    output = workspace.run("python", "-m", "tools.lr_range", "--steps", "60")
    (peak,) = re.findall(r"dvc exp run -S lr=([\d.e-]+)\n", output)
    assert MIN_LR < float(peak) < MAX_LR
    assert re.search(r", at (16|32) pixels\n", output)  # of the first epoch
    assert workspace.read("lr_range/loss.png").startswith(b"\x89PNG")
    assert workspace.run("git", "status", "--short") == ""


@pytest.mark.slow
def test_missing_data_is_one_line(workspace):
    (workspace.path / "data/processed/train.npz").unlink()
    output = workspace.run("python", "-m", "tools.lr_range", ok=False)
    assert re.fullmatch(r"error: lr-range: data/processed/train.npz: .*\n", output)
