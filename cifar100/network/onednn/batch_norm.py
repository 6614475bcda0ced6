"""Batch norm of activations (N, H, W, C) by the statistics of the batch, forward and backward."""

from functools import cache

import numpy as np
import paddle
from numpy.typing import NDArray

from cifar100.network.onednn import binding as dnn
from cifar100.network.onednn.binding import Activation, Memory, Primitive, Shape
from cifar100.network.onednn.convolution import new_tensor


@cache
class BatchNorm:
    """Batch norm by the statistics of the batch (https://arxiv.org/abs/1502.03167), ReLU if wanted.

    Statistics, scale and shift are float32 (C,), whatever the activation is.
    """

    def __init__(self, shape: Shape, relu: bool, epsilon: float, type: int) -> None:
        self.shape, self.type, self.channels = shape, type, shape[-1:]
        x, vector, name = dnn.nhwc(shape, type), dnn.dense(shape[-1:]), "batch_normalization_"
        options = float(epsilon), dnn.SCALE_AND_SHIFT | (dnn.FUSE_RELU if relu else 0)
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
