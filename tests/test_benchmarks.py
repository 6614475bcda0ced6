import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from benchmarks import degenerate_values, throughput
from benchmarks.runner import depth_and_width
from benchmarks.stock_resnet import stock_resnet
from stages.network.resnet import ResNet, ResNetConfig
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
    network = ResNet(ResNetConfig(depth, width))
    for name, tensor in network.state_dict().items():
        if name.endswith(("_mean", "_variance")):
            tensor.set_value(paddle.rand(tensor.shape) + 0.5)
    network.eval()
    return network


@pytest.mark.parametrize("depth", [18, 20, 50])
def test_stock_network_computes_what_the_projects_does(depth):
    network, stock = project_network(depth, 4), stock_resnet(depth, 4)
    tensors = zip(network.state_dict().values(), stock.state_dict().values(), strict=True)
    for source, target in tensors:
        target.set_value(source)
    stock.eval()
    images = paddle.randn([2, 3, 32, 32])
    np.testing.assert_allclose(stock(images), network(images), rtol=1e-3, atol=1e-4)


@needs_torch
@pytest.mark.parametrize("depth", [18, 20, 50])
def test_torch_network_computes_what_the_projects_does(depth, tmp_path):
    network = project_network(depth, 4)
    images = paddle.randn([2, 3, 32, 32])
    weights = {f"weight{i}": t.numpy() for i, t in enumerate(network.state_dict().values())}
    np.savez(tmp_path / "given.npz", images=images.numpy(), depth=depth, width=4, **weights)
    command = [TORCH_PYTHON, "-c", TORCH_LOGITS, tmp_path / "given.npz", tmp_path / "logits.npy"]
    subprocess.run(command, cwd=ROOT, check=True)
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, network(images), rtol=1e-3, atol=1e-4)


@needs_torch
def test_torch_runner_reports_a_speed():
    command = [TORCH_PYTHON, "-m", "benchmarks.run_pytorch", "--network=resnet20-w2", "--steps=1"]
    output = subprocess.check_output([*command, "--layout=channels-last"], cwd=ROOT, text=True)
    assert json.loads(output)["images_per_second"] > 0


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


def test_degenerate_cases_are_what_they_say():
    maps, gradients = {}, {}
    for case in degenerate_values.CASES:
        step = degenerate_values.Step(case, depth=18, width=4)
        step.network.groups.register_forward_post_hook(
            lambda layer, given, y, case=case: maps.update({case: abs(y.numpy())})
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


def measurement(runner: str, speed: float, **more: float) -> dict:
    return {"network": "resnet18-w64", "runner": runner, "images_per_second": speed, **more}


def test_results_are_minimum_median_and_maximum_of_the_repetitions():
    measurements = [
        measurement("project", 60.04, peak_memory_mib=2000.2),
        measurement("paddle-stock", 10.0),
        measurement("evaluation", 200.0),
        measurement("project", 64.0, peak_memory_mib=2100.4),
        measurement("paddle-stock", 12.0),
        measurement("evaluation", 220.0),
        measurement("project", 50.0, peak_memory_mib=2050.0),
    ]
    results = throughput.summarise(measurements, {"cores": 2}, {"download": 1.5})
    assert results == {
        "machine": {"cores": 2},
        "throughput": [
            {
                "network": "resnet18-w64",
                "runner": "project",
                "images_per_second": {"min": 50.0, "median": 60.0, "max": 64.0},
            },
            {
                "network": "resnet18-w64",
                "runner": "paddle-stock",
                "images_per_second": {"min": 10.0, "median": 11.0, "max": 12.0},
            },
        ],
        "stages": {"download": 1.5},
        "evaluation": {
            "resnet18-w64": {"images_per_second": {"min": 200.0, "median": 210.0, "max": 220.0}}
        },
        "peak_memory_mib": {"resnet18-w64": 2100},
    }
    lines = throughput.to_text(results).splitlines()
    assert len(lines) == 4
    assert lines[2].split()[-1] == "5.45×"  # 60 to 11


def test_table_needs_no_project():
    results = throughput.summarise([measurement("pytorch-eager", 90.0)], {}, {})
    assert "×" not in throughput.to_text(results)


@needs_torch
def test_pytorch_alone_finds_the_top1_of_the_run(workspace):
    command = [str(TORCH_PYTHON), "-m", "benchmarks.check_accuracy"]
    assert "by PyTorch" in workspace.run(*command)
    metrics = workspace.path / "reports/metrics.json"
    content = json.loads(metrics.read_text())
    metrics.write_text(json.dumps(content | {"top1": content["top1"] + 0.001}))
    assert "differ by more than" in workspace.run(*command, ok=False)


def test_requirements_name_an_exact_torch():
    lock = Path(ROOT / "benchmarks/requirements.txt").read_text(encoding="utf-8")
    wanted = (ROOT / "benchmarks/requirements.in").read_text(encoding="utf-8")
    for line in wanted.splitlines():
        if line.startswith("torch"):
            assert f"{line} \\" in lock
