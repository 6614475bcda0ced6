import copy
import functools
import json
import operator
import re

import numpy as np
import paddle
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from cifar100.network import onednn
from cifar100.network.inputs import channel_statistics, normalise
from cifar100.network.layers import Convolution
from cifar100.network.onednn import binding
from cifar100.network.resnet import (
    BLOCKS_PER_GROUP,
    ResNet,
    ResNetConfig,
    build_resnet,
    statistics_of,
    weights_of,
)
from cifar100.network.storage import save_description, save_weights
from cifar100.running.errors import PipelineError
from cifar100.trained.loading import load_model
from stages.export.float16_weights import write_float16
from stages.train.summary import summarise
from stages.train.whitening import whiten_stem
from tests.engine import some_network
from tools.summary import to_text

MEAN, STD = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
SMALL = ResNetConfig(20, 4)


@pytest.fixture(params=["oneDNN", "Paddle's layers"])
def engine(request, monkeypatch):
    """What computes the networks that the test builds."""
    if request.param != "oneDNN":
        monkeypatch.setattr(binding, "_library", None)
    elif not onednn.available():
        pytest.skip(onednn.description())


on_both = pytest.mark.usefixtures("engine")


def some_images(count: int, size: int = 32, seed: int = 0) -> paddle.Tensor:
    rng = np.random.default_rng(seed)
    return paddle.to_tensor(rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def logits_of(network: ResNet, images: paddle.Tensor) -> np.ndarray:
    """In evaluation mode, which the network is left in."""
    network.eval()
    with paddle.no_grad():
        return network(images).numpy()


def train_step(network: ResNet, images: paddle.Tensor) -> None:
    """One step that changes the parameters a lot."""
    network.train()
    optimizer = paddle.optimizer.SGD(0.5, parameters=weights_of(network))
    labels = paddle.arange(len(images))
    paddle.nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
    optimizer.clear_grad()


def count_parameters(config: ResNetConfig) -> int:
    return sum(int(np.prod(p.shape)) for p in weights_of(ResNet(config)))


@pytest.mark.parametrize(
    ("depth", "width", "parameters"),
    [
        (18, 64, 11_220_132),
        (34, 64, 21_328_292),
        (50, 64, 23_705_252),
        pytest.param(101, 64, 42_697_380, marks=pytest.mark.medium),
        pytest.param(152, 64, 58_341_028, marks=pytest.mark.medium),
        (20, 16, 278_324),
    ],
)
def test_parameter_counts_are_those_of_the_published_networks(depth, width, parameters):
    assert count_parameters(ResNetConfig(depth, width)) == parameters


def test_weights_and_statistics_are_all_that_is_stored():
    network = ResNet(SMALL)
    norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    assert len(statistics_of(network)) == 2 * len(norms)
    stored = network.state_dict()
    names = {name for name, _ in network.named_parameters()} | {"mean", "std"}
    assert set(stored) == names
    assert len(weights_of(network)) + len(statistics_of(network)) + 2 == len(stored)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_depths_count_their_layers(depth):
    names = [name for name, _ in ResNet(ResNetConfig(depth, 1)).named_parameters()]
    weights = [n for n in names if "conv" in n or n in ("stem.0.weight", "classifier.weight")]
    assert len(weights) == depth


@on_both
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("depth", [18, 50, 20])
def test_network_takes_images_of_any_training_size(depth, stem):
    network = ResNet(ResNetConfig(depth, 4, stem))
    for size in (8, 16, 24, 30, 31, 32):
        assert network(some_images(2, size)).shape == [2, 100]
        assert network(some_images(2), size).shape == [2, 100]
    assert np.isfinite(logits_of(network, some_images(3))).all()


@on_both
def test_images_are_scaled_to_the_size_that_is_asked_for():
    network = build_resnet(SMALL, 0, MEAN, STD)
    whole = logits_of(network, some_images(2))
    enlarged = paddle.to_tensor(some_images(2, 16).numpy().repeat(2, 1).repeat(2, 2))
    with paddle.no_grad():
        np.testing.assert_array_equal(network(some_images(2), 32).numpy(), whole)
        halved = network(enlarged, 16).numpy()
    np.testing.assert_allclose(halved, logits_of(network, some_images(2, 16)), atol=1e-4)


@on_both
def test_images_may_be_float_and_lie_in_any_order_in_memory():
    network = build_resnet(SMALL, 0, MEAN, STD)
    images = some_images(3)
    turned = paddle.to_tensor(images.numpy().transpose(0, 3, 1, 2)).transpose([0, 2, 3, 1])
    expected = logits_of(network, images)
    for same in (turned, images.astype("float32"), turned.astype("float32")):
        np.testing.assert_array_equal(logits_of(network, same), expected)
    network.train()
    network(turned).sum().backward()
    assert images.grad is None
    assert all(weight.grad is not None for weight in weights_of(network))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_channels_of_zeros_change_neither_logits_nor_gradients(stem):
    """What tensor cores get: 8 channels in the place of 3. The weights keep their shape."""
    network, images = some_network(ResNetConfig(20, 4, stem)), some_images(4)
    x = normalise(images, network.mean, network.std)
    network.train()
    found = []
    for padded in (False, True):
        features = network.plain_features(x, padded)
        (features * features).sum().backward()
        gradient = network.stem[0].weight.grad
        assert gradient.shape == network.stem[0].weight.shape
        found.append((features.numpy(), gradient.numpy()))
        network.clear_gradients()
    for plain, padded in zip(*found, strict=True):
        np.testing.assert_allclose(padded, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())


def test_batch_norm_is_fused_at_the_ends_of_the_blocks_and_only_in_training():
    """The operator itself is for GPUs: Paddle knows it, with these arguments, and has no kernel."""
    network, images = some_network(SMALL), some_images(2)
    before = logits_of(network, images)
    network.fuse_batch_norm()
    np.testing.assert_array_equal(logits_of(network, images), before)
    fused = [layer for layer in network.sublayers() if getattr(layer, "fused", False)]
    assert fused == [block.last_norm for group in network.groups for block in group]
    network.train()
    with pytest.raises(RuntimeError, match=r"fused_bn_add_activation.* not registered"):
        network.plain_features(normalise(images, network.mean, network.std), padded=False)


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match=r"^float16 is for GPUs, and this network is on a CPU$"):
        ResNet(SMALL).set_precision("float16")


@on_both
def test_gradients_of_two_batches_add_up_until_they_are_cleared():
    network = build_resnet(SMALL, 0, MEAN, STD)
    gradients = []
    for seeds in ((1,), (2,), (1, 2)):
        for seed in seeds:
            network(some_images(4, 16, seed)).sum().backward()
        gradients.append([weight.grad.numpy() for weight in weights_of(network)])
        network.clear_gradients()
    for first, second, both in zip(*gradients, strict=True):
        np.testing.assert_allclose(both, first + second, atol=1e-4 * np.abs(both).max() + 1e-6)


@on_both
def test_training_moves_the_running_statistics_by_a_tenth_and_evaluation_does_not():
    network = build_resnet(SMALL, 0, MEAN, STD)
    norm, images = network.stem[1], some_images(4)
    with paddle.no_grad():
        maps = network.stem[0](normalise(images, network.mean, network.std)).numpy()
    network.train()
    network(images)
    mean, variance = norm._mean.numpy(), norm._variance.numpy()
    np.testing.assert_allclose(mean, 0.1 * maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * maps.var((0, 1, 2)), rtol=1e-4)
    logits_of(network, images)
    np.testing.assert_array_equal(norm._mean.numpy(), mean)


@on_both
def test_evaluation_uses_the_parameters_of_now():
    """Also after an evaluation, whose parameters the engine has folded into its weights."""
    network, images = build_resnet(SMALL, 0, MEAN, STD), some_images(4)
    before = logits_of(network, images)
    train_step(network, images)
    after = logits_of(network, images)
    assert not np.allclose(before, after, atol=0.01)
    fresh = ResNet(SMALL)
    fresh.set_state_dict(network.state_dict())
    np.testing.assert_array_equal(logits_of(fresh, images), after)
    train_step(network, images)
    assert not np.allclose(logits_of(network, images), after, atol=0.01)


@on_both
def test_copy_is_a_network_of_its_own():
    network, images = build_resnet(SMALL, 0, MEAN, STD), some_images(4)
    before = logits_of(network, images)
    copied = copy.deepcopy(network)
    np.testing.assert_array_equal(logits_of(copied, images), before)
    train_step(copied, images)
    assert not np.allclose(logits_of(copied, images), before, atol=0.01)
    np.testing.assert_array_equal(logits_of(network, images), before)
    assert all(weight.grad is None for weight in weights_of(network))


@on_both
def test_images_do_not_change_each_others_logits():
    """In evaluation, whatever the number of images."""
    network, images = some_network(SMALL), some_images(9)
    together = logits_of(network, images)
    for start, stop in ((0, 1), (1, 4), (4, 9)):
        alone = logits_of(network, images[start:stop])
        np.testing.assert_allclose(alone, together[start:stop], atol=1e-4)


@on_both
def test_same_input_gives_the_same_bytes():
    network, images = some_network(SMALL), some_images(32)
    first = logits_of(network, images)
    assert all(np.array_equal(logits_of(network, images), first) for _ in range(3))


def test_initial_weights_follow_he_and_depend_on_the_seed():
    network = build_resnet(ResNetConfig(18, 32), seed=1)
    weight = network.groups[3][1].conv2.weight.numpy()
    assert weight.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.01)
    again = build_resnet(ResNetConfig(18, 32), seed=1).groups[3][1].conv2.weight.numpy()
    other = build_resnet(ResNetConfig(18, 32), seed=2).groups[3][1].conv2.weight.numpy()
    np.testing.assert_array_equal(weight, again)
    assert not np.array_equal(weight, other)


@pytest.mark.parametrize("depth", [20, 50])
def test_zero_init_residual_makes_each_block_its_shortcut(depth):
    network = build_resnet(ResNetConfig(depth, 4), seed=0, zero_init_residual=True)
    network.eval()
    x = paddle.rand([1, 8, 8, 16 if depth == 50 else 4])
    block = network.groups[0][1]
    np.testing.assert_allclose(block(x).numpy(), x.numpy(), atol=1e-6)


def test_summary_lists_layers_shapes_parameters_and_multiply_adds():
    table = summarise(ResNet(ResNetConfig(18, 64)))
    total = table.iloc[-1]
    assert total["layer"] == "total"
    assert total["parameters"] == 11_220_132
    assert total["multiply_adds"] == 555_468_800  # 0.56 billion, as published for this network
    first = table.iloc[0]
    assert (first["layer"], first["output_shape"]) == ("stem.0", "64×32×32")
    assert first["multiply_adds"] == 27 * 64 * 32 * 32
    assert "11,220,132" in to_text(table)


def test_normalise_maps_bytes_to_zero_mean_and_unit_deviation():
    images = some_images(4, 8)
    found = normalise(images, paddle.to_tensor(MEAN), paddle.to_tensor(STD)).numpy()
    expected = (images.numpy() / 255 - MEAN) / STD
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_channel_statistics_equal_numpys(samples):
    mean, std = channel_statistics(samples.images)
    scaled = samples.images / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-5)


@pytest.fixture
def stored(tmp_path, classes):
    network = build_resnet(SMALL, 3, MEAN, STD)
    network.stem[1]._mean.set_value(paddle.rand([4]))
    paths = tmp_path / "model.safetensors", tmp_path / "model.json"
    save_weights(paths[0], network)
    save_description(paths[1], network, 0.8, vars(classes), {})
    return network, *paths


@on_both
def test_stored_model_gives_the_same_logits(stored, classes):
    network, weights, description = stored
    model = load_model(weights, description)
    assert not model.network.training
    assert model.temperature == 0.8
    assert model.class_names == vars(classes)
    np.testing.assert_array_equal(model.network.mean.numpy(), MEAN)
    np.testing.assert_array_equal(model.network.std.numpy(), STD)
    images = some_images(4)
    with paddle.no_grad():
        found = model.network(images).numpy()
    np.testing.assert_array_equal(found, logits_of(network, images))


def test_same_network_gives_the_same_bytes(stored, tmp_path):
    network, weights, _ = stored
    save_weights(tmp_path / "again.safetensors", network)
    assert weights.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_float16_weights_are_those_rounded_where_that_keeps_them(stored, tmp_path):
    network, weights, description = stored
    weight = network.classifier.weight.numpy()
    weight[0, 0] = 1e6  # more than float16 holds
    network.classifier.weight.set_value(weight)
    network.stem[1]._variance.set_value(paddle.full([4], 1e6))
    save_weights(weights, network)
    half = tmp_path / "half.safetensors"
    write_float16(half, network)
    stored_half, whole = load_file(half), load_file(weights)
    for name, value in whole.items():
        rounds = value.ndim > 1 and name != "classifier.weight"
        assert stored_half[name].dtype == (np.float16 if rounds else np.float32), name
        expected = value.astype(np.float16) if rounds else value
        np.testing.assert_array_equal(stored_half[name], expected)
    loaded = load_model(half, description).network
    assert {str(t.dtype) for t in loaded.state_dict().values()} == {"paddle.float32"}
    with paddle.no_grad():
        found = loaded(some_images(4)).numpy()
    np.testing.assert_allclose(found, logits_of(network, some_images(4)), rtol=0.01, atol=0.01)


def test_damage_within_float16_weights_is_noticed(stored):
    """One bit, which leaves all numbers finite; a file without a digest cannot tell."""
    network, weights, description = stored
    write_float16(weights, network)
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    assert "damaged: not the numbers that were written; get it again" in refusal(
        weights, description
    )


def refusal(weights, description) -> str:
    with pytest.raises(PipelineError) as caught:
        load_model(weights, description)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_another_network_are_refused(stored, tmp_path):
    _, weights, description = stored
    save_weights(weights, build_resnet(ResNetConfig(20, 5), seed=0))
    assert "should have shape" in refusal(weights, description)
    tensors = load_file(weights)
    tensors["extra"] = np.zeros(1, np.float32)
    save_file(tensors, weights)
    assert "does not fit" in refusal(weights, description)


def test_damaged_or_missing_files_are_refused(stored):
    _, weights, description = stored
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "not a safetensors file" in refusal(weights, description)
    weights.unlink()
    assert "model.safetensors: not found" in refusal(weights, description)
    content = json.loads(description.read_text())
    content["network"]["depth"] = 19
    description.write_text(json.dumps(content))
    assert "unsupported depth 19" in refusal(weights, description)
    description.write_text("{}")
    assert "model.json: not the description of a model" in refusal(weights, description)
    description.unlink()
    assert "model.json: not found" in refusal(weights, description)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.float32([0.2, 0, 0.3]), "tensor std is not of numbers above 0"),
        (np.float32([0.2, -1, 0.3]), "tensor std is not of numbers above 0"),
        (np.float32([0.2, np.nan, 0.3]), "tensor std is not of finite float32 numbers"),
        (np.float64([0.2, 0.2, 0.3]), "tensor std is not of finite float32 numbers"),
        (np.float32([0.2, 0.2]), r"tensor std should have shape \(3,\) and has \(2,\)"),
        (None, r"tensor std should have shape \(3,\) and has none"),
    ],
)
def test_weights_hold_what_the_input_is_divided_by(stored, values, reason):
    _, weights, description = stored
    tensors = {k: v for k, v in load_file(weights).items() if k != "std"}
    save_file(tensors if values is None else tensors | {"std": values}, weights)
    assert re.search(reason, refusal(weights, description))


def test_description_tells_readers_what_the_weights_hold(stored):
    _, weights, description = stored
    content = json.loads(description.read_text())
    assert content["format"] == 3
    assert content["input"]["mean"] == load_file(weights)["mean"].tolist()
    assert content["input"]["std"] == load_file(weights)["std"].tolist()
    content["input"]["mean"][0] = 10**400
    description.write_text(json.dumps(content))
    np.testing.assert_array_equal(load_model(weights, description).network.mean.numpy(), MEAN)


@pytest.mark.parametrize("version", [1, 2, 4, "3", None])
def test_model_of_another_format_is_refused(stored, version):
    _, weights, description = stored
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"format": version}))
    assert "written by another version" in refusal(weights, description)


@pytest.mark.parametrize("path", [("temperature",), ("network", "width"), ("network", "depth")])
def test_numbers_out_of_all_bounds_are_refused(stored, path):
    _, weights, description = stored
    content = json.loads(description.read_text())
    *folders, last = path
    functools.reduce(operator.getitem, folders, content)[last] = 10**400
    description.write_text(json.dumps(content))
    assert "model.json: not the description of a model" in refusal(weights, description)


def test_description_of_a_huge_network_takes_no_memory(stored):
    """ResNet-152 of width 512 would take 15 GB, to find that the weights are of another network."""
    _, weights, description = stored
    content = json.loads(description.read_text())
    content["network"] |= {"depth": 152, "width": 512}
    description.write_text(json.dumps(content))
    before = psutil.Process().memory_info().vms
    assert "should have shape" in refusal(weights, description)
    assert psutil.Process().memory_info().vms - before < 2**28


def test_depths_are_those_of_the_contract():
    assert sorted(BLOCKS_PER_GROUP) == [18, 20, 32, 34, 44, 50, 56, 101, 110, 152]


@pytest.mark.parametrize(("depth", "convolutions"), [(18, 16), (50, 16)])
def test_dirac_init_passes_the_input_on(depth, convolutions):
    """In each 3×3 convolution of the blocks, also where channels double and the stride is 2."""
    network = build_resnet(ResNetConfig(depth, 4), seed=0, dirac_init=True)
    found = [layer for layer in network.groups.sublayers() if isinstance(layer, Convolution)]
    found = [layer for layer in found if layer.weight.shape[-1] == 3]
    assert len(found) == convolutions
    for convolution in found:
        channels = convolution.weight.shape[1]
        x = paddle.rand([2, 8, 8, channels])
        y = convolution(x).numpy()
        stride = 8 // y.shape[1]
        np.testing.assert_allclose(y[..., :channels], x.numpy()[:, ::stride, ::stride], atol=1e-5)
        others = convolution.weight.numpy()[channels:]
        assert (others != 0).all()


def test_whitened_stem_responds_to_real_patches_without_correlation(samples):
    """Smooth images, whose neighbouring pixels are alike; the responses of 27 filters to them."""
    small = samples.images[:, :, ::8, ::8].astype(np.float64)
    images = np.kron(small, np.ones((8, 8))) + np.random.default_rng(0).normal(
        0, 9, (500, 3, 32, 32)
    )
    images = images.clip(0, 255).astype(np.uint8)
    mean, std = channel_statistics(images)
    network = ResNet(ResNetConfig(20, 32))
    drawn = network.stem[0].weight.numpy()
    whiten_stem(network, images)
    filters = network.stem[0].weight.numpy()
    np.testing.assert_allclose(filters[27:32], -filters[:5])
    channels_last = paddle.to_tensor(images.transpose(0, 2, 3, 1))
    normalised = normalise(channels_last, paddle.to_tensor(mean), paddle.to_tensor(std))

    def correlations(weights):
        responses = paddle.nn.functional.conv2d(
            normalised, paddle.to_tensor(weights[:27]), stride=3, data_format="NHWC"
        )
        return np.abs(np.corrcoef(responses.numpy().reshape(-1, 27).T) - np.eye(27))

    assert correlations(filters).max() < 0.05
    assert correlations(drawn).max() > 0.5


@pytest.mark.parametrize(("width", "stem", "whitened"), [(4, "cifar", 4), (64, "cifar", 54)])
def test_whitening_takes_what_filters_there_are(samples, width, stem, whitened):
    network = ResNet(ResNetConfig(20, width, stem))
    drawn = network.stem[0].weight.numpy()
    whiten_stem(network, samples.images)
    changed = (network.stem[0].weight.numpy() != drawn).any((1, 2, 3))
    assert changed.tolist() == [True] * whitened + [False] * (width - whitened)


def test_whitening_of_the_imagenet_stem(samples):
    network = ResNet(ResNetConfig(18, 4, "imagenet"))
    whiten_stem(network, samples.images)
    assert np.isfinite(network.stem[0].weight.numpy()).all()
