"""Class activation maps: exact, on the side where the object is, drawn and stored faithfully."""

import numpy as np
import paddle
import pytest

from cifar100.class_activation.maps import class_maps
from cifar100.class_activation.overlay import AGAINST, FOR, OPACITY, enlarged, overlay
from cifar100.network.resnet import ResNetConfig, build_resnet, plain_layers, weights_of
from cifar100.results.class_maps import (
    MAX_ERRORS,
    load_class_maps,
    mapped_errors,
    save_class_maps,
)
from cifar100.results.predictions import Predictions
from cifar100.running.errors import PipelineError
from cifar100.trained.inference import predict_logits
from cifar100.trained.loading import TrainedModel
from tests.engine import some_network

CONFIGS = {
    (4, 4): ResNetConfig(18, 4),
    (8, 8): ResNetConfig(20, 4),
    (1, 1): ResNetConfig(18, 4, "imagenet"),
}


def trained(config: ResNetConfig, classes) -> TrainedModel:
    network = some_network(config)
    network.eval()
    return TrainedModel(network, 1.0, vars(classes))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", CONFIGS)
def test_mean_of_a_map_and_the_bias_are_the_logit(shape, flip, images, classes, monkeypatch):
    """Of every class, and also where the images are more than one batch."""
    monkeypatch.setattr("cifar100.class_activation.maps.BATCH", 3)
    model = trained(CONFIGS[shape], classes)
    labels = np.tile(np.arange(100), (len(images), 1))
    maps = class_maps(model, images, labels, flip)
    assert maps.shape == (7, 100, *shape)
    assert maps.dtype == np.float32
    bias = np.random.default_rng(1).normal(size=100).astype(np.float32)
    model.network.classifier.bias.set_value(bias)
    np.testing.assert_array_equal(class_maps(model, images, labels, flip), maps)  # without it
    logits = predict_logits(model, images, 7, flip)
    assert logits.std() > 0.1
    np.testing.assert_allclose(maps.mean((2, 3)) + bias, logits, atol=1e-4 * abs(logits).max())


@pytest.mark.parametrize("shape", CONFIGS)
def test_map_is_the_features_times_the_row_of_the_class(shape, images, classes):
    """In NumPy, from what Paddle's own layers hand to the mean over the positions."""
    model = trained(CONFIGS[shape], classes)
    seen = []
    hook = model.network.groups.register_forward_post_hook(
        lambda _layer, _inputs, output: seen.append(output.numpy())
    )
    with plain_layers(model.network), paddle.no_grad():
        model.network(paddle.to_tensor(images.transpose(0, 2, 3, 1)))
    hook.remove()
    (features,) = seen
    weight = model.network.state_dict()["classifier.weight"].numpy()
    labels = np.random.default_rng(0).integers(0, 100, (7, 2))
    maps = class_maps(model, images, labels, flip=False)
    for n in range(7):
        for k in range(2):
            expected = (features[n] * weight[:, labels[n, k]]).sum(axis=-1)
            scale = abs(expected).max()
            np.testing.assert_allclose(maps[n, k], expected, atol=1e-4 * scale)


def test_no_image_gives_no_map(classes):
    none = np.zeros((0, 3, 32, 32), np.uint8)
    maps = class_maps(trained(ResNetConfig(20, 4), classes), none, np.zeros((0, 2), int), flip=True)
    assert maps.shape == (0, 2, 1, 1)


NOTHING, SQUARE = 0, 1


def pictures(labels: np.ndarray, rng: np.random.Generator, left=None) -> np.ndarray:
    """Images (N, 3, 32, 32) of noise, some with a red square on the wanted side, or on any."""
    images = rng.normal(90, 20, (len(labels), 3, 32, 32))
    for image, label in zip(images, labels, strict=True):
        x, y = rng.integers(0, 20, 2) if left is None else (2 if left else 18, rng.integers(0, 20))
        if label == SQUARE:
            image[:, y : y + 12, x : x + 12] = np.array([220, 60, 60])[:, None, None]
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def square_model():
    """A small network that finds a square, wherever it is."""
    rng = np.random.default_rng(0)
    network = build_resnet(ResNetConfig(20, 4, classes=2), seed=3)
    optimizer = paddle.optimizer.Momentum(0.02, parameters=weights_of(network))
    for _ in range(40):
        labels = rng.integers(0, 2, 16)
        logits = network(paddle.to_tensor(pictures(labels, rng).transpose(0, 2, 3, 1)))
        paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(labels)).backward()
        optimizer.step()
        optimizer.clear_grad()
    network.eval()
    return TrainedModel(network, 1.0, {})


@pytest.mark.medium
@pytest.mark.parametrize("left", [True, False])
def test_class_is_seen_on_the_side_where_the_object_is(square_model, left):
    labels = np.full(30, SQUARE)
    images = pictures(labels, np.random.default_rng(1), left)
    predicted = predict_logits(square_model, images, 30, flip=False).argmax(axis=1)
    assert (predicted == SQUARE).mean() > 0.9
    maps = class_maps(square_model, images, labels[:, None], flip=False)[:, 0]
    for_square = np.maximum(maps, 0)
    on_side = for_square[:, :, :4] if left else for_square[:, :, 4:]
    assert (on_side.sum((1, 2)) / for_square.sum((1, 2))).min() > 0.65
    # What speaks against it has to be elsewhere: it is what speaks for nothing.
    other = class_maps(square_model, images, labels[:, None] - 1, flip=False)[:, 0]
    for_nothing = np.maximum(other, 0)
    off_side = for_nothing[:, :, 4:] if left else for_nothing[:, :, :4]
    assert off_side.sum() > 0.5 * for_nothing.sum()
    # With its mirror image: both maps have the object at the same place.
    both = class_maps(square_model, images, labels[:, None], flip=True)[:, 0]
    mirrored = class_maps(square_model, images[..., ::-1], labels[:, None], flip=False)[:, 0]
    np.testing.assert_allclose(both, (maps + mirrored[..., ::-1]) / 2, atol=1e-3)


def test_overlay_is_orange_where_the_map_speaks_for_the_class_and_blue_against_it():
    image = np.full((3, 32, 32), 100, np.uint8)
    picture = overlay(image, np.float32([[2, -2], [0, 0.5]]), 64)
    assert picture.shape == (64, 64, 3)
    expected = [np.round(0.2 * 100 + OPACITY * np.array(colour)) for colour in (FOR, AGAINST)]
    np.testing.assert_array_equal(picture[0, 0], expected[0])
    np.testing.assert_array_equal(picture[0, -1], expected[1])
    np.testing.assert_array_equal(picture[-1, 0], [100, 100, 100])
    weak = overlay(image, np.float32([[0.5]]), 64, strongest=2.0)
    np.testing.assert_allclose(weak[0, 0], 0.8 * 100 + 0.2 * np.array(FOR), atol=0.5)


def test_overlay_of_a_map_of_zeros_is_the_image_in_grey():
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    picture = overlay(image, np.zeros((4, 4), np.float32), 32)
    assert (picture == picture[:, :, :1]).all()
    np.testing.assert_allclose(
        picture[:, :, 0], np.tensordot([0.299, 0.587, 0.114], image, 1), atol=1
    )


def test_values_stand_in_the_middle_of_their_part():
    large = enlarged(np.float32([[0, 1], [0, 0]]), 32)
    assert large[0, -1] == 1
    assert large[7:9, 23:25].mean() == pytest.approx(1, abs=0.05)
    assert large[0, 15:17].mean() == pytest.approx(0.5)
    np.testing.assert_array_equal(enlarged(np.float32([[3]]), 4), np.full((4, 4), 3))


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 100)).astype(np.float32)
    return Predictions(logits, rng.integers(0, 100, 300), 1.0)


def test_maps_are_of_the_most_confident_errors(predictions):
    errors = mapped_errors(predictions)
    assert len(errors) == MAX_ERRORS
    assert (predictions.predicted != predictions.labels)[errors].all()
    confidence = predictions.confidence[errors]
    assert (np.diff(confidence) <= 0).all()
    others = np.setdiff1d(np.flatnonzero(predictions.predicted != predictions.labels), errors)
    assert predictions.confidence[others].max() <= confidence.min()


def test_stored_maps_are_read_as_they_were(tmp_path, predictions):
    maps = np.random.default_rng(0).normal(size=(MAX_ERRORS, 2, 4, 4)).astype(np.float32)
    path = tmp_path / "class_maps.npz"
    save_class_maps(path, maps, predictions)
    np.testing.assert_array_equal(load_class_maps(path, predictions), maps)
    first = path.read_bytes()
    save_class_maps(path, maps, predictions)
    assert path.read_bytes() == first


def test_maps_of_other_predictions_or_damaged_are_refused_in_one_line(tmp_path, predictions):
    path = tmp_path / "class_maps.npz"
    with pytest.raises(PipelineError, match="not found"):
        load_class_maps(path, predictions)
    maps = np.zeros((MAX_ERRORS, 2, 4, 4), np.float32)
    others = Predictions(predictions.logits[::-1].copy(), predictions.labels, 1.0)
    for wrong, of, reason in [
        (maps, others, "does not belong"),
        (maps[1:], predictions, "does not belong"),
        (maps[:, :1], predictions, "does not belong"),
        (maps[:, :, 0], predictions, "of shape"),
        (maps.astype(np.float64), predictions, "of shape"),
        (maps + np.float32("nan"), predictions, "finite"),
    ]:
        save_class_maps(path, wrong, of)
        with pytest.raises(PipelineError, match=rf"^\S+class_maps\.npz: .*{reason}") as caught:
            load_class_maps(path, predictions)
        assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PipelineError, match="not class activation maps"):
        load_class_maps(path, predictions)
