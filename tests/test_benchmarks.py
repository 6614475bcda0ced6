import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from benchmarks import degenerate_values, machine, throughput
from benchmarks.runner import depth_and_width
from benchmarks.stock_resnet import stock_resnet
from benchmarks.workspace import untuned_environment
from cifar100.network.resnet import ResNet, ResNetConfig
from cifar100.running import cpu
from cifar100.running.environment import ENGINES
from cifar100.running.errors import PipelineError
from tests.conftest import ROOT
from tests.pytorch import TORCH_PYTHON, needs_torch

# Loads weights in the order of the layers and computes logits, from one .npz file to another.
TORCH_LOGITS = """
import sys
import numpy as np
import torch
from benchmarks.torch_resnet import torch_resnet

given = np.load(sys.argv[1])
network = torch_resnet(int(given["depth"]), int(given["width"])).eval()
state = [t for name, t in network.state_dict().items() if "num_batches" not in name]
arrays = [given[f"weight{i}"] for i in range(len(state))]
assert f"weight{len(state)}" not in given
for tensor, array in zip(state, arrays):
    tensor.copy_(torch.from_numpy(array if tensor.shape == array.shape else array.T))
with torch.no_grad():
    np.save(sys.argv[2], network(torch.from_numpy(given["images"])).numpy())
"""


def project_network(depth: int, width: int) -> ResNet:
    """With batch-norm statistics as after some training, in evaluation mode."""
    paddle.seed(0)
    network = ResNet(ResNetConfig(depth, width), mean=np.zeros(3, "f4"), std=np.ones(3, "f4"))
    for name, tensor in network.state_dict().items():
        if name.endswith(("_mean", "_variance")):
            tensor.set_value(paddle.rand(tensor.shape) + 0.5)
    network.eval()
    return network


def layers_of(network: ResNet) -> list[paddle.Tensor]:
    """Parameters and statistics in the order of the layers, without the scale of the input."""
    return [t for name, t in network.state_dict().items() if name not in ("mean", "std")]


def logits_of(network: ResNet, images: paddle.Tensor) -> paddle.Tensor:
    """Of normalised images (N, 3, H, W), as the other networks take them."""
    return network(255 * images.transpose([0, 2, 3, 1]))


@pytest.mark.parametrize("depth", [18, 20, 50])
def test_stock_network_computes_what_the_projects_does(depth):
    network, stock = project_network(depth, 4), stock_resnet(depth, 4)
    tensors = zip(layers_of(network), stock.state_dict().values(), strict=True)
    for source, target in tensors:
        target.set_value(source)
    stock.eval()
    images = paddle.randn([2, 3, 32, 32])
    np.testing.assert_allclose(stock(images), logits_of(network, images), rtol=1e-3, atol=1e-4)


@needs_torch
@pytest.mark.parametrize("depth", [18, 20, 50])
def test_torch_network_computes_what_the_projects_does(depth, tmp_path):
    network = project_network(depth, 4)
    images = paddle.randn([2, 3, 32, 32])
    weights = {f"weight{i}": t.numpy() for i, t in enumerate(layers_of(network))}
    np.savez(tmp_path / "given.npz", images=images.numpy(), depth=depth, width=4, **weights)
    command = [TORCH_PYTHON, "-c", TORCH_LOGITS, tmp_path / "given.npz", tmp_path / "logits.npy"]
    subprocess.run(command, cwd=ROOT, check=True)
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, logits_of(network, images), rtol=1e-3, atol=1e-4)


@needs_torch
def test_torch_runner_reports_a_speed():
    command = [*throughput.RUNNERS["pytorch-channels-last-bfloat16"], "--network=resnet20-w2"]
    output = subprocess.check_output([*command, "--steps=1", "--warmup=1"], cwd=ROOT, text=True)
    result = json.loads(output)
    assert result["images_per_second"] > 0
    assert result["precision"] == "bfloat16"
    assert result["threads"] == len(cpu.available_cores())


@needs_torch
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_compiled_runner_reports_a_speed():
    result = throughput.measure("resnet20-w2", "pytorch-compiled-bfloat16", steps=1, warmup=1)
    assert result is not None
    assert result["images_per_second"] > 0


@needs_torch
@pytest.mark.slow
def test_runner_is_left_out_where_nothing_can_be_compiled(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where compiled code of earlier runs would lie
    runner = "pytorch-compiled-bfloat16"
    assert throughput.measure("resnet20-w2", runner, steps=1, warmup=1) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "resnet20-w2  pytorch-compiled-bfloat16 left out: torch.compile failed" in line


def test_other_runners_are_not_left_out():
    with pytest.raises(PipelineError, match="invalid depth_and_width value"):
        throughput.measure("resnet19-w2", "paddle-stock", steps=1, warmup=1)


@pytest.mark.parametrize("runner", ["paddle-stock", "paddle-onednn"])
def test_stock_runner_reports_its_flag(runner):
    result = throughput.measure("resnet20-w2", runner, steps=1, warmup=1)
    assert result["images_per_second"] > 0
    assert result["onednn"] == (runner == "paddle-onednn")
    assert (result["precision"], result["threads"]) == ("float32", 1)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse2 avx2 fma avx512f avx512bw avx512dq avx512vl avx512_bf16 amx_tile amx_bf16", "AMX"),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl avx512_bf16", "AVX-512 bfloat16"),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl", "AVX-512"),
        ("avx2 fma avx512f", "AVX2"),
        ("sse2", platform.machine()),
    ],
)
def test_processor_is_read_from_its_flags(tmp_path, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cores = f"model name\t: Some CPU\ncpu family\t: 6\nmodel\t\t: 207\nflags\t\t: {flags}\n\n" * 2
    cpuinfo.write_text(cores, encoding="ascii")
    assert machine.cpu_model(cpuinfo) == "Some CPU (family 6, model 207)"
    expected = "AMX bfloat16" if expected == "AMX" else expected
    assert machine.instruction_set(cpuinfo) == expected
    assert machine.instruction_set(tmp_path / "missing") == platform.machine()


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "avx512_bf16 amx_tile amx_bf16", "bfloat16"),
        ("AuthenticAMD", "avx512_bf16", "bfloat16"),
        ("GenuineIntel", "avx512_bf16", "float32"),
        ("AuthenticAMD", "avx2 fma", "float32"),
    ],
)
def test_peer_trains_in_the_precision_that_is_faster(tmp_path, vendor, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n", encoding="ascii")
    assert machine.precision_of_peer(cpuinfo) == expected


def test_slow_runners_take_fewer_steps():
    assert throughput.steps_of("resnet18-w64", "project") == (12, 2)
    assert throughput.steps_of("resnet18-w64", "pytorch-eager") == (3, 2)
    assert throughput.steps_of("resnet18-w64", "paddle-stock") == (2, 1)
    assert throughput.steps_of("resnet50-w64", "paddle-stock") == (1, 1)


def test_unknown_networks_are_refused():
    assert depth_and_width("resnet18-w64") == (18, 64)
    assert depth_and_width("resnet50-w64") == (50, 64)
    for name in ("resnet19-w64", "resnet18", "vgg16"):
        with pytest.raises(ValueError, match=r".+"):
            depth_and_width(name)


@pytest.mark.slow
def test_quick_run_measures_the_project(tmp_path):
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--runners", "project"]
    output = tmp_path / "results.json"
    arguments = ["--networks", "resnet20-w16", "--output", str(output)]
    printed = subprocess.check_output([*command, *arguments], cwd=ROOT, text=True)
    assert "Images per second" in printed
    results = json.loads(output.read_text())
    assert results["machine"]["paddle"] == paddle.__version__
    (row,) = results["throughput"]
    assert (row["network"], row["runner"]) == ("resnet20-w16", "project")
    assert 0 < row["images_per_second"]["min"] <= row["images_per_second"]["max"]
    assert (results["peak_memory_mib"]["resnet20-w16"] > 0) == sys.platform.startswith("linux")
    assert results["stages"] == results["evaluation"] == {}
    assert results["machine"]["instruction_set"] == machine.instruction_set()
    assert row["precision"] in ("float32", "bfloat16")
    assert row["threads"] == len(cpu.available_cores())


@pytest.mark.medium
def test_degenerate_cases_are_what_they_say():
    maps, gradients = {}, {}
    for case in degenerate_values.CASES:
        step = degenerate_values.Step(case, depth=18, width=4)
        step.network.classifier.register_forward_pre_hook(
            lambda layer, given, case=case: maps.update({case: abs(given[0].numpy())})
        )
        step.backward()
        gradients[case] = abs(step.network.stem[0].weight.grad.numpy())
    tiny = np.finfo(np.float32).tiny
    assert maps["ordinary"].max() > tiny
    assert np.median(gradients["ordinary"]) > tiny
    assert maps["zero variance"].max() == maps["zero variance"].min()
    assert 0 < maps["denormal maps"].min() <= maps["denormal maps"].max() < tiny
    assert np.median(gradients["denormal gradients"]) > 0
    assert gradients["denormal gradients"].max() < tiny


def measurement(runner: str, speed: float, precision: str = "float32", **more: float) -> dict:
    row = {"network": "resnet18-w64", "runner": runner, "images_per_second": speed}
    return row | {"precision": precision, "threads": 2} | more


def test_results_are_minimum_median_and_maximum_of_the_repetitions():
    measurements = [
        measurement("project", 60.04, "bfloat16", peak_memory_mib=2000.2),
        measurement("project-one-thread", 40.0, "bfloat16", peak_memory_mib=1900.0, threads=1),
        measurement("project-float32", 20.0, peak_memory_mib=3000.0),
        measurement("paddle-stock", 11.0),
        measurement("evaluation", 200.0),
        measurement("project", 64.0, "bfloat16", peak_memory_mib=2100.4),
        measurement("evaluation", 220.0),
        measurement("project", 50.0, "bfloat16", peak_memory_mib=2050.0),
    ]
    results = throughput.summarise(measurements, {"cores": 2}, {"download": 1.5})

    def row(runner, low, median, high, precision, threads, repetitions):
        return {
            "network": "resnet18-w64",
            "runner": runner,
            "images_per_second": {"min": low, "median": median, "max": high},
            "precision": precision,
            "threads": threads,
            "repetitions": repetitions,
        }

    assert results == {
        "machine": {"cores": 2},
        "throughput": [
            row("project", 50.0, 60.0, 64.0, "bfloat16", 2, 3),
            row("project-one-thread", 40.0, 40.0, 40.0, "bfloat16", 1, 1),
            row("project-float32", 20.0, 20.0, 20.0, "float32", 2, 1),
            row("paddle-stock", 11.0, 11.0, 11.0, "float32", 2, 1),
        ],
        "ratios": {
            "resnet18-w64": {
                "project-one-thread": 1.5,
                "project-float32": 3.0,
                "paddle-stock": 5.46,
            }
        },
        "stages": {"download": 1.5},
        "evaluation": {
            "resnet18-w64": {
                "images_per_second": {"min": 200.0, "median": 210.0, "max": 220.0},
                "precision": "float32",
                "threads": 2,
                "repetitions": 2,
            }
        },
        "peak_memory_mib": {"resnet18-w64": 2100},
    }
    lines = throughput.to_text(results).splitlines()
    assert len(lines) == 6
    assert " ".join(lines[4].split()) == (
        "resnet18-w64 paddle-stock float32 2 11.0 11.0 11.0 5.46×"
    )


def test_ratios_are_of_the_same_repetition():
    """A machine that becomes half as fast changes none."""
    speeds = [(60.0, 30.0), (30.0, 15.0), (32.0, 15.0)]
    measurements = [
        measurement(runner, speed, peak_memory_mib=2000.0)
        for pair in speeds
        for runner, speed in zip(("project", "pytorch-eager"), pair, strict=True)
    ]
    results = throughput.summarise(measurements, {}, {})
    assert results["ratios"] == {"resnet18-w64": {"pytorch-eager": 2.0}}


def test_table_needs_no_project():
    results = throughput.summarise([measurement("pytorch-eager", 90.0)], {}, {})
    assert results["ratios"] == {}
    assert "×" not in throughput.to_text(results)


@needs_torch
def test_pytorch_alone_finds_the_top1_of_the_run(workspace):
    command = [str(TORCH_PYTHON), "-m", "benchmarks.check_accuracy"]
    assert "by PyTorch" in workspace.run(*command)
    metrics = workspace.path / "reports/metrics.json"
    content = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(content | {"top1": content["top1"] + 0.001}))
    assert "differ by more than" in workspace.run(*command, ok=False)
    description = workspace.path / "models/model.json"
    content = json.loads(description.read_text())
    description.unlink()  # a link into DVC's cache perhaps
    content["network"]["stem"] = "imagenet"
    description.write_text(json.dumps(content))
    assert "stem: cifar only" in workspace.run(*command, ok=False)
    description.unlink()
    output = workspace.run(*command, ok=False)
    assert output == "error: check-accuracy: models/model.json: not found; run `make repro`\n"


def test_project_runner_refuses_more_threads_than_cores_in_one_line():
    command = [sys.executable, "-m", "benchmarks.run_project", "--network", "resnet20-w16"]
    done = subprocess.run(
        [*command, "--threads", "4096"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: run-project: argument --threads: 4096 was asked for, but there ")


def test_peers_are_freed_of_all_variables_that_the_project_clears(monkeypatch):
    for name in ENGINES:
        monkeypatch.setenv(f"{name}X", "1")
    assert not [name for name in untuned_environment() if name.startswith(ENGINES)]


def test_requirements_name_an_exact_torch():
    lock = Path(ROOT / "benchmarks/requirements.txt").read_text(encoding="utf-8")
    wanted = (ROOT / "benchmarks/requirements.in").read_text(encoding="utf-8")
    lines = [line for line in wanted.splitlines() if line.startswith("torch")]
    assert lines
    assert all(f"{line} \\" in lock for line in lines)
