import json
import os
import re
import shutil
import subprocess
import sys

import jinja2
import paddle
import pytest

from cifar100.network import device, onednn
from cifar100.network.device import choose_device, choose_precision, gpu_flags
from cifar100.running import cpu
from cifar100.running.errors import PipelineError
from tests.conftest import ROOT


def start_training(folder, environment=None, **params) -> str:
    """The line that the stage train ends with for these params; it has no data to train on."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for key, value in params.items():
        text, found = re.subn(rf"(?m)^{key}:[^#\n]*", f"{key}: {value}  ", text)
        assert found == 1
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", folder)
    done = subprocess.run(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.skipif(not onednn.available(), reason=onednn.description())
def test_bfloat16_is_refused_by_a_cpu_that_has_none(tmp_path):
    limited = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    line = start_training(tmp_path, limited, device="cpu", precision="bfloat16")
    assert line == (
        "error: train: params.yaml: precision: bfloat16 was asked for, but this CPU has no "
        "instructions for it (AVX2); give auto or float32"
    )


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle can use GPUs")
def test_float16_is_refused_without_a_gpu(tmp_path):
    assert start_training(tmp_path, precision="float16") == (
        "error: train: params.yaml: precision: float16 was asked for, but this training runs on a "
        "CPU; give auto, or float16 on a GPU"
    )


@pytest.mark.parametrize(
    ("threads", "reason"), [(0, "threads: .*from 1 to 256"), (256, "threads: 256 was asked for, ")]
)
def test_threads_that_are_not_there_are_refused(tmp_path, threads, reason):
    if len(cpu.available_cores()) >= 256 == threads:
        pytest.skip("this machine has 256 cores")
    line = start_training(tmp_path, threads=threads)
    assert re.match(f"error: train: params.yaml: {reason}", line), line


@pytest.mark.parametrize(
    ("instructions", "vendor", "auto", "has_bfloat16"),
    [
        ("AMX bfloat16", "GenuineIntel", "bfloat16", True),
        ("AMX bfloat16", "AuthenticAMD", "bfloat16", True),
        ("AVX-512 bfloat16", "AuthenticAMD", "bfloat16", True),
        ("AVX-512 bfloat16", "GenuineIntel", "float32", True),
        ("AVX-512 bfloat16", "", "float32", True),
        ("AVX-512", "AuthenticAMD", "float32", False),
        ("AVX2", "GenuineIntel", "float32", False),
    ],
)
def test_auto_is_the_precision_that_is_fastest(
    monkeypatch, instructions, vendor, auto, has_bfloat16
):
    monkeypatch.setattr(onednn, "instruction_set", lambda: instructions)
    monkeypatch.setattr(cpu, "vendor", lambda: vendor)
    assert choose_precision("auto", "cpu") == auto
    assert choose_precision("float32", "cpu") == "float32"
    if has_bfloat16:
        assert choose_precision("bfloat16", "cpu") == "bfloat16"
    else:
        with pytest.raises(PipelineError, match="bfloat16"):
            choose_precision("bfloat16", "cpu")


def test_precision_of_a_gpu_is_one_that_it_has(monkeypatch):
    monkeypatch.setattr(device, "gpu_precisions", lambda: {"float32", "float16"})
    assert choose_precision("auto", "gpu") == "float16"
    with pytest.raises(PipelineError, match="bfloat16 was asked for, but this GPU has none"):
        choose_precision("bfloat16", "gpu")
    monkeypatch.setattr(device, "gpu_precisions", lambda: {"float32"})
    assert choose_precision("auto", "gpu") == "float32"


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle can use GPUs")
def test_gpu_without_a_gpu_build_is_refused():
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(PipelineError, match=r"device: gpu was asked for, .* PADDLE=gpu"):
        choose_device("gpu")


def test_gpu_computes_reproducibly_and_only_float16_by_the_batch_norm_that_is_inexact_for_others():
    persistent = "FLAGS_cudnn_batchnorm_spatial_persistent"
    for precision in ("float32", "bfloat16", "float16"):
        flags = gpu_flags(precision)
        assert flags["FLAGS_cudnn_deterministic"] is True
        assert flags["FLAGS_cudnn_exhaustive_search"] is False
        assert flags[persistent] == (precision == "float16")


def test_step_as_one_cuda_graph_is_refused_on_a_cpu(tmp_path):
    assert start_training(tmp_path, device="cpu", cuda_graph="true") == (
        "error: train: params.yaml: cuda_graph: true was asked for, but this training runs on a "
        "CPU; give false"
    )


def computed_first(folder, module: str) -> list:
    """What a program computes before it chooses the CPU, which a GPU would; and how it ends."""
    command = [sys.executable, "-m", "tests.first_device", module]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_export_touches_no_gpu(workspace):
    assert computed_first(workspace.path, "stages.export.main") == [[], ""]


def test_summary_of_a_training_touches_no_gpu(workspace):
    """The training itself ends where it would begin, after the summary: it has no data."""
    (workspace.path / "data/processed/train.npz").write_bytes(b"")
    (workspace.path / "models/summary.csv").unlink()
    found, message = computed_first(workspace.path, "stages.train.main")
    assert found == []
    assert message.startswith("data/processed/train.npz: ")
    assert (workspace.path / "models/summary.csv").exists()


def test_summary_touches_no_gpu():
    assert computed_first(ROOT, "tools.summary") == [[], ""]


def test_program_that_chooses_no_device_would_touch_a_gpu():
    found, _ = computed_first(ROOT, "tests.first_device")
    assert found[0] == "full"
    assert "to_tensor" in found


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        (
            {"device": "gpu", "instruction_set": "NVIDIA A100", "library": "CUDA 12.6, cuDNN 9.5"}
            | {"precision": "float16", "threads": 8, "processes": 2},
            "Trained in float16 by CUDA 12.6, cuDNN 9.5 on 2 × NVIDIA A100.",
        ),
        (
            {"device": "cpu", "instruction_set": "AVX2", "library": "oneDNN 3.6.2"}
            | {"precision": "float32", "threads": 2, "processes": 1},
            "Trained in float32 by oneDNN 3.6.2 on a CPU with AVX2, in 1 process of 2 threads.",
        ),
        (
            {"device": "cpu", "instruction_set": "", "library": "Paddle's own layers, because …"}
            | {"precision": "float32", "threads": 1, "processes": 2},
            "Trained in float32 by Paddle's own layers, because … on a CPU, in 2 processes of 1 "
            "thread.",
        ),
    ],
)
def test_card_says_what_the_network_was_trained_on(training, sentence):
    card = (ROOT / "stages/export/model_card.md.j2").read_text(encoding="utf-8")
    (line,) = (line for line in card.splitlines() if line.startswith("Trained in"))
    assert jinja2.Template(line).render(training=training) == sentence


def test_card_of_a_run_says_what_it_was_trained_on(finished):
    training = json.loads(finished.read("models/model.json"))["training"]
    timing = json.loads(finished.read("reports/timing.json"))
    keys = ("device", "precision", "threads", "instruction_set", "library", "processes")
    assert {key: training[key] for key in keys} == {key: timing[key] for key in keys}
    expected = f"Trained in {training['precision']} by {training['library']} on a CPU"
    assert expected in finished.read("models/README.md").decode()
