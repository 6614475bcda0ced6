"""3×3 convolution that is fast on a CPU: Winograd's algorithm as plain matrix products.

Paddle's own CPU convolution unfolds each image and multiplies it alone, which runs at half of the
speed of its matrix product, or less. Two measures, both exact up to rounding (tests compare values
and gradients with `F.conv2d`):

- Small maps: F(4×4, 3×3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks"
  (https://arxiv.org/abs/1509.09308). Padding, tiling and the input transform are one matrix for the
  whole map, so that the convolution becomes four matrix products without a transposed copy.
- Large maps: the gradient with respect to the input is computed as a convolution with the flipped
  kernel, which Paddle does faster than its own gradient kernel.

On a GPU, and for all other convolutions, this is `paddle.nn.Conv2D`.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray

TILE = 4  # outputs per tile and axis
POINTS = TILE + 2  # inputs per tile and axis, and products per tile and axis

# The matrices B', G and A' of the paper, section 4.2.
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=np.float64,
)
KERNEL = (
    np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=np.float64
    )
    / 24
)
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=np.float64,
)


class Conv3x3(paddle.nn.Conv2D):
    """3×3 convolution with padding 1 and no bias: (N, C, H, W) to (N, K, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias_attr=False)
        self.unit_stride = stride == 1

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Convolve `x` by the algorithm that is fastest for its size and device."""
        height, width = x.shape[2:]
        if not (self.unit_stride and height == width and x.place.is_cpu_place()):
            return super().forward(x)
        if winograd_pays(height, x.shape[1]):
            return winograd_conv2d(x, self.weight)
        if paddle.is_grad_enabled() and not x.stop_gradient:
            return _FlippedGradient.apply(x, self.weight)
        return super().forward(x)


def winograd_pays(size: int, channels: int) -> bool:
    """Whether Winograd's algorithm is faster for size×size maps of `channels` channels.

    Compares multiply-adds per output channel and image. The factor is the measured advantage of
    large matrix products over Paddle's convolution.
    """
    tiles = (-(-size // TILE)) ** 2
    direct = 9 * channels * size**2
    winograd = POINTS**2 * tiles * (2 * size**2 + channels)
    return winograd < 1.5 * direct


def winograd_conv2d(x: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
    """3×3 convolution, stride 1, padding 1, of maps (N, C, S, S) with `weight` (K, C, 3, 3)."""
    count, channels, size, _ = x.shape
    filters = weight.shape[0]
    to_points, from_points, kernel_to_points = _transforms(size)
    points = POINTS**2
    tiles = to_points.shape[0] // points
    inputs = paddle.matmul(
        to_points, x.reshape([count * channels, size * size]), transpose_y=True
    ).reshape([points, tiles * count, channels])
    kernels = paddle.matmul(
        kernel_to_points, weight.reshape([filters * channels, 9]), transpose_y=True
    ).reshape([points, filters, channels])
    products = paddle.matmul(inputs, kernels, transpose_y=True)
    return paddle.matmul(
        products.reshape([points * tiles, count * filters]), from_points, transpose_x=True
    ).reshape([count, filters, size, size])


@lru_cache(maxsize=64)
def _transforms(size: int) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Matrices of whole maps: pixels to points, points to pixels (transposed), 3×3 to points."""
    tiles = -(-size // TILE)
    to_points = np.zeros((POINTS, tiles, size))
    from_points = np.zeros((POINTS, tiles, size))
    for tile in range(tiles):
        for point in range(POINTS):
            pixel = TILE * tile + point - 1  # the padding begins at pixel -1
            if 0 <= pixel < size:
                to_points[:, tile, pixel] = INPUT[:, point]
        for row in range(min(TILE, size - TILE * tile)):
            from_points[:, tile, TILE * tile + row] = OUTPUT[row]
    return (
        paddle.to_tensor(_on_both_axes(to_points).reshape(-1, size**2)),
        paddle.to_tensor(_on_both_axes(from_points).reshape(-1, size**2)),
        paddle.to_tensor(_on_both_axes(KERNEL[:, None]).reshape(-1, 9)),
    )


def _on_both_axes(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """(point, tile, pixel) for one axis to (point, point, tile, tile, pixel, pixel) for two."""
    return np.einsum("atp,bsq->abtspq", matrix, matrix).astype(np.float32)


class _FlippedGradient(paddle.autograd.PyLayer):
    """`F.conv2d` with the gradient of its input computed by a convolution."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        with paddle.enable_grad():
            kernel = weight.detach()
            kernel.stop_gradient = False
            y = F.conv2d(x.detach(), kernel, padding=1)
        ctx.saved = kernel, y  # y carries the graph that leads to the kernel
        return y.detach()

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        kernel, y = ctx.saved
        (kernel_grad,) = paddle.grad([y], [kernel], [grad])
        with paddle.no_grad():
            flipped = kernel.detach().flip([2, 3]).transpose([1, 0, 2, 3])
            x_grad = F.conv2d(grad, flipped, padding=1)
        return x_grad, kernel_grad
