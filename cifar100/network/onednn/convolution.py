"""Convolution of activations (N, H, W, C), forward and backward.

The library is fast on wide maps, so small maps are laid side by side, and the pixels that a 1×1
convolution takes one by one are shown as rows of 256.
"""

from functools import cache
from math import prod

import numpy as np
import paddle
from numpy.typing import NDArray

from cifar100.network.memory import Checked, Memory, Shape, address_of, new_tensor
from cifar100.network.onednn import binding as dnn
from cifar100.network.onednn.binding import Activation, Primitive
from cifar100.network.onednn.elementwise import Sum

MAX_SIDE = 8  # of the results that are computed side by side
MAX_SIDE_FOLDED = 4  # the same without gradients
ROW = 256  # pixels
GROUPS = (4, 2, 1)  # rows that the images of a batch are divided into, where it can be divided


class AsItIs:
    """An activation that the library takes as it is."""

    def __init__(self, shape: Shape, shown: Shape, type: int) -> None:
        self.shape, self.shown, self.type = shape, shown, type

    def show(self, x: Activation) -> Activation:
        """The activation for the library; `ValueError` for another shape or type."""
        x.expect(self.shape, self.type)
        return x

    def room(self) -> Activation:
        """Room for what the library computes."""
        return Activation(self.shape, self.type)

    def take(self, y: Activation) -> Activation:
        """What the library has computed, as an activation of the shape (N, H, W, C)."""
        return y

    def add(self, y: Activation, to: Activation) -> Activation:
        """The same, added to what `to` holds."""
        return Sum(self.shape, self.type).plain(to, self.take(y))


class SideBySide(AsItIs):
    """The maps (N, H, W, C) of a batch next to each other in a few rows, zeros between them.

    Each map takes `period` columns.
    """

    def __init__(self, shape: Shape, period: int, type: int) -> None:
        n, h, w, c = shape
        rows = next(count for count in GROUPS if n % count == 0)
        maps, width = n // rows, n // rows * period * c
        super().__init__(shape, (rows, h, maps * period, c), type)
        self._apart = rows, h, maps, period, c
        sizes = (rows, maps, c, h, w)
        apart = dnn.strided(sizes, (maps * h * w * c, h * w * c, 1, w * c, c), type)
        joined = dnn.strided(sizes, (h * width, period * c, 1, width, c), type)
        self._join, self._separate = dnn.reorder(apart, joined), dnn.reorder(joined, apart)

    def show(self, x: Activation) -> Activation:
        """The maps side by side."""
        y = self.room()
        y.array.reshape(self._apart)[:, :, :, self.shape[2] :] = 0
        self._join(x.expect(self.shape, self.type), y.address)
        return y

    def room(self) -> Activation:
        """Room for maps side by side."""
        return Activation(self.shown, self.type)

    def take(self, y: Activation) -> Activation:
        """The maps one after another."""
        x = Activation(self.shape, self.type)
        self._separate(y.address, x.address)
        return x


class EverySecondPixel(AsItIs):
    """The pixels of (N, H, W, C) that a 1×1 convolution of stride 2 looks at.

    The library has a stride of its own, which overruns its memory where there are few channels.
    """

    def __init__(self, shape: Shape, shown: Shape, type: int) -> None:
        super().__init__(shape, shown, type)
        n, h, w, c = shape
        self._copy = self._add_back = None
        if h % 2 == 0 and w % 2 == 0:  # the library has no descriptor for others
            sizes = n, h // 2, w // 2, c
            pixels = dnn.strided(sizes, (h * w * c, 2 * w * c, 2 * c, 1), type)
            near = dnn.strided(sizes, (prod(sizes[1:]), sizes[2] * c, c, 1), type)
            self._copy = dnn.reorder(pixels, near)
            self._add_back = dnn.reorder(near, pixels, add=True)

    def show(self, x: Activation) -> Activation:
        """These pixels, close together."""
        y = self.room()
        address = x.expect(self.shape, self.type)
        if self._copy:
            self._copy(address, y.address)
        else:
            every_second = x.array[:, ::2, ::2]
            y.array[:] = every_second.reshape(self.shown)
        return y

    def room(self) -> Activation:
        """Room for these pixels."""
        return Activation(self.shown, self.type)

    def take(self, y: Activation) -> Activation:
        """These pixels among zeros: the gradient of the input."""
        x = Activation(self.shape, self.type)
        x.clear()
        every_second = x.array[:, ::2, ::2]
        every_second[:] = y.array.reshape(every_second.shape)
        return x

    def add(self, y: Activation, to: Activation) -> Activation:
        """The same, added to what `to` holds, in one pass where the library can."""
        if not self._add_back:
            return super().add(y, to)
        self._add_back(y.address, to.expect(self.shape, self.type))
        return to


class Layout:
    """How the input and the result of a convolution are shown to the library, and its window."""

    def __init__(
        self, shape: Shape, filters: int, kernel: int, stride: int, type: int, max_side: int
    ) -> None:
        dnn.nhwc(shape, type)  # refuses what is no activation
        if filters < 1 or kernel % 2 == 0 or stride not in (1, 2):
            raise ValueError(
                f"no convolution of {shape} to {filters} channels by {kernel}/{stride}"
            )
        n, h, w, channels = shape
        if kernel // 2 > 2 * min(h, w):  # it takes what lies beside such maps from dirty memory
            raise ValueError(f"maps of {h}×{w} are too small for a window of {kernel}×{kernel}")
        result = (n, (h - 1) // stride + 1, (w - 1) // stride + 1, filters)
        self.weight = (filters, channels, kernel, kernel)
        if kernel == 1:
            pixels = prod(result[:3])
            row = next(size for size in (ROW, n, 1) if pixels % size == 0)
            inner = (pixels // row, 1, row, channels)
            view = AsItIs if stride == 1 else EverySecondPixel
            self.input = view(shape, inner, type)
            self.output = AsItIs(result, (*inner[:3], filters), type)
            stride = 1
        elif kernel == 3 and result[1] <= max_side:
            period = (w + stride) // stride  # leaves a gap of at least the padding
            self.input = SideBySide(shape, stride * period, type)
            self.output = SideBySide(result, period, type)
        else:
            self.input, self.output = AsItIs(shape, shape, type), AsItIs(result, result, type)
        self.x, self.y = dnn.nhwc(self.input.shown, type), dnn.nhwc(self.output.shown, type)
        steps, none, padding = (dnn.dims(size, size) for size in (stride, 0, kernel // 2))
        self.window = steps, none, padding, padding


class Convolution:
    """Convolution of (N, H, W, C) to (N, ⌈H/stride⌉, ⌈W/stride⌉, filters), without a bias.

    The weight (filters, C, kernel, kernel) and its gradient are float32 tensors; the library keeps
    them in a blocked order of its own.
    """

    def __init__(self, shape: Shape, filters: int, kernel: int, stride: int, type: int) -> None:
        self.layout = layout = Layout(shape, filters, kernel, stride, type, MAX_SIDE)
        x, y, window = layout.x, layout.y, (*layout.window,)
        weight, grad = (dnn.any_layout(layout.weight, of) for of in (type, dnn.F32))
        name, direct = "convolution_{}".format, dnn.DIRECT
        forward = Primitive(
            name("forward"), dnn.TRAINING, direct, x, weight, None, y, *window, None
        )
        hint = forward.descriptor, None
        data = Primitive(name("backward_data"), direct, x, weight, y, *window, *hint)
        weights = Primitive(name("backward_weights"), direct, x, grad, None, y, *window, *hint)
        blocked = (
            forward.chosen(dnn.WEIGHTS),
            data.chosen(dnn.WEIGHTS),
            weights.chosen(dnn.DIFF_WEIGHTS),
        )
        self._forward = forward.bind({dnn.SRC: x, dnn.WEIGHTS: blocked[0], dnn.DST: y})
        self._data = data.bind({dnn.DIFF_DST: y, dnn.WEIGHTS: blocked[1], dnn.DIFF_SRC: x})
        self._weights = weights.bind({dnn.SRC: x, dnn.DIFF_DST: y, dnn.DIFF_WEIGHTS: blocked[2]})
        plain = dnn.dense(layout.weight)
        self._to_forward, self._to_data = (dnn.reorder(plain, each) for each in blocked[:2])
        self._from_grad = dnn.reorder(blocked[2], plain)
        self._weight = Checked(layout.weight)
        self._sizes, self._shown_size = [dnn.size_of(each) for each in blocked], dnn.size_of(x)

    def forward(self, x: Activation, weight: paddle.Tensor) -> tuple[Activation, Activation]:
        """The result, and the input in the form that `backward` takes."""
        layout, blocked = self.layout, Memory(self._sizes[0])
        x, y = layout.input.show(x), layout.output.room()
        self._to_forward(self._weight.address(weight), blocked.address)
        self._forward(x.address, blocked.address, y.address)
        return layout.output.take(y), x

    def backward(
        self,
        x: Activation,
        weight: paddle.Tensor,
        grad: Activation,
        wants_input: bool,
        to: Activation | None = None,
    ) -> tuple[Activation | None, paddle.Tensor]:
        """The gradients of the input, if it is wanted, and of the weight.

        That of the input is added to what `to` holds, where it is given.
        """
        layout = self.layout
        grad = layout.output.show(grad)
        weight_grad, blocked = new_tensor(layout.weight), Memory(self._sizes[2])
        self._weights(x.of_size(self._shown_size), grad.address, blocked.address)
        self._from_grad(blocked.address, weight_grad.data_ptr())
        if not wants_input:
            return None, weight_grad
        x_grad, blocked = layout.input.room(), Memory(self._sizes[1])
        self._to_data(self._weight.address(weight), blocked.address)
        self._data(grad.address, blocked.address, x_grad.address)
        given = layout.input.take(x_grad) if to is None else layout.input.add(x_grad, to)
        return given, weight_grad


@cache
class FoldedConvolution:
    """Convolution with a bias, for evaluation; then the sum with a shortcut and ReLU, if wanted."""

    def __init__(
        self, shape: Shape, filters: int, kernel: int, stride: int, add: bool, relu: bool, type: int
    ) -> None:
        self.layout = layout = Layout(shape, filters, kernel, stride, type, MAX_SIDE_FOLDED)
        self.add = add
        x, y, bias = layout.x, layout.y, dnn.dense((filters,))
        own, post = (
            dnn.any_layout(layout.weight, type),
            dnn.attributes(add_to_result=add, relu=relu),
        )
        forward = Primitive(
            *("convolution_forward", dnn.INFERENCE, dnn.DIRECT),
            *(x, own, bias, y, *layout.window, post),
        )
        weight = forward.chosen(dnn.WEIGHTS)
        roles = {dnn.SRC: x, dnn.WEIGHTS: weight, dnn.BIAS: bias, dnn.DST: y}
        self._forward, self._size = forward.bind(roles), dnn.size_of(weight)
        self._to_blocked = dnn.reorder(dnn.dense(layout.weight), weight)

    def blocked(self, weight: NDArray[np.float32]) -> Memory:
        """The weight (filters, C, kernel, kernel) in the library's own order."""
        memory = Memory(self._size)
        self._to_blocked(address_of(weight, self.layout.weight), memory.address)
        return memory

    def forward(
        self, x: Activation, weight: Memory, bias: NDArray[np.float32], added: Activation | None
    ) -> Activation:
        """The result; `added` is lost where there is one."""
        if (added is not None) != self.add:
            raise ValueError(f"expected something to add: {self.add}")
        output, bias_address = self.layout.output, address_of(bias, self.layout.weight[:1])
        x, y = self.layout.input.show(x), output.room() if added is None else output.show(added)
        self._forward(x.address, weight.of_size(self._size), bias_address, y.address)
        return output.take(y)
