"""The trained network in other formats: ONNX by onnxruntime, Paddle Inference, the model card."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import paddle
import pytest

from cifar100.dataset.splits import load_split
from cifar100.network.inference import predict_logits
from cifar100.network.resnet import ResNetConfig, build_resnet, statistics_of, weights_of
from cifar100.network.storage import TrainedModel
from cifar100.running.errors import PipelineError
from stages.export.inference_program import program_logits, save_program
from stages.export.onnx_check import largest_difference, onnx_logits
from stages.export.onnx_graph import onnx_model
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


def test_card_has_the_numbers_of_the_run(finished):
    card = finished.read("models/README.md").decode()
    metrics = json.loads(finished.read("reports/metrics.json"))
    assert card.startswith("# ResNet-20 of width 8 for CIFAR-100")
    assert f"| top-1 | {100 * metrics['top1']:.2f} %" in card
    assert f"| macro-F1 | {100 * metrics['macro_f1']:.2f} %" in card
    assert "1 epoch at 16 pixels, 1 epoch at 32 pixels" in card
    assert (finished.path / "models/inference/model.pdiparams").is_file()


def test_inference_folder_has_the_rights_of_its_parent_and_nothing_temporary_stays(finished):
    folder = finished.path / "models"
    assert (folder / "inference").stat().st_mode == folder.stat().st_mode
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"inference"}
