"""The checks of `make check-gpu`, on a CPU: with Paddle's own layers, which are what a GPU runs."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import paddle
import pytest

from cifar100.network import onednn
from tests.conftest import ROOT
from tools import check_gpu
from tools.check_gpu import Row, Setup, count_in_trace, run_checks, to_markdown


@pytest.fixture
def setup(tmp_path, monkeypatch) -> Setup:
    monkeypatch.setattr(onednn, "available", lambda: False)
    monkeypatch.setattr(check_gpu, "SMALL", check_gpu.SMALL | {"width": 2, "epochs": 1})
    monkeypatch.setattr(check_gpu, "IMAGES", 64)
    check_gpu.write_data(tmp_path)
    return Setup(tmp_path, "cpu", "float32", 1, depth=20, width=2, batches=(8, 16), steps=3)


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle can use GPUs")
def test_without_a_gpu_one_line_says_that_nothing_was_checked():
    command = [sys.executable, "-m", "tools.check_gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: check-gpu: nothing was checked: this Paddle is built for the CPU "
        "(`make setup PADDLE=gpu` installs the other)\n"
    )


@pytest.mark.medium
def test_equal_trainings_are_found_equal_and_others_named(setup):
    assert check_gpu.same_bytes_twice(setup) == Row("same bytes twice", "the same bytes", True)
    row = check_gpu.export(setup)
    assert row.good
    assert re.fullmatch(r"differ by \S+, \S+", row.result)
    with (setup.folder / "second/history.csv").open("a", encoding="utf-8") as file:
        file.write("1\n")
    assert check_gpu.different(setup, "first", "second") == ["history.csv"]


@pytest.mark.slow
def test_killed_training_resumes(setup, monkeypatch):
    monkeypatch.undo()  # of what the other processes do not know
    check_gpu.write_data(setup.folder)
    assert check_gpu.kill_and_resume(setup) == Row("kill and resume", "the same bytes", True)


def test_rounding_is_measured(setup, monkeypatch):
    """Nothing differs from itself; with the engine in place of one of the two something does."""
    row = check_gpu.rounding(setup, "float32")
    assert (row.result, row.good) == ("logits differ by 0, gradients by 0 (relative)", True)
    logits, gradients = check_gpu.first_step(setup, "cpu", "float32")
    assert logits.shape == (64, 100)
    assert np.isfinite(gradients).all()
    steps = iter([(logits * 1.01, gradients), (logits, gradients)])
    monkeypatch.setattr(check_gpu, "first_step", lambda *_: next(steps))
    row = check_gpu.rounding(setup, "float32")
    assert (row.result, row.good) == ("logits differ by 0.01, gradients by 0 (relative)", False)


@pytest.mark.skipif(not onednn.available(), reason=onednn.description())
def test_first_step_of_the_engine_is_within_rounding_of_paddles_layers(setup, monkeypatch):
    expected = check_gpu.first_step(setup, "cpu", "float32")
    monkeypatch.undo()
    found = check_gpu.first_step(setup, "cpu", "float32")
    for one, other, most in zip(found, expected, check_gpu.ROUNDING["float32"], strict=True):
        assert 0 < np.linalg.norm(one - other) <= most * np.linalg.norm(other)


@pytest.mark.medium
def test_speed_and_copies_are_measured(setup):
    row = check_gpu.speed(setup, 16)
    assert row.check == "ResNet-20, width 2, batches of 16"
    assert re.fullmatch(r"[\d,]+ images/s", row.result)
    assert check_gpu.copies(setup) == Row(
        "copies between host and GPU, waits", "0 and 0 in 3 steps", True
    )
    assert '"name"' in (setup.folder / "trace.json").read_text()


def test_copies_and_waits_are_found_in_a_trace():
    trace = """
  { "name": "MEMCPY_HtoD[1.2 us]", "pid": 0 }, { "name": "MEMCPY_DtoH[1.2 us]" },
  { "name": "MEMCPY_DtoD[1.2 us]" }, { "name": "MEMSET[1 us]" }, { "name": "relu[4 us]" },
  { "name": "cudaStreamSynchronize_v3020[9 us]" }, { "name": "cudaLaunchKernel_v7000[2 us]" }
"""
    assert count_in_trace(trace) == (2, 1)


@pytest.mark.medium
def test_check_that_raises_does_not_keep_the_others_from_running(setup, monkeypatch):
    def fail(setup):
        raise RuntimeError("CUDA error 700:\n  an illegal | memory access")

    for name in ("kill_and_resume", "same_bytes_twice", "export"):
        monkeypatch.setattr(check_gpu, name, fail)
    rows = run_checks(replace(setup, batches=(8,)))
    assert [row.good for row in rows] == [False, False, False, True, True, None]
    assert rows[0].result == "RuntimeError: CUDA error 700: an illegal | memory access"
    lines = to_markdown(rows).splitlines()
    assert lines[2] == (
        "| check 1, which ended early "
        "| RuntimeError: CUDA error 700: an illegal \\| memory access | **no** |"
    )
    assert lines[-1].endswith("images/s |  |")
