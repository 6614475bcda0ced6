"""The engine beside Paddle's own layers, whole networks at once."""

import copy

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from cifar100.network import onednn
from cifar100.network.resnet import (
    ResNet,
    ResNetConfig,
    build_resnet,
    plain_layers,
    statistics_of,
    weights_of,
)
from tests.engine import HAS_BF16, error, some_images, some_network, train

pytestmark = pytest.mark.skipif(not onednn.available(), reason=onednn.description())
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU has no instructions for bfloat16")

# Depth, stem, width; batch and size of the images. Each batch norm sees more than one value per
# channel: of one alone Paddle's returns its input, and the engine's its shift, as defined.
NETWORKS = [
    (18, "cifar", 5, 7, 8),
    (18, "cifar", 8, 3, 31),
    (18, "imagenet", 2, 5, 32),
    (20, "cifar", 2, 1, 8),
    (20, "cifar", 8, 5, 32),
    (20, "imagenet", 5, 2, 31),
    (50, "cifar", 2, 3, 16),
    (50, "cifar", 5, 1, 16),
    (50, "imagenet", 5, 7, 31),
    (34, "imagenet", 8, 4, 16),
]

# In bfloat16 batches of few values tell nothing: their statistics carry each rounding on.
LARGER_BATCHES = [
    (18, "cifar", 5, 16, 8),
    (18, "imagenet", 2, 15, 32),
    (20, "cifar", 8, 5, 32),
    (50, "cifar", 5, 15, 16),
    (34, "imagenet", 8, 31, 31),
]


def results(
    network: ResNet, images: paddle.Tensor
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Of a copy: logits in training and in evaluation, running statistics, gradients."""
    network = copy.deepcopy(network)
    network.train()
    trained = network(images)
    F.cross_entropy(trained, paddle.arange(len(images))).backward()
    gradients = [weight.grad.numpy() for weight in weights_of(network)]
    network.eval()
    with paddle.no_grad():
        evaluated = network(images).numpy()
    statistics = [tensor.numpy() for tensor in statistics_of(network)]
    return trained.numpy(), evaluated, statistics, gradients


def both(
    depth: int, stem: str, width: int, batch: int, size: int, precision: str
) -> list[tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """The results of the engine in this precision, and of Paddle's layers in float32."""
    network, images = some_network(ResNetConfig(depth, width, stem)), some_images(batch, size, size)
    with plain_layers(network):
        expected = results(network, images)
    network.set_precision(precision)
    return [results(network, images), expected]


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays])


@pytest.mark.parametrize(("depth", "stem", "width", "batch", "size"), NETWORKS)
def test_engine_computes_what_paddles_layers_compute(depth, stem, width, batch, size):
    found, expected = both(depth, stem, width, batch, size, "float32")
    assert error(found[0], expected[0]) < 1e-5
    assert error(found[1], expected[1]) < 1e-5
    for one, expected_one in zip(found[2], expected[2], strict=True):
        assert error(one, expected_one) < 1e-5
    assert error(flat(found[3]), flat(expected[3])) < 1e-4
    whole = np.linalg.norm(flat(expected[3]))
    for one, expected_one in zip(found[3], expected[3], strict=True):
        difference = np.linalg.norm(one - expected_one)
        assert difference < 1e-3 * np.linalg.norm(expected_one) + 1e-5 * whole


@needs_bf16
@pytest.mark.parametrize(("depth", "stem", "width", "batch", "size"), LARGER_BATCHES)
def test_engine_in_bfloat16_is_close(depth, stem, width, batch, size):
    """Logits by a few roundings, 2⁻⁸ each; gradients by the activations whose ReLU differs too."""
    found, expected = both(depth, stem, width, batch, size, "bfloat16")
    assert 1e-5 < error(found[0], expected[0]) < 0.05
    assert 1e-5 < error(found[1], expected[1]) < 0.02
    assert error(flat(found[2]), flat(expected[2])) < 0.005
    a, b = flat(found[3]), flat(expected[3])
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.93


def test_batch_norm_of_one_value_gives_its_shift():
    """A batch of one small image, whose last maps have one pixel; no value is divided by zero."""
    network, image = some_network(ResNetConfig(18, 2)), some_images(1, 8, 8)
    trained, _, statistics, gradients = results(network, image)
    last = network.groups[3][1]
    statistics_before = [tensor.numpy() for tensor in statistics_of(network)]
    variance = statistics[-1] / statistics_before[-1]
    np.testing.assert_allclose(variance, 0.9, rtol=1e-6)  # 0.9 of the old one, and 0.1 of zero
    assert np.isfinite(trained).all()
    assert np.isfinite(flat(gradients)).all()
    assert last.conv2.weight.shape == [16, 16, 3, 3]


def learnable(count: int, seed: int) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Images (count, 16, 16, 3) of 10 patterns under noise, and which pattern each has."""
    patterns = np.random.default_rng(0).normal(0, 12, (10, 16, 16, 3))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = 128 + patterns[labels] + rng.normal(0, 40, (count, 16, 16, 3))
    return paddle.to_tensor(images.clip(0, 255).astype(np.uint8)), paddle.to_tensor(labels)


@pytest.mark.slow
@needs_bf16
def test_training_ends_within_noise_in_both_precisions():
    """200 steps: losses and new images' top-1 differ no more than those of two seeds do.

    Of seeds 0, 1 and 2 in float32: losses of 0.19 to 0.32, top-1 of 0.61 to 0.69.
    """
    images, labels = learnable(1024, 1)
    others, expected = learnable(1000, 2)
    ends = {}
    for precision in ("float32", "bfloat16"):
        network = build_resnet(ResNetConfig(20, 8), 0, np.float32([0.5] * 3), np.float32([0.2] * 3))
        network.set_precision(precision)
        losses = train(network, images, labels, 200)
        network.set_precision("float32")
        network.eval()
        with paddle.no_grad():
            top1 = (network(others).argmax(1) == expected).astype("float32").mean().item()
        ends[precision] = np.mean(losses[:5]), np.mean(losses[-40:]), top1
    (first, loss, top1), (_, loss_bf16, top1_bf16) = ends["float32"], ends["bfloat16"]
    assert first > 2
    assert loss < 0.2 * first
    assert top1 > 0.5
    assert loss_bf16 == pytest.approx(loss, abs=0.2)
    assert top1_bf16 == pytest.approx(top1, abs=0.1)


def test_plain_layers_are_used_within_and_the_engine_after():
    network, images = some_network(ResNetConfig(20, 2)), some_images(2, 16, 16)
    used = []
    hook = network.stem[0].register_forward_post_hook(lambda *_: used.append(1))
    network.eval()
    with paddle.no_grad():
        network(images)
        assert not used
        with plain_layers(network):
            network(images)
        assert used == [1]
        with pytest.raises(RuntimeError), plain_layers(network):
            raise RuntimeError
        network(images)
    assert used == [1]
    hook.remove()


def test_gradient_may_lie_in_any_order_in_memory():
    """What follows the trunk may hand back a gradient of which the axes were swapped."""
    network, images = some_network(ResNetConfig(20, 2)), some_images(3, 8, 8).astype("float32")
    weight = paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 8, 2, 2)).astype("float32"))
    gradients = []
    for features in (network.features, lambda x: network.plain_features(x, padded=False)):
        network.train()
        (features(images / 255).transpose([0, 3, 1, 2]) * weight).sum().backward()
        gradients.append([w.grad.numpy() for w in weights_of(network.groups)])
        network.clear_gradients()
    assert error(flat(gradients[0]), flat(gradients[1])) < 1e-4
