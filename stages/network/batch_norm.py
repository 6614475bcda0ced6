"""Batch norm, sum and ReLU in one pass over the maps on a CPU; Paddle's operators elsewhere.

Ioffe and Szegedy, "Batch Normalization", https://arxiv.org/abs/1502.03167. Each value of a map is
read twice and written once, in place of once per operator. Tests compare it with `F.batch_norm`.
"""

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from stages.network.compiling import Array, compiled, view

RUN = 2048  # values that a loop goes over at a time, whole pixels


class BatchNorm(paddle.nn.BatchNorm2D):
    """Batch norm of maps (N, H, W, C), plus other maps if there are any, then ReLU if wanted."""

    def __init__(self, channels: int, relu: bool = True) -> None:
        super().__init__(channels, data_format="NHWC")
        self.relu = relu
        self.compiled = True  # False: of Paddle's operators alone, as a saved program has to be

    def forward(self, x: paddle.Tensor, added: paddle.Tensor | None = None) -> paddle.Tensor:
        """Normalise `x` over all but its last axis, in training by its own statistics."""
        if self.compiled and x.place.is_cpu_place():
            inputs = [x, self.weight, self.bias] + ([] if added is None else [added])
            return _Compiled.apply(self, *inputs)
        y = super().forward(x)
        y = y if added is None else y + added
        return F.relu(y) if self.relu else y


class _Compiled(paddle.autograd.PyLayer):
    """Lets Paddle differentiate the loops."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: BatchNorm,
        x: paddle.Tensor,
        weight: paddle.Tensor,
        bias: paddle.Tensor,
        added: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        y = paddle.empty(x.shape)
        ctx.statistics = _forward(
            _pixels(x),
            _pixels(x if added is None else added),
            view(weight),
            view(bias),
            view(layer._mean),
            view(layer._variance),
            np.float32(layer._momentum),
            np.float32(layer._epsilon),
            layer.training,
            added is not None,
            layer.relu,
            _pixels(y),
        )
        ctx.save_for_backward(x, y, weight)
        ctx.relu, ctx.plus, ctx.training = layer.relu, added is not None, layer.training
        return y

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        x, y, weight = ctx.saved_tensor()
        x_grad, below_relu = paddle.empty(x.shape), paddle.empty(x.shape)
        weight_grad, bias_grad = paddle.empty(weight.shape), paddle.empty(weight.shape)
        _backward(
            _pixels(grad),
            _pixels(y),
            _pixels(x),
            view(weight),
            *ctx.statistics,
            ctx.training,
            ctx.relu,
            _pixels(below_relu),
            _pixels(x_grad),
            view(weight_grad),
            view(bias_grad),
        )
        grads = (x_grad, weight_grad, bias_grad)
        return (*grads, below_relu) if ctx.plus else grads


def _pixels(maps: paddle.Tensor) -> Array:
    """Maps (N, H, W, C) as (N·H·W, C)."""
    return view(maps).reshape(-1, maps.shape[-1])


@compiled
def _repeated(values):  # type: ignore[no-untyped-def]
    """The values (C,) of as many pixels as loops go over at a time."""
    repeats = max(1, RUN // len(values))
    result = np.empty(repeats * len(values), np.float32)
    for i in range(repeats):
        result[i * len(values) : (i + 1) * len(values)] = values
    return result


@compiled
def _statistics(x):  # type: ignore[no-untyped-def]
    """Mean and variance (C,) of x (M, C), the sums taken about the first pixel for precision."""
    count, channels = x.shape
    centre = _repeated(x[0])
    run = len(centre)
    sums, squares = np.zeros(run, np.float32), np.zeros(run, np.float32)
    flat = x.reshape(-1)
    for start in range(0, len(flat), run):
        values = flat[start : start + run]
        for i in range(len(values)):
            difference = values[i] - centre[i]
            sums[i] += difference
            squares[i] += difference * difference
    mean, variance = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for c in range(channels):
        first, second = 0.0, 0.0
        for i in range(c, run, channels):
            first += sums[i]
            second += squares[i]
        mean[c] = x[0, c] + first / count
        variance[c] = max(second / count - (first / count) ** 2, 0.0)
    return mean, variance


@compiled
def _forward(  # type: ignore[no-untyped-def]
    x, plus, weight, bias, running_mean, running_variance, keep, epsilon, training, add, relu, y
):
    """Normalise x (M, C) into y; return the mean and deviation (C,) that it was normalised by."""
    count, channels = x.shape
    if training:
        mean, variance = _statistics(x)
        for c in range(channels):
            running_mean[c] = keep * running_mean[c] + (1 - keep) * mean[c]
            running_variance[c] = keep * running_variance[c] + (1 - keep) * variance[c]
    else:
        mean, variance = running_mean.copy(), running_variance.copy()
    deviation = np.sqrt(variance + epsilon)
    scale = _repeated(weight / deviation)
    shift = _repeated(bias - weight / deviation * mean)
    run = len(scale)
    lowest = np.float32(0) if relu else np.float32(-np.inf)
    flat, flat_plus, flat_y = x.reshape(-1), plus.reshape(-1), y.reshape(-1)
    for start in range(0, count * channels, run):
        values, target = flat[start : start + run], flat_y[start : start + run]
        if add:
            other = flat_plus[start : start + run]
            for i in range(len(values)):
                value = scale[i] * values[i] + shift[i] + other[i]
                target[i] = lowest if value < lowest else value
        else:
            for i in range(len(values)):
                value = scale[i] * values[i] + shift[i]
                target[i] = lowest if value < lowest else value
    return mean, deviation


@compiled
def _backward(  # type: ignore[no-untyped-def]
    grad, y, x, weight, mean, deviation, training, relu, below_relu, x_grad, weight_grad, bias_grad
):
    """Write the gradients of what is below the ReLU, of x (M, C), of weight and of bias (C,)."""
    count, channels = x.shape
    centre = _repeated(mean)
    run = len(centre)
    sums, products = np.zeros(run, np.float32), np.zeros(run, np.float32)
    flat, flat_y, flat_grad = x.reshape(-1), y.reshape(-1), grad.reshape(-1)
    flat_below, flat_x_grad = below_relu.reshape(-1), x_grad.reshape(-1)
    for start in range(0, count * channels, run):
        stop = start + run
        values, above, outputs = flat[start:stop], flat_grad[start:stop], flat_y[start:stop]
        below = flat_below[start:stop]
        for i in range(len(values)):
            value = above[i] if outputs[i] > 0 or not relu else np.float32(0)
            below[i] = value
            sums[i] += value
            products[i] += value * (values[i] - centre[i])
    bias_grad[:] = sums.reshape(-1, channels).sum(0)
    weight_grad[:] = products.reshape(-1, channels).sum(0) / deviation
    scale = weight / deviation
    slope, constant = np.zeros_like(scale), np.zeros_like(scale)
    if training:  # the statistics depend on x too
        slope = -scale * weight_grad / (deviation * np.float32(count))
        constant = -scale * bias_grad / np.float32(count) - slope * mean
    scale, slope, constant = _repeated(scale), _repeated(slope), _repeated(constant)
    for start in range(0, count * channels, run):
        stop = start + run
        values, below, target = flat[start:stop], flat_below[start:stop], flat_x_grad[start:stop]
        for i in range(len(values)):
            target[i] = scale[i] * below[i] + slope[i] * values[i] + constant[i]
