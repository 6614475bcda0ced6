import os
import shutil
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from stages.network.convolution import Conv1x1, Conv3x3

from stages.network import compiling, winograd_maps, winograd_tiles


def assert_close(found: paddle.Tensor, expected: paddle.Tensor) -> None:
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5 * scale, rtol=0)


def paddles(x: paddle.Tensor, weight: paddle.Tensor, stride: int = 1) -> paddle.Tensor:
    padding = weight.shape[-1] // 2
    return F.conv2d(x, weight, stride=stride, padding=padding, data_format="NHWC")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 24, 31, 32])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [Conv1x1, Conv3x3])
def test_convolution_equals_paddles_in_values_and_gradients(kind, size, stride):
    """Sizes that fill their tiles and that do not; more images than go through together."""
    paddle.seed(size)
    layer = kind(5, 7, stride)
    x = paddle.randn([9, size, size, 5])
    x.stop_gradient = False
    grad = paddle.randn(layer(x).shape)
    results = []
    for convolve in (layer, lambda x: paddles(x, layer.weight, stride)):
        output = convolve(x)
        output.backward(grad)  # as the training does
        with paddle.no_grad():
            evaluated = convolve(x)
        results.append([output, evaluated, x.grad, layer.weight.grad])
        x.clear_grad()
        layer.weight.clear_grad()
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("size", [4, 16])
def test_gradients_can_be_asked_for_by_name_too(size):
    layer = Conv3x3(3, 4)
    x = paddle.randn([2, size, size, 3])
    x.stop_gradient = False
    found = paddle.grad([layer(x).sum()], [x, layer.weight])
    expected = paddle.grad([paddles(x, layer.weight).sum()], [x, layer.weight])
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("size", [4, 16])
def test_images_need_no_gradient_and_may_lie_in_any_order_in_memory(size):
    layer = Conv3x3(3, 4)
    images = paddle.randn([2, 3, size, size]).transpose([0, 2, 3, 1])
    output = layer(images)
    output.sum().backward()
    assert images.grad is None
    expected = paddles(images, layer.weight)
    assert_close(output, expected)
    assert_close(layer.weight.grad, paddle.grad([expected.sum()], [layer.weight])[0])


@pytest.mark.parametrize("size", [4, 16])
def test_same_input_gives_the_same_bytes(size):
    layer = Conv3x3(64, 64)
    x = paddle.randn([32, size, size, 64])
    first = layer(x).numpy()
    assert all(np.array_equal(layer(x).numpy(), first) for _ in range(3))


@pytest.mark.parametrize("tile", [2, 3, 4])
def test_winograd_matrices_give_the_outputs_of_a_filter(tile):
    """Lavin and Gray, equation 5, against the definition."""
    inputs, kernel, output = winograd_matrices = winograd_maps.winograd_matrices(tile)
    assert [m.shape for m in winograd_matrices] == [(tile + 2, n) for n in (tile + 2, 3, tile)]
    rng = np.random.default_rng(tile)
    d, g = rng.standard_normal(tile + 2), rng.standard_normal(3)
    found = output.T @ ((kernel @ g) * (inputs.T @ d))
    np.testing.assert_allclose(found, np.correlate(d, g, "valid"))


def test_tiles_are_those_with_the_fewest_products():
    assert [winograd_maps.best_tile(size) for size in (2, 3, 4, 6, 7, 8)] == [2, 3, 4, 3, 4, 4]


def test_compiled_code_need_not_be_kept(tmp_path):
    """Neither the folder of the file nor the user's cache can be written."""
    copy = tmp_path / "stages" / "network"
    copy.mkdir(parents=True)
    for module in (compiling, winograd_tiles):
        shutil.copy(module.__file__, copy)
    (copy / "__pycache__").touch()
    code = """
import os
import numpy as np
from stages.network import winograd_tiles
assert winograd_tiles.__file__.startswith(os.getcwd())
y = np.empty((1, 9, 9, 2), np.float32)
winograd_tiles.convolve(np.ones_like(y), np.ones((2, 2, 3, 3), np.float32), y)
print(round(y[0, 4, 4, 0]), round(y[0, 0, 0, 0]))
"""
    environment = os.environ | {"XDG_CACHE_HOME": os.devnull, "HOME": os.devnull}
    output = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert output.split() == [b"18", b"8"]
