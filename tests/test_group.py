"""Several processes that train one network, started by Paddle's launcher, on CPUs and with gloo."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages.train.group import Alone, join
from stages.train.loop import train
from tests.conftest import ROOT, save_for_training, some_classes, some_samples
from tests.launched import MACHINE, gradients, still

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the CPU wheels for other systems have no gloo"
)


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """The folder in which two processes have left what they found."""
    folder = tmp_path_factory.mktemp("launched")
    classes = some_classes()
    save_for_training(folder, some_samples(classes), classes)
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, "--log_dir", folder / "log", ROOT / "tests/launched.py", folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (folder / "output").write_text(done.stdout)
    return folder


def test_gradients_of_two_processes_are_the_mean_of_their_halves(launched):
    """Every tensor, against one process that takes the halves one after the other."""
    found = [np.load(launched / f"{rank}.npz") for rank in (0, 1)]
    halves = [gradients(Alone(), part, 2) for part in (0, 1)]
    assert len(halves[0]) > 60
    for i, (first, second) in enumerate(zip(*halves, strict=True)):
        expected = (first + second) / 2
        np.testing.assert_array_equal(found[0][f"gradient{i}"], found[1][f"gradient{i}"])
        np.testing.assert_allclose(
            found[0][f"gradient{i}"], expected, atol=1e-5 * np.abs(expected).max()
        )


def test_totals_and_gathered_arrays_are_the_same_in_all_processes(launched):
    for rank in (0, 1):
        found = np.load(launched / f"{rank}.npz")
        assert found["total"].tolist() == [2, 1]
        assert found["gathered"].tolist() == [[0, 7], [1, 7]]


def test_batch_norm_statistics_are_the_mean_over_processes(launched, tmp_path):
    """Whole-batch statistics of the first layer follow from the data alone, up to the last step."""
    together = load_file(launched / "still/model.safetensors")["stem.1._mean"]
    for name in ("train.npz", "val.npz", "classes.json"):
        (tmp_path / name).write_bytes((launched / name).read_bytes())
    train(still(tmp_path), Alone())
    alone = load_file(tmp_path / "still/model.safetensors")["stem.1._mean"]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_training_of_several_processes_resumes_to_the_same_bytes(launched):
    assert "train: resuming after epoch 1, step 10/12" in (launched / "output").read_text()
    for name in ("model.safetensors", "model.json", "history.csv"):
        whole, resumed = (launched / run / name for run in ("whole", "resumed0"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_only_rank_0_writes_and_resumes(launched):
    assert list((launched / "resumed1").iterdir()) == []
    assert (launched / "output").read_text().count("train: resuming") == 1


@pytest.mark.parametrize("training", ["resumed", "unlike"])
def test_weights_are_the_same_in_all_processes(launched, training):
    """Also where they began with others of their own, and where one of them alone could resume."""
    first, second = (np.load(launched / f"{rank}.npz")[training] for rank in (0, 1))
    assert first.any()
    np.testing.assert_array_equal(first, second)


def test_batch_that_cannot_be_shared_equally_is_refused(launched):
    for rank in (0, 1):
        assert str(np.load(launched / f"{rank}.npz")["error"]) == (
            "params.yaml: batch_size: 33 cannot be shared equally by 2 processes; give a multiple"
        )


def test_process_that_nobody_launched_is_alone():
    assert isinstance(join(None, {}, MACHINE), Alone)
