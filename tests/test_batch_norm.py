import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from stages.network.batch_norm import BatchNorm


def paddles(layer, x, added):
    """The same by Paddle's operators, with running statistics of its own."""
    mean, variance = layer._mean.clone(), layer._variance.clone()
    y = F.batch_norm(
        x,
        mean,
        variance,
        layer.weight,
        layer.bias,
        training=layer.training,
        data_format="NHWC",
    )
    y = y if added is None else y + added
    return (F.relu(y) if layer.relu else y), mean, variance


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 32, 3000])
def test_batch_norm_equals_paddles_in_values_gradients_and_statistics(
    training, relu, plus, channels
):
    paddle.seed(channels)
    layer = BatchNorm(channels, relu)
    layer.weight.set_value(paddle.rand([channels]) + 0.5)
    layer.bias.set_value(paddle.randn([channels]))
    layer._mean.set_value(paddle.randn([channels]))
    layer._variance.set_value(paddle.rand([channels]) + 0.5)
    layer.train() if training else layer.eval()
    x = 3 * paddle.randn([7, 5, 5, channels]) + 20
    added = paddle.randn(x.shape) if plus else None
    inputs = [x, layer.weight, layer.bias] + ([added] if plus else [])
    for tensor in inputs:
        tensor.stop_gradient = False
    grad = paddle.randn(x.shape)
    expected, mean, variance = paddles(layer, x, added)
    found = layer(x, added)
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5 * scale)
    np.testing.assert_allclose(layer._mean.numpy(), mean.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer._variance.numpy(), variance.numpy(), rtol=1e-4)
    for a, b in zip(
        paddle.grad([found], inputs, [grad]), paddle.grad([expected], inputs, [grad]), strict=True
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-5 * float(b.abs().max()) + 1e-6)


def test_statistics_are_precise_far_from_zero():
    layer = BatchNorm(2)
    x = np.random.default_rng(0).normal(1000, 1, (8, 16, 16, 2)).astype(np.float32)
    layer(paddle.to_tensor(x))
    expected = 0.9 + 0.1 * x.astype(np.float64).var((0, 1, 2))
    np.testing.assert_allclose(layer._variance.numpy(), expected, rtol=1e-5)


def test_constant_maps_become_the_bias():
    """A variance of zero is no division by zero."""
    layer = BatchNorm(3)
    layer.bias.set_value(paddle.to_tensor([1.0, 2.0, 3.0]))
    x = paddle.full([2, 4, 4, 3], 7.0)
    x.stop_gradient = False
    y = layer(x)
    np.testing.assert_allclose(y.numpy(), np.broadcast_to([1.0, 2.0, 3.0], (2, 4, 4, 3)))
    y.backward(paddle.randn(y.shape))
    assert np.isfinite(x.grad.numpy()).all()


def test_what_is_not_finite_comes_through():
    layer = BatchNorm(2)
    assert np.isnan(layer(paddle.full([2, 4, 4, 2], np.nan)).numpy()).all()
