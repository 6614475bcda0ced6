import numpy as np
import pytest

from cifar100.network.inference import logits_of_batch, predict_logits
from cifar100.network.resnet import ResNetConfig, build_resnet
from cifar100.network.storage import load_model, save_description, save_weights
from cifar100.running import cpu

CONFIG = ResNetConfig(20, 4)
HALF = np.full(3, 0.5, np.float32)


@pytest.fixture
def stored(tmp_path, classes):
    weights, description = tmp_path / "model.safetensors", tmp_path / "model.json"
    save_weights(weights, build_resnet(CONFIG, seed=0))
    save_description(description, CONFIG, HALF, HALF, 1.0, vars(classes), {})
    return weights, description


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), dtype=np.uint8)


def test_logits_do_not_depend_on_the_number_of_cores(stored, images, monkeypatch):
    results = []
    for cores in ([0], [0, 1]):
        monkeypatch.setattr(cpu, "available_cores", lambda cores=cores: cores)
        results.append(predict_logits(*stored, images, 5, flip=True, device="cpu"))
    assert results[0].shape == (50, 100)
    np.testing.assert_array_equal(results[0], results[1])


def test_logits_are_in_the_order_of_the_images(stored, images):
    whole = predict_logits(*stored, images, 8, flip=False, device="cpu")
    model = load_model(*stored)
    for index in (0, 9, 49):
        alone = logits_of_batch(model, images[index : index + 1], flip=False)
        np.testing.assert_allclose(whole[index], alone[0], atol=1e-4)


def test_flip_is_the_mean_over_image_and_mirror_image(stored, images):
    model = load_model(*stored)
    plain, mirrored = (
        logits_of_batch(model, batch, flip=False) for batch in (images, images[..., ::-1].copy())
    )
    found = logits_of_batch(model, images, flip=True)
    np.testing.assert_allclose(found, (plain + mirrored) / 2, atol=1e-4)
