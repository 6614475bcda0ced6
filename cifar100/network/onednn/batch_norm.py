"""Batch norm of activations (N, H, W, C) by the statistics of the batch, forward and backward."""

import paddle

from cifar100.network.memory import Checked, Memory, Shape, new_tensor
from cifar100.network.onednn import binding as dnn
from cifar100.network.onednn.binding import Activation, Primitive


class BatchNorm:
    """Batch norm by the statistics of the batch (https://arxiv.org/abs/1502.03167), ReLU if wanted.

    Statistics, scale and shift are float32 (C,), whatever the activation is.
    """

    def __init__(self, shape: Shape, relu: bool, epsilon: float, type: int) -> None:
        self.shape, self.type, self.channels = shape, type, shape[-1:]
        self._scale, self._shift = Checked(self.channels), Checked(self.channels)
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
        self._size = 2 * dnn.size_of(vector)  # of the statistics
        self._forward = forward.bind({**given, dnn.SHIFT: vector, dnn.DST: x, **mask})
        self._backward = backward.bind({**given, dnn.DIFF_DST: x, **grads, **mask})

    def forward(
        self, x: Activation, scale: paddle.Tensor, shift: paddle.Tensor
    ) -> tuple[Activation, Memory, Memory | None]:
        """The result; mean and variance of the batch (2, C); where ReLU let its input through."""
        y, statistics = Activation(self.shape, self.type), Memory(self._size)
        mask = Memory(self._mask_size) if self._mask_size else None
        self._forward(
            *self._given(x, scale, statistics),
            *(self._shift.address(shift), y.address),
            *([mask.address] if mask else []),
        )
        return y, statistics, mask

    def backward(
        self,
        x: Activation,
        scale: paddle.Tensor,
        statistics: Memory,
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
        self, x: Activation, scale: paddle.Tensor, statistics: Memory
    ) -> tuple[int, int, int, int]:
        mean, address = statistics.of_size(self._size), self._scale.address(scale)
        return x.expect(self.shape, self.type), address, mean, mean + self._size // 2
