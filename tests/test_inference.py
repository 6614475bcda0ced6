import numpy as np
import pytest

from cifar100.network.resnet import ResNetConfig
from cifar100.trained.inference import predict_logits
from cifar100.trained.loading import TrainedModel
from tests.engine import some_network


@pytest.fixture
def model(classes):
    network = some_network(ResNetConfig(20, 4))
    network.eval()
    return TrainedModel(network, 1.0, vars(classes))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("batch_size", [1, 8, 49, 50, 64])
def test_logits_are_in_the_order_of_the_images(model, images, batch_size):
    """With a last batch that is smaller, of one image, or the only one."""
    found = predict_logits(model, images, batch_size, flip=False)
    assert found.shape == (50, 100)
    assert found.dtype == np.float32
    for index in (0, 7, 48, 49):
        alone = predict_logits(model, images[index : index + 1], 1, flip=False)
        np.testing.assert_allclose(found[index], alone[0], atol=1e-4)


def test_flip_is_the_mean_over_image_and_mirror_image(model, images):
    plain, mirrored = (
        predict_logits(model, batch, 8, flip=False) for batch in (images, images[..., ::-1])
    )
    assert not np.allclose(plain, mirrored, atol=0.01)
    found = predict_logits(model, images, 8, flip=True)
    np.testing.assert_allclose(found, (plain + mirrored) / 2, atol=1e-4)


def test_same_images_give_the_same_bytes(model, images):
    first = predict_logits(model, images, 16, flip=True)
    np.testing.assert_array_equal(predict_logits(model, images, 16, flip=True), first)
