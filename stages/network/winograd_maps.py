"""3×3 convolution of stride 1 and padding 1 by Winograd's algorithm, for small maps.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", https://arxiv.org/abs/1509.09308.
Padding, tiling and transform are one matrix for the whole map, so that the convolution is four
matrix products without a transposed copy, and Paddle differentiates it.
"""

from functools import lru_cache

import numpy as np
import paddle
from numpy.typing import NDArray


def convolve(x: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
    """Convolve maps x (N, S, S, C) with weight (K, C, 3, 3) to (N, S, S, K)."""
    count, size, _, channels = x.shape
    filters = weight.shape[0]
    tile = best_tile(size)
    points = (tile + 2) ** 2
    to_points, from_points, kernel_to_points = _transforms(size, tile)
    tiles = to_points.shape[0] // points
    pixels = x.reshape([count, size * size, channels]).transpose([1, 0, 2])
    inputs = paddle.matmul(to_points, pixels.reshape([size * size, count * channels]))
    kernels = paddle.matmul(
        kernel_to_points, weight.reshape([filters * channels, 9]), transpose_y=True
    )
    products = paddle.matmul(
        inputs.reshape([points, tiles * count, channels]),
        kernels.reshape([points, filters, channels]),
        transpose_y=True,
    )
    outputs = paddle.matmul(
        from_points, products.reshape([points * tiles, count * filters]), transpose_x=True
    )
    outputs = outputs.reshape([size * size, count, filters]).transpose([1, 0, 2])
    return outputs.reshape([count, size, size, filters])


def best_tile(size: int) -> int:
    """The side of the output tiles that needs the fewest products for a map of side `size`."""
    return min((2, 3, 4), key=lambda tile: (tile + 2) ** 2 * (-(-size // tile)) ** 2)


def winograd_matrices(
    tile: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The matrices B (P, P), G (P, 3) and A (P, tile) of the algorithm F(tile, 3); P = tile + 2.

    A'((Gg)·(B'd)) are the `tile` outputs of the filter g (3,) on d (P,). This is the construction
    of Toom and Cook: polynomials are multiplied by their values at 0, 1, -1, 2, … and infinity.
    """
    at = [0.0, 1.0, -1.0, 2.0, -2.0][: tile + 1]
    count = tile + 2
    inputs, kernel, output = np.zeros((count, count)), np.zeros((count, 3)), np.zeros((count, tile))
    for point, value in enumerate(at):
        others = at[:point] + at[point + 1 :]
        inputs[: count - 1, point] = np.poly(others)[::-1]
        kernel[point] = value ** np.arange(3) / np.prod(value - np.array(others))
        output[point] = value ** np.arange(tile)
    inputs[:, -1] = np.poly(at)[::-1]
    kernel[-1, -1] = output[-1, -1] = 1
    return inputs, kernel, output


@lru_cache(maxsize=64)
def _transforms(size: int, tile: int) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Matrices of whole maps: pixels to points, points to pixels (transposed), 3×3 to points."""
    inputs, kernel, output = winograd_matrices(tile)
    points, tiles = tile + 2, -(-size // tile)
    to_points = np.zeros((points, tiles, size))
    from_points = np.zeros((points, tiles, size))
    for index in range(tiles):
        for point in range(points):
            pixel = tile * index + point - 1  # the padding begins at pixel -1
            if 0 <= pixel < size:
                to_points[:, index, pixel] = inputs[point]
        for row in range(min(tile, size - tile * index)):
            from_points[:, index, tile * index + row] = output[:, row]
    return (
        paddle.to_tensor(_on_both_axes(to_points).reshape(-1, size**2)),
        paddle.to_tensor(_on_both_axes(from_points).reshape(-1, size**2)),
        paddle.to_tensor(_on_both_axes(kernel[:, None]).reshape(-1, 9)),
    )


def _on_both_axes(matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """(point, tile, pixel) for one axis to (point, point, tile, tile, pixel, pixel) for two."""
    return np.einsum("atp,bsq->abtspq", matrix, matrix).astype(np.float32)
