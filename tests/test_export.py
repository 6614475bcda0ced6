"""The trained network in other formats: ONNX by onnxruntime, Paddle Inference, the model card."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import paddle
import pytest
import yaml
from paddle import nn
from paddle.vision.models import resnet as paddles
from safetensors.numpy import load_file

from cifar100.dataset.splits import load_split
from cifar100.network.resnet import (
    BOTTLENECK_DEPTHS,
    ResNet,
    ResNetConfig,
    build_resnet,
    statistics_of,
    weights_of,
)
from cifar100.network.storage import save_description
from cifar100.running.errors import PipelineError
from cifar100.trained.inference import predict_logits
from cifar100.trained.loading import TrainedModel
from stages.export.inference_program import program_logits, save_program
from stages.export.model_card import model_card
from stages.export.onnx_check import largest_difference, onnx_logits
from stages.export.onnx_graph import onnx_model
from stages.export.paddle_weights import write_weights
from tests.conftest import ROOT

MEAN, STD = np.float32([0.5, 0.45, 0.4]), np.float32([0.2, 0.25, 0.3])


def some_model(config: ResNetConfig) -> TrainedModel:
    """With batch-norm values as after some training."""
    network = build_resnet(config, 0, MEAN, STD)
    for tensor in [*statistics_of(network), *(w for w in weights_of(network) if w.ndim == 1)]:
        tensor.set_value(paddle.uniform(tensor.shape, min=0.5, max=1.5))
    network.eval()
    names = [f"class {i}" for i in range(config.classes)]
    classes = {"fine": names, "coarse": ["any"], "coarse_of_fine": [0] * config.classes}
    return TrainedModel(network, 0.7, classes)


def exported(model: TrainedModel) -> bytes:
    return onnx_model(model).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(18, 4),
        ResNetConfig(20, 4),
        pytest.param(ResNetConfig(50, 2), marks=pytest.mark.medium),
        pytest.param(ResNetConfig(34, 2, "imagenet"), marks=pytest.mark.medium),
    ],
)
def test_formats_give_the_logits_of_the_network(tmp_path, config):
    """Paddle Inference with the settings that it has by default."""
    model = some_model(config)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    expected = predict_logits(model, images, 5, flip=False)
    tolerance = 1e-4 * np.abs(expected).max()
    content = exported(model)
    np.testing.assert_allclose(onnx_logits(content, images), expected, atol=tolerance)
    np.testing.assert_allclose(onnx_logits(content, images[:1]), expected[:1], atol=tolerance)
    save_program(model, tmp_path)
    np.testing.assert_allclose(program_logits(tmp_path, images), expected, atol=tolerance)
    np.testing.assert_allclose(program_logits(tmp_path, images[:2]), expected[:2], atol=tolerance)


@pytest.mark.slow
def test_same_network_gives_the_same_program(tmp_path):
    """In a process of its own, as the names in it count the layers that a process has made."""
    code = """
import sys
from pathlib import Path
from stages.export.inference_program import save_program
from tests.test_export import ResNetConfig, some_model
save_program(some_model(ResNetConfig(20, 2)), Path(sys.argv[1]))
"""
    contents = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=True)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert sorted(contents[0]) == ["model.json", "model.pdiparams"]
    assert contents[0] == contents[1]


def test_onnx_has_calibrated_probabilities_and_the_class_names():
    model = some_model(ResNetConfig(20, 4))
    content = exported(model)
    assert content == exported(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
    powers = np.exp(logits / 0.7)
    np.testing.assert_allclose(probabilities, powers / powers.sum(1, keepdims=True), 1e-4, 1e-9)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == model.class_names


def test_format_that_differs_is_refused():
    logits = np.zeros((2, 100), np.float32)
    assert largest_difference(logits + 5e-4, logits, "model.onnx") == pytest.approx(5e-4)
    for wrong in (logits + 2e-3, np.full_like(logits, np.nan)):
        with pytest.raises(PipelineError, match=r"^model\.onnx: its logits differ by up to"):
            largest_difference(wrong, logits, "model.onnx")


def test_onnx_reaches_the_top1_of_the_run(finished):
    content = finished.read("models/model.onnx")
    test = load_split(finished.path / "data/processed/test.npz")
    mirrored = np.ascontiguousarray(test.images[..., ::-1])
    logits = (onnx_logits(content, test.images) + onnx_logits(content, mirrored)) / 2
    stored = np.load(finished.path / "data/predictions/test.npz")["logits"]
    np.testing.assert_allclose(logits, stored, atol=1e-3)
    metrics = json.loads(finished.read("reports/metrics.json"))
    assert (logits.argmax(1) == test.fine).mean() == pytest.approx(metrics["top1"], abs=2e-4)


def paddles_resnet(depth: int, width: int, stem: str) -> nn.Layer:
    """Paddle's own class, of another width and with the stem for 32×32 pixels if asked for."""
    block = paddles.BottleneckBlock if depth in BOTTLENECK_DEPTHS else paddles.BasicBlock
    network = paddles.ResNet(block, depth, num_classes=100)
    if stem == "cifar":
        network.conv1 = nn.Conv2D(3, width, 3, padding=1, bias_attr=False)
        network.maxpool = nn.Identity()
    if width != 64:
        if stem == "imagenet":
            network.conv1 = nn.Conv2D(3, width, 7, 2, 3, bias_attr=False)
        network.bn1, network.inplanes = nn.BatchNorm2D(width), width
        for group in range(4):
            name = f"layer{group + 1}"
            blocks, stride = len(getattr(network, name)), 2 if group else 1
            setattr(network, name, network._make_layer(block, width * 2**group, blocks, stride))
        network.fc = nn.Linear(width * 8 * block.expansion, 100)
    network.eval()
    return network


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(18, 4),
        ResNetConfig(34, 2),
        ResNetConfig(50, 2),
        ResNetConfig(34, 2, "imagenet"),
        pytest.param(ResNetConfig(18, 64), marks=pytest.mark.slow),
        pytest.param(ResNetConfig(101, 2), marks=pytest.mark.slow),
        pytest.param(ResNetConfig(152, 2), marks=pytest.mark.slow),
    ],
)
def test_pdparams_give_the_same_logits_in_the_class_of_paddle(tmp_path, config):
    model = some_model(config)
    write_weights(tmp_path / "model.pdparams", model.network)
    tensors = paddle.load(str(tmp_path / "model.pdparams"))
    theirs = paddles_resnet(config.depth, config.width, config.stem)
    missing, unexpected = theirs.set_state_dict(tensors)
    assert not missing
    assert not unexpected
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    expected = predict_logits(model, images, 5, flip=False)
    normalised = (images / np.float32(255) - MEAN.reshape(3, 1, 1)) / STD.reshape(3, 1, 1)
    found = theirs(paddle.to_tensor(normalised)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_pdparams_of_other_depths_have_the_names_of_the_network(finished):
    tensors = paddle.load(str(finished.path / "models/model.pdparams"))
    network = ResNet(ResNetConfig(20, 8))
    missing, unexpected = network.set_state_dict(tensors)
    assert not missing
    assert not unexpected
    stored = load_file(finished.path / "models/model.safetensors")
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), stored[name])


@pytest.mark.parametrize("config", [ResNetConfig(20, 2), ResNetConfig(18, 2)])
def test_same_network_gives_the_same_pdparams(tmp_path, config):
    """Whatever layers the process has made before."""
    for name in ("first", "second"):
        write_weights(tmp_path / name, build_resnet(config, 0))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("config", [ResNetConfig(18, 4), ResNetConfig(20, 48)])
def test_code_in_the_docs_loads_the_pdparams(tmp_path, monkeypatch, classes, config):
    model = some_model(config)
    monkeypatch.chdir(tmp_path)
    write_weights(Path("models/model.pdparams"), model.network)
    save_description(Path("models/model.json"), model.network, 1.0, vars(classes), {})
    text = (ROOT / "docs/using-the-model.md").read_text(encoding="utf-8")
    section = text.split("## Paddle weights")[1].split("\n## ")[0]
    codes = re.findall(r"```python\n(.*?)```", section, re.S)
    (code,) = (c for c in codes if ("paddle.vision" in c) == (config.depth == 18))
    names: dict[str, object] = {}
    exec(code, names)
    network = names["network"]
    assert isinstance(network, nn.Layer)
    ours = model.network.classifier.weight.numpy()
    theirs = network.fc if config.depth == 18 else network.classifier
    np.testing.assert_array_equal(theirs.weight.numpy(), ours)
    black = np.zeros((1, 3, 32, 32), np.uint8)
    expected = predict_logits(model, black, 1, flip=False)
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(names["logits"].numpy(), expected, atol=tolerance)


def test_card_has_the_numbers_of_the_run(finished):
    card = finished.read("models/README.md").decode()
    metrics = json.loads(finished.read("reports/metrics.json"))
    assert "\n# ResNet-20 of width 8 for synthetic images\n" in card
    assert f"| top-1 | {100 * metrics['top1']:.2f} %" in card
    assert f"| macro-F1 | {100 * metrics['macro_f1']:.2f} %" in card
    assert "1 epoch at 16 pixels, 1 epoch at 32 pixels" in card
    assert (finished.path / "models/inference/model.pdiparams").is_file()


@pytest.mark.parametrize("real", [True, False])
def test_card_begins_with_what_model_hubs_read(finished, tmp_path, real):
    description = json.loads(finished.read("models/model.json"))
    if real:
        description["classes"]["coarse"][0] = "aquatic_mammals"
    (tmp_path / "model.json").write_text(json.dumps(description), encoding="utf-8")
    shutil.copy(finished.path / "models/summary.csv", tmp_path)
    card = model_card(tmp_path, finished.path / "reports", 1e-6)
    empty, front_matter, _ = card.split("---\n", 2)
    assert empty == ""
    fields = yaml.safe_load(front_matter)
    assert fields["license"] == "apache-2.0"
    assert fields["library_name"] == "paddlepaddle"
    assert fields["pipeline_tag"] == "image-classification"
    assert fields["metrics"] == ["accuracy"]
    assert fields.get("datasets") == (["cifar100"] if real else None)
    assert ("cifar100" in fields["tags"]) == real
    assert ("CIFAR-100 comes without a licence" in card) == real
    (model,) = fields["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"]["split"] == "test"
    scores = {metric["name"]: metric["value"] for metric in result["metrics"]}
    metrics = json.loads(finished.read("reports/metrics.json"))
    assert scores == {"top-1": metrics["top1"], "top-5": metrics["top5"]}


def test_inference_folder_has_the_rights_of_its_parent_and_nothing_temporary_stays(finished):
    folder = finished.path / "models"
    assert (folder / "inference").stat().st_mode == folder.stat().st_mode
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"inference"}
