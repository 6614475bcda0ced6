"""Sum and ReLU, max pooling and conversions of activations, forward and backward."""

from functools import cache

import paddle

from cifar100.network.memory import Memory, Shape, address_of, new_tensor
from cifar100.network.onednn import binding as dnn
from cifar100.network.onednn.binding import Activation, Primitive

ZERO = 0.0  # the parameters of ReLU


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
    _conversion(x.shape, dnn.F32, type)(address_of(tensor, x.shape), x.address)
    return x


def to_tensor(x: Activation) -> paddle.Tensor:
    """An activation as a float32 tensor (N, H, W, C)."""
    tensor = new_tensor(x.shape)
    _conversion(x.shape, x.type, dnn.F32)(x.address, tensor.data_ptr())
    return tensor
