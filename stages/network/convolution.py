"""Convolutions that are fast on a CPU; on a GPU they are `paddle.nn.Conv2D`.

Paddle's own CPU convolution unfolds each image and multiplies it alone, and its gradients run at
half of that speed. For 3×3 and stride 1 Winograd's algorithm takes its place: exact up to rounding,
with a quarter of the multiply-adds. For stride 2 several images are unfolded and multiplied
together. Channels are the last axis, as all of these work on them in runs. Tests compare them with
`F.conv2d`.
"""

from types import ModuleType
from typing import Any

import paddle

from stages.network import unfolding, winograd_maps, winograd_tiles
from stages.network.compiling import view

SMALL_MAP = 7  # up to this side the transforms of whole maps by matrices are faster


class Convolution(paddle.nn.Conv2D):
    """Convolution that keeps the size, or halves it by its stride, without a bias.

    (N, H, W, C) to (N, H/stride, W/stride, K); the weight is (K, C, kernel, kernel).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride,
            kernel // 2,
            bias_attr=False,
            data_format="NHWC",
        )
        self.stride = stride
        self.compiled = True  # False: of Paddle's operators alone, as a saved program has to be

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve `x` by the algorithm that is fastest for its shape and device."""
        height, width = x.shape[1:3]
        if not self.compiled or height != width or not x.place.is_cpu_place():
            return paddle.nn.Conv2D.forward(self, x)  # paddle.jit traces no super() here
        if self.stride == 2:
            return _Compiled.apply(x, self.weight, (height + 1) // 2, unfolding)
        return self.with_unit_stride(x)

    def with_unit_stride(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve square maps on a CPU."""
        raise NotImplementedError


class Conv3x3(Convolution):
    """3×3 convolution with padding 1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride)

    def with_unit_stride(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve square maps on a CPU by Winograd's algorithm."""
        size = x.shape[1]
        if size <= SMALL_MAP:
            return winograd_maps.convolve(x, self.weight)
        return _Compiled.apply(x, self.weight, size, winograd_tiles)


class Conv1x1(Convolution):
    """1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride)

    def with_unit_stride(self, x: paddle.Tensor) -> paddle.Tensor:
        """Multiply the channels of each pixel by the weight."""
        return paddle.matmul(x, self.weight.reshape(self.weight.shape[:2]), transpose_y=True)


class _Compiled(paddle.autograd.PyLayer):
    """Lets Paddle differentiate the loops."""

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, side: int, loops: ModuleType
    ) -> paddle.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.loops = loops
        y = paddle.empty([x.shape[0], side, side, weight.shape[0]])
        loops.convolve(view(x), view(weight), view(y))
        return y

    @staticmethod
    def backward(
        ctx: Any, grad: paddle.Tensor
    ) -> tuple[paddle.Tensor | None, paddle.Tensor | None]:
        x, weight = ctx.saved_tensor()
        x_grad = weight_grad = None
        if not x.stop_gradient:
            x_grad = paddle.empty(x.shape)
            ctx.loops.input_gradient(view(grad), view(weight), view(x_grad))
        if not weight.stop_gradient:
            weight_grad = paddle.empty(weight.shape)
            ctx.loops.weight_gradient(view(x), view(grad), view(weight_grad))
        return x_grad, weight_grad
