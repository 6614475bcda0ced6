"""Batch norm, sum and ReLU, max pooling and conversions of activations, forward and backward."""

from ctypes import c_float
from functools import cache

import numpy as np
import paddle
from numpy.typing import NDArray

from cifar100.network.onednn import library as dnn
from cifar100.network.onednn.convolution import new_tensor
from cifar100.network.onednn.library import Activation, Memory, Primitive, Shape

ZERO = c_float(0)


@cache
class BatchNorm:
    """Batch norm by the statistics of the batch (https://arxiv.org/abs/1502.03167), ReLU if wanted.

    Statistics, scale and shift are float32 (C,), whatever the activation is.
    """

    def __init__(self, shape: Shape, relu: bool, epsilon: float, type: int) -> None:
        self.shape, self.type, self.channels = shape, type, shape[-1:]
        x, vector, name = dnn.nhwc(shape, type), dnn.dense(shape[-1:]), "batch_normalization_"
        options = c_float(epsilon), dnn.SCALE_AND_SHIFT | (dnn.FUSE_RELU if relu else 0)
        forward = Primitive(name + "forward", dnn.TRAINING, x, x, *options, None)
        backward = Primitive(
            name + "backward", dnn.BACKWARD, x, x, x, *options, forward.descriptor, None
        )
        mask = {dnn.WORKSPACE: forward.chosen(dnn.WORKSPACE)} if relu else {}
        self._mask_size = dnn.size_of(mask[dnn.WORKSPACE]) if relu else 0
        given = {dnn.SRC: x, dnn.SCALE: vector, dnn.MEAN: vector, dnn.VARIANCE: vector}
        grads = {dnn.DIFF_SRC: x, dnn.DIFF_SCALE: vector, dnn.DIFF_SHIFT: vector}
        self._forward = forward.bind({**given, dnn.SHIFT: vector, dnn.DST: x, **mask})
        self._backward = backward.bind({**given, dnn.DIFF_DST: x, **grads, **mask})

    def forward(
        self, x: Activation, scale: paddle.Tensor, shift: paddle.Tensor
    ) -> tuple[Activation, NDArray[np.float32], Memory | None]:
        """The result; mean and variance of the batch (2, C); where ReLU let its input through."""
        y = Activation(self.shape, self.type)
        statistics = np.empty((2, *self.channels), np.float32)
        mask = Memory(self._mask_size) if self._mask_size else None
        self._forward(
            *self._given(x, scale, statistics),
            dnn.address_of(shift, self.channels),
            *[memory.address for memory in (y, mask) if memory],
        )
        return y, statistics, mask

    def backward(
        self,
        x: Activation,
        scale: paddle.Tensor,
        statistics: NDArray[np.float32],
        mask: Memory | None,
        grad: Activation,
    ) -> tuple[Activation, paddle.Tensor, paddle.Tensor]:
        """The gradients of the input, of the scale and of the shift."""
        x_grad = Activation(self.shape, self.type)
        scale_grad, shift_grad = new_tensor(self.channels), new_tensor(self.channels)
        self._backward(
            *self._given(x, scale, statistics),
            *(grad.expect(self.shape, self.type), x_grad.address),
            *(scale_grad.data_ptr(), shift_grad.data_ptr()),
            *([mask.of_size(self._mask_size)] if mask else []),
        )
        return x_grad, scale_grad, shift_grad

    def _given(
        self, x: Activation, scale: paddle.Tensor, statistics: NDArray[np.float32]
    ) -> tuple[int, ...]:
        mean = dnn.address_of(statistics, (2, *self.channels))
        addresses = x.expect(self.shape, self.type), dnn.address_of(scale, self.channels)
        return *addresses, mean, mean + statistics.strides[0]


@cache
class Sum:
    """The sum of two activations, and ReLU of it with its gradient."""

    def __init__(self, shape: Shape, type: int) -> None:
        self.shape, self.type = shape, type
        x, relu = dnn.nhwc(shape, type), dnn.RELU_FROM_RESULT
        self._rectified, self._plain = (
            Primitive("binary", dnn.ADD, x, x, x, post).bind({dnn.SRC: x, dnn.SRC_1: x, dnn.DST: x})
            for post in (dnn.attributes(relu=True), None)
        )
        forward = Primitive("eltwise_forward", dnn.TRAINING, relu, x, x, ZERO, ZERO, None)
        hint = forward.descriptor, None
        backward = Primitive("eltwise_backward", relu, x, x, x, ZERO, ZERO, *hint)
        self._backward = backward.bind({dnn.DST: x, dnn.DIFF_DST: x, dnn.DIFF_SRC: x})

    def rectified(self, a: Activation, b: Activation) -> Activation:
        """max(a + b, 0), written over a."""
        self._rectified(*self._addresses(a, b, a))
        return a

    def plain(self, a: Activation, b: Activation) -> Activation:
        """a + b, written over a."""
        self._plain(*self._addresses(a, b, a))
        return a

    def backward(self, y: Activation, grad: Activation) -> Activation:
        """The gradient of a + b from that of y = max(a + b, 0), written over it."""
        self._backward(*self._addresses(y, grad, grad))
        return grad

    def _addresses(self, *activations: Activation) -> list[int]:
        return [each.expect(self.shape, self.type) for each in activations]


@cache
class MaxPooling:
    """3×3 max pooling of stride 2 and padding 1: (N, H, W, C) to (N, (H+1)/2, (W+1)/2, C)."""

    def __init__(self, shape: Shape, type: int) -> None:
        x, (n, h, w, c) = dnn.nhwc(shape, type), shape
        self.shape, self.type, self.result = shape, type, (n, (h + 1) // 2, (w + 1) // 2, c)
        y = dnn.nhwc(self.result, type)
        stride, kernel, none, padding = (dnn.dims(side, side) for side in (2, 3, 0, 1))
        pool = dnn.MAX_POOLING, x, y, stride, kernel, none, padding, padding
        forward = Primitive("pooling_forward", dnn.TRAINING, *pool, None)
        backward = Primitive("pooling_backward", *pool, forward.descriptor, None)
        largest = {dnn.WORKSPACE: forward.chosen(dnn.WORKSPACE)}
        self._size = dnn.size_of(largest[dnn.WORKSPACE])
        self._forward = forward.bind({dnn.SRC: x, dnn.DST: y, **largest})
        self._backward = backward.bind({dnn.DIFF_DST: y, dnn.DIFF_SRC: x, **largest})

    def forward(self, x: Activation) -> tuple[Activation, Memory]:
        """The result, and where in each window the largest value was."""
        y, largest = Activation(self.result, self.type), Memory(self._size)
        self._forward(x.expect(self.shape, self.type), y.address, largest.address)
        return y, largest

    def backward(self, largest: Memory, grad: Activation) -> Activation:
        """The gradient of the input."""
        x_grad = Activation(self.shape, self.type)
        self._backward(
            grad.expect(self.result, self.type), x_grad.address, largest.of_size(self._size)
        )
        return x_grad


@cache
def _conversion(shape: Shape, source: int, target: int) -> Primitive:
    return dnn.reorder(dnn.nhwc(shape, source), dnn.nhwc(shape, target))


def from_tensor(tensor: paddle.Tensor, type: int) -> Activation:
    """A float32 tensor (N, H, W, C) as an activation."""
    x = Activation(tuple(tensor.shape), type)
    _conversion(x.shape, dnn.F32, type)(dnn.address_of(tensor, x.shape), x.address)
    return x


def to_tensor(x: Activation) -> paddle.Tensor:
    """An activation as a float32 tensor (N, H, W, C)."""
    tensor = new_tensor(x.shape)
    _conversion(x.shape, x.type, dnn.F32)(x.address, tensor.data_ptr())
    return tensor
