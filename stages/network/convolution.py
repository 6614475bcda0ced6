"""3×3 convolution that is fast on a CPU; on a GPU it is `paddle.nn.Conv2D`.

Paddle's own CPU convolution unfolds each image and multiplies it alone, and its gradients run at
half of that speed. Where the stride is 1 Winograd's algorithm takes its place: exact up to
rounding, with a quarter of the multiply-adds. Where it is 2 several images are unfolded and
multiplied together. Tests compare both with `F.conv2d`.
"""

from types import ModuleType
from typing import Any, cast

import numpy as np
import paddle

from stages.network import unfolding, winograd_maps, winograd_tiles

SMALL_MAP = 7  # up to this side the transforms of whole maps by matrices are faster


class Conv3x3(paddle.nn.Conv2D):
    """3×3 convolution with padding 1 and no bias: (N, H, W, C) to (N, H/stride, W/stride, K)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride, 1, bias_attr=False, data_format="NHWC"
        )
        self.stride = stride
        self.compiled = True  # False: of Paddle's operators alone, as a saved program has to be

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve `x` by the algorithm that is fastest for its shape and device."""
        height, width = x.shape[1:3]
        if not self.compiled or height != width or not x.place.is_cpu_place():
            return super().forward(x)
        if self.stride == 1 and height <= SMALL_MAP:
            return winograd_maps.convolve(x, self.weight)
        if self.stride == 1:
            return _Compiled.apply(x, self.weight, height, winograd_tiles)
        return _Compiled.apply(x, self.weight, (height + 1) // 2, unfolding)


class Conv1x1(paddle.nn.Conv2D):
    """1×1 convolution without bias: (N, H, W, C) to (N, H/stride, W/stride, K)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias_attr=False, data_format="NHWC")
        self.stride = stride
        self.compiled = True

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Multiply the channels of the pixels that the stride leaves by the weight."""
        height, width = x.shape[1:3]
        if self.stride > 1 and (not self.compiled or height != width or not x.place.is_cpu_place()):
            return super().forward(x)
        if self.stride > 1:
            return _Compiled.apply(x, self.weight, (height + 1) // 2, unfolding)
        return paddle.matmul(x, self.weight.reshape(self.weight.shape[:2]), transpose_y=True)


class _Compiled(paddle.autograd.PyLayer):
    """Lets Paddle differentiate the loops; NumPy sees the memory of the tensors, uncopied."""

    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, weight: paddle.Tensor, side: int, loops: ModuleType
    ) -> paddle.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.loops = loops
        y = paddle.empty([x.shape[0], side, side, weight.shape[0]])
        loops.convolve(_view(x), _view(weight), _view(y))
        return y

    @staticmethod
    def backward(
        ctx: Any, grad: paddle.Tensor
    ) -> tuple[paddle.Tensor | None, paddle.Tensor | None]:
        x, weight = ctx.saved_tensor()
        x_grad = weight_grad = None
        if not x.stop_gradient:
            x_grad = paddle.empty(x.shape)
            ctx.loops.input_gradient(_view(grad), _view(weight), _view(x_grad))
        if not weight.stop_gradient:
            weight_grad = paddle.empty(weight.shape)
            ctx.loops.weight_gradient(_view(x), _view(grad), _view(weight_grad))
        return x_grad, weight_grad


def _view(tensor: paddle.Tensor) -> winograd_tiles.Array:
    return cast(winograd_tiles.Array, np.from_dlpack(tensor.detach().contiguous()))
