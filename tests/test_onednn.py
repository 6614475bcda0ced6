"""The operations of the engine, each beside Paddle's own in float64."""

import ctypes
from functools import partial

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from cifar100.network import onednn
from cifar100.network.memory import Memory
from cifar100.network.onednn import batch_norm, convolution, elementwise
from cifar100.network.onednn.batch_norm import BatchNorm
from cifar100.network.onednn.binding import TYPES
from cifar100.network.onednn.convolution import MAX_SIDE, Convolution, FoldedConvolution, SideBySide
from cifar100.network.onednn.elementwise import MaxPooling, Sum, from_tensor, to_tensor
from tests.engine import CASES, PRECISIONS, SHAPES, error, rounded, run_apart

pytestmark = pytest.mark.skipif(not onednn.available(), reason=onednn.description())

# Largest relative error: of activations, which are rounded to their type, and of parameters.
ACTIVATIONS = {"float32": 2e-6, "bfloat16": 4e-3}
PARAMETERS = {"float32": 2e-6, "bfloat16": 1e-5}

M_PERTURB = -6  # malloc.h: what new memory holds

each_precision = pytest.mark.parametrize("precision", PRECISIONS)
each_case = pytest.mark.parametrize(("shape", "filters", "kernel", "stride"), CASES)


@pytest.fixture(autouse=True)
def _new_memory_is_dirty(monkeypatch):
    """It holds NaN where the engine takes it, and large values where the library does, by glibc."""

    def dirty(memory: Memory, size: int) -> None:
        initialise(memory, size)
        memory.bytes[:] = 0xFF

    initialise = Memory.__init__
    monkeypatch.setattr(Memory, "__init__", dirty)
    for module in (batch_norm, convolution, elementwise):
        monkeypatch.setattr(module, "new_tensor", lambda shape: paddle.full(shape, np.nan))
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        yield
        return
    libc.mallopt(M_PERTURB, 1)
    yield
    libc.mallopt(M_PERTURB, 0)


def random(shape, type, scale=1.0, shift=0.0) -> paddle.Tensor:
    """Normal values that the type has."""
    return rounded(paddle.randn(shape) * scale + shift, type)


def in_float64(*tensors: paddle.Tensor) -> list[paddle.Tensor]:
    """Copies to compute with and to differentiate by."""
    copies = [tensor.astype("float64") for tensor in tensors]
    for copy in copies:
        copy.stop_gradient = False
    return copies


def convolve(x: paddle.Tensor, weight: paddle.Tensor, stride: int) -> paddle.Tensor:
    """Paddle's convolution, of the kind that the networks have."""
    padding = weight.shape[-1] // 2
    return F.conv2d(x, weight, stride=stride, padding=padding, data_format="NHWC")


@each_precision
@each_case
def test_convolution_equals_paddles_in_values_and_gradients(
    shape, filters, kernel, stride, precision
):
    paddle.seed(0)
    type = TYPES[precision]
    x, weight = random(shape, type), random([filters, shape[-1], kernel, kernel], type)
    inputs = in_float64(x, weight)
    expected = convolve(*inputs, stride)
    grad = random(expected.shape, type)
    expected_grads = paddle.grad(expected, inputs, grad.astype("float64"))

    layer = Convolution(shape, filters, kernel, stride, type)
    y, saved = layer.forward(from_tensor(x, type), weight)
    assert error(to_tensor(y), expected) < ACTIVATIONS[precision]
    x_grad, weight_grad = layer.backward(saved, weight, from_tensor(grad, type), True)
    assert error(to_tensor(x_grad), expected_grads[0]) < ACTIVATIONS[precision]
    assert error(weight_grad, expected_grads[1]) < PARAMETERS[precision]

    no_grad, again = layer.backward(saved, weight, from_tensor(grad, type), False)
    assert no_grad is None
    np.testing.assert_array_equal(again.numpy(), weight_grad.numpy())


@each_precision
@pytest.mark.parametrize("shape", [(2, 8, 8, 20), (3, 7, 5, 8), (4, 6, 6, 36), (1, 1, 1, 3)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_gradient_of_the_input_is_added_to_what_is_given(shape, kernel, stride, precision):
    """As that of a shortcut is to that of the residual; the pixels without one keep theirs."""
    paddle.seed(0)
    type = TYPES[precision]
    layer = Convolution(shape, 12, kernel, stride, type)
    weight, to = random([12, shape[-1], kernel, kernel], type), random(shape, type)
    y, saved = layer.forward(from_tensor(random(shape, type), type), weight)
    plain, _ = layer.backward(saved, weight, y, True)
    given = from_tensor(to, type)
    found, _ = layer.backward(saved, weight, y, True, given)
    assert found is given
    expected = rounded(to_tensor(plain) + to, type)
    np.testing.assert_array_equal(to_tensor(found).numpy(), expected.numpy())


def test_shapes_above_take_every_path():
    """Side by side and plain; rows of 256 pixels, of the images of the batch, of one pixel."""
    side_by_side, rows = set(), set()
    for shape, filters in SHAPES:
        three, one = (
            Convolution(shape, filters, kernel, 1, TYPES["float32"]).layout for kernel in (3, 1)
        )
        is_small = isinstance(three.input, SideBySide)
        assert is_small == (shape[1] <= MAX_SIDE)
        side_by_side.add(three.input.shown[0] if is_small else None)
        row = one.input.shown[2]
        rows.add("256" if row == 256 else "batch" if row == shape[0] > 1 else row)
    assert side_by_side == {None, 1, 2, 4}
    assert rows == {"256", "batch", 1}


@each_precision
@each_case
def test_folded_convolution_adds_bias_and_shortcut_before_relu(
    shape, filters, kernel, stride, precision
):
    paddle.seed(0)
    type = TYPES[precision]
    x, weight = random(shape, type), random([filters, shape[-1], kernel, kernel], type)
    bias = np.random.default_rng(0).standard_normal(filters).astype(np.float32)
    plain = convolve(*in_float64(x, weight), stride) + paddle.to_tensor(bias, "float64")
    other = random(plain.shape, type)
    for add, relu in ((False, False), (False, True), (True, False), (True, True)):
        expected = plain + other.astype("float64") if add else plain
        expected = F.relu(expected) if relu else expected
        layer = FoldedConvolution(shape, filters, kernel, stride, add, relu, type)
        added = from_tensor(other, type) if add else None
        blocked = layer.blocked(weight.numpy())
        found = to_tensor(layer.forward(from_tensor(x, type), blocked, bias, added))
        # of what was added up, as ReLU may leave small values alone
        scale = np.linalg.norm(plain) + np.linalg.norm(other)
        assert np.linalg.norm(found - expected.astype("float32")) < ACTIVATIONS[precision] * scale


def test_convolution_keeps_nothing_of_an_earlier_call():
    """Nor of an earlier tensor at the same address."""
    shape, type = (4, 4, 4, 8), TYPES["float32"]
    layer = Convolution(shape, 8, 3, 1, type)
    xs = [random(shape, type) for _ in range(2)]
    weights = [random([8, 8, 3, 3], type) for _ in range(2)]
    saved = [
        layer.forward(from_tensor(x, type), weight)[1]
        for x, weight in zip(xs, weights, strict=True)
    ]
    grad = random(shape, type)
    for x, weight, of_call in zip(xs, weights, saved, strict=True):
        inputs = in_float64(x, weight)
        expected = paddle.grad(convolve(*inputs, 1), inputs, grad.astype("float64"))
        found = layer.backward(of_call, weight, from_tensor(grad, type), True)
        assert error(to_tensor(found[0]), expected[0]) < 2e-6
        assert error(found[1], expected[1]) < 2e-6


def test_values_that_are_not_finite_stay_in_their_image():
    """In maps side by side too."""
    for side in (4, 16):
        x = paddle.ones([4, side, side, 3])
        x[1] = np.nan
        x[2] = np.inf
        layer = Convolution((4, side, side, 3), 5, 3, 1, TYPES["float32"])
        y, _ = layer.forward(from_tensor(x, TYPES["float32"]), paddle.ones([5, 3, 3, 3]))
        finite = np.isfinite(to_tensor(y).numpy()).all((1, 2, 3))
        assert finite.tolist() == [True, False, False, True]


def vectors(statistics: Memory) -> np.ndarray:
    """Mean and variance, (2, C)."""
    return statistics.bytes.view(np.float32).reshape(2, -1)


@each_precision
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(7, 5, 5, 1), (3, 1, 1, 20), (2, 9, 7, 36), (1, 2, 2, 3000)])
def test_batch_norm_equals_paddles_in_values_gradients_and_statistics(shape, relu, precision):
    paddle.seed(1)
    type, channels = TYPES[precision], shape[-1:]
    x, grad = random(shape, type, 3, 20), random(shape, type)
    scale, shift = paddle.rand(channels) + 0.5, paddle.randn(channels)
    inputs = in_float64(x, scale, shift)
    mean, variance = paddle.zeros(channels, "float64"), paddle.zeros(channels, "float64")
    expected = F.batch_norm(
        inputs[0], mean, variance, *inputs[1:], True, momentum=0.0, data_format="NHWC"
    )
    expected = F.relu(expected) if relu else expected
    expected_grads = paddle.grad(expected, inputs, grad.astype("float64"))

    layer = BatchNorm(shape, relu, 1e-5, type)
    kept = from_tensor(x, type)
    y, statistics, mask = layer.forward(kept, scale, shift)
    # The deviation divides the rounding of values around 20, in float32 also of their mean.
    tolerance = 3 * ACTIVATIONS[precision]
    assert error(to_tensor(y), expected) < tolerance
    found_mean, found_variance = vectors(statistics)
    assert error(found_mean, mean) < 1e-6
    assert error(found_variance, variance) < 1e-5
    x_grad, *found = layer.backward(kept, scale, statistics, mask, from_tensor(grad, type))
    assert error(to_tensor(x_grad), expected_grads[0]) < tolerance
    for one, expected_grad in zip(found, expected_grads[1:], strict=True):
        assert error(one, expected_grad) < 2e-5


@each_precision
def test_constant_maps_become_the_shift(precision):
    """A variance of zero is no division by zero."""
    type, shift = TYPES[precision], paddle.to_tensor([1.0, 2.0, 3.0])
    x, layer = (
        from_tensor(paddle.full([2, 4, 4, 3], 7.0), type),
        BatchNorm((2, 4, 4, 3), True, 1e-5, type),
    )
    y, statistics, mask = layer.forward(x, paddle.ones([3]), shift)
    np.testing.assert_allclose(to_tensor(y).numpy(), np.broadcast_to(shift, (2, 4, 4, 3)), 1e-3)
    grads = layer.backward(x, paddle.ones([3]), statistics, mask, y)
    assert np.isfinite(to_tensor(grads[0]).numpy()).all()


def test_statistics_are_precise_far_from_zero():
    x = np.random.default_rng(0).normal(1000, 1, (8, 16, 16, 2)).astype(np.float32)
    layer = BatchNorm(x.shape, False, 1e-5, TYPES["float32"])
    values = from_tensor(paddle.to_tensor(x), TYPES["float32"])
    _, statistics, _ = layer.forward(values, paddle.ones([2]), paddle.zeros([2]))
    mean, variance = vectors(statistics)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2), np.float64), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var((0, 1, 2), np.float64), rtol=1e-4)


@each_precision
def test_what_is_not_finite_comes_through_batch_norm(precision):
    type = TYPES[precision]
    for value in (np.nan, np.inf):
        x = paddle.ones([2, 4, 4, 2])
        x[0, 0, 0, 1] = value
        layer = BatchNorm((2, 4, 4, 2), False, 1e-5, type)
        y, _, _ = layer.forward(from_tensor(x, type), paddle.ones([2]), paddle.zeros([2]))
        assert np.isnan(to_tensor(y).numpy()[..., 1]).any()
        assert np.isfinite(to_tensor(y).numpy()[..., 0]).all()


@each_precision
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 7, 5, 20), (5, 9, 9, 36)])
def test_sum_and_relu_are_rounded_once(shape, precision):
    type = TYPES[precision]
    a, b, grad = (random(shape, type) for _ in range(3))
    layer, activation = Sum(shape, type), partial(from_tensor, type=type)
    expected = rounded(a + b, type).numpy()
    rectified = layer.rectified(activation(a), activation(b))
    np.testing.assert_array_equal(to_tensor(rectified).numpy(), np.maximum(expected, 0))
    plain = layer.plain(activation(a), activation(b))
    np.testing.assert_array_equal(to_tensor(plain).numpy(), expected)
    through = to_tensor(layer.backward(rectified, activation(grad))).numpy()
    np.testing.assert_array_equal(through, np.where(expected > 0, grad.numpy(), 0))


@each_precision
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (3, 2, 3, 5), (5, 7, 7, 1), (2, 16, 16, 20)])
def test_max_pooling_equals_paddles(shape, precision):
    """Of values all different within a map, so that there is one largest in each window."""
    n, h, w, c = shape
    type, rng = TYPES[precision], np.random.default_rng(0)
    maps = [rng.permutation(h * w) - h * w // 2 for _ in range(n * c)]
    values = np.reshape(maps, (n, c, h, w)).transpose(0, 2, 3, 1)
    x = paddle.to_tensor(np.ascontiguousarray(values, np.float32))
    (reference,) = in_float64(x)
    expected = F.max_pool2d(reference, 3, 2, 1, data_format="NHWC")
    grad = random(expected.shape, type)
    (expected_grad,) = paddle.grad(expected, [reference], grad.astype("float64"))
    layer = MaxPooling(shape, type)
    y, largest = layer.forward(from_tensor(x, type))
    np.testing.assert_array_equal(to_tensor(y).numpy(), expected.numpy())
    found = to_tensor(layer.backward(largest, from_tensor(grad, type)))
    assert error(found, expected_grad) < ACTIVATIONS[precision]


@each_precision
def test_conversion_rounds_to_the_nearest_value(precision):
    x = paddle.randn([3, 5, 7, 2]) * 1000
    found = to_tensor(from_tensor(x, TYPES[precision]))
    np.testing.assert_array_equal(found.numpy(), rounded(x, TYPES[precision]).numpy())


def test_no_primitive_writes_outside_of_its_memory():
    """In a process of its own, which damaged memory may end or stop, with 2 threads."""
    count, what, damaged, _ = run_apart("guarded_memory", 2).split()
    assert what == "allocated,"
    assert int(count) > 1000
    assert damaged == "0"


def test_what_the_library_cannot_take_is_a_value_error():
    """The library would end the process."""
    raised, _, wrong = run_apart("refusals", 2).split()
    assert raised == wrong
    assert int(wrong) > 40
