"""3×3 convolution of stride 1 and padding 1 on the CPU by Winograd's algorithm F(4×4, 3×3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", https://arxiv.org/abs/1509.09308:
a map is cut into tiles of 4×4 outputs, the 6×6 inputs of each are transformed to 36 points, the
convolution is a matrix product over the channels at each point, and the products are transformed
back. That is a quarter of the multiply-adds. Numba compiles the transforms, for which channels are
the innermost axis; the products are BLAS. Images go through in groups so small that all that lies
between input and output stays in the cache.
"""

import numpy as np
from numba import njit

from stages.network.compiling import Array, compiled

POINTS = 36  # per tile of 4×4 outputs
# For matrix products of a good size a group of images should have about so many
COLUMNS = 128  # tiles, where the gradient of the weight is computed
VALUES = 4096  # numbers at a point, tiles × channels, where maps are convolved
PADDING = 16  # elements between points: strides of a power of two would share cache sets

# The matrix G of the paper, section 4.2, on both axes: 36 points from the 9 weights of a kernel.
_AXIS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
KERNEL = np.kron(_AXIS, _AXIS).astype(np.float32)

# A product with a plain integer would be of double precision, in half the lanes of a vector.
TWO, FOUR, FIVE, EIGHT = (np.float32(factor) for factor in (2, 4, 5, 8))


def convolve(x: Array, weight: Array, y: Array) -> None:
    """Write the convolution of maps x (N, S, S, C) with weight (K, C, 3, 3) into y (N, S, S, K)."""
    filters, channels = weight.shape[:2]
    kernels = weight.reshape(filters, channels, 9).swapaxes(0, 1).reshape(-1, 9)
    points = np.dot(KERNEL, kernels.T).reshape(POINTS, channels, filters)
    _convolve(x, points, y, _group(x, VALUES // channels))


def input_gradient(grad: Array, weight: Array, x_grad: Array) -> None:
    """Write the gradient with respect to the input (N, S, S, C) into `x_grad`.

    It is the convolution of `grad` (N, S, S, K) with the turned kernels of weight (K, C, 3, 3),
    their channels and filters exchanged.
    """
    filters, channels = weight.shape[:2]
    turned = np.ascontiguousarray(KERNEL[:, ::-1])
    points = np.dot(turned, weight.reshape(-1, 9).T).reshape(POINTS, filters, channels)
    _convolve(grad, points, x_grad, _group(grad, VALUES // filters))


def weight_gradient(x: Array, grad: Array, weight_grad: Array) -> None:
    """Write the gradient with respect to the weight (K, C, 3, 3) into `weight_grad`.

    From the input x (N, S, S, C) and the gradient `grad` (N, S, S, K) of the output.
    """
    filters, channels = grad.shape[3], x.shape[3]
    points = np.zeros((POINTS, filters, channels), np.float32)
    _correlate(x, grad, points, _group(x, COLUMNS))
    np.dot(points.reshape(POINTS, -1).T, KERNEL, weight_grad.reshape(-1, 9))


def _group(x: Array, columns: int) -> int:
    """How many images go through together, for about so many tiles."""
    tiles = ((x.shape[1] + 3) // 4) ** 2
    return int(min(len(x), max(1, columns // tiles)))


@compiled
def _convolve(x, points, y, group):  # type: ignore[no-untyped-def]
    """Convolve x (N, S, S, C) with kernels given by `points` (36, C, K) into y (N, S, S, K)."""
    count, size, _, channels = x.shape
    filters = points.shape[2]
    axis = (size + 3) // 4
    tiles = axis**2
    inputs = np.empty((POINTS, group * tiles * channels + PADDING), np.float32)
    products = np.empty((POINTS, group * tiles * filters + PADDING), np.float32)
    strip = np.zeros((6, (4 * axis + 2) * channels), np.float32)
    outside = np.zeros(size * channels, np.float32)
    halves = np.empty((4, 6, axis * filters), np.float32)
    rows = np.empty((4, 4 * axis, filters), np.float32)
    for start in range(0, count, group):
        images = min(group, count - start)
        columns = images * tiles
        for image in range(images):
            _inputs_to_points(x[start + image], inputs, image * tiles, strip, outside)
        for point in range(POINTS):
            np.dot(
                inputs[point, : columns * channels].reshape(columns, channels),
                points[point],
                products[point, : columns * filters].reshape(columns, filters),
            )
        for image in range(images):
            _from_points(products, y[start + image], image * tiles, halves, rows)


@compiled
def _correlate(x, grad, points, group):  # type: ignore[no-untyped-def]
    """Add the gradient of the kernels at their points, (36, K, C), to `points`."""
    count, size, _, channels = x.shape
    filters = grad.shape[3]
    axis = (size + 3) // 4
    tiles = axis**2
    inputs = np.empty((POINTS, group * tiles * channels + PADDING), np.float32)
    outputs = np.empty((POINTS, group * tiles * filters + PADDING), np.float32)
    strip = np.zeros((6, (4 * axis + 2) * channels), np.float32)
    strip_grad = np.zeros((6, 4 * axis * filters), np.float32)
    outside = np.zeros(size * max(channels, filters), np.float32)
    product = np.empty((filters, channels), np.float32)
    for start in range(0, count, group):
        images = min(group, count - start)
        columns = images * tiles
        for image in range(images):
            _inputs_to_points(x[start + image], inputs, image * tiles, strip, outside)
            _outputs_to_points(grad[start + image], outputs, image * tiles, strip_grad, outside)
        for point in range(POINTS):
            np.dot(
                outputs[point, : columns * filters].reshape(columns, filters).T,
                inputs[point, : columns * channels].reshape(columns, channels),
                product,
            )
            points[point] += product


@compiled
def _row(x, row, outside):  # type: ignore[no-untyped-def]
    """The row of x (S, S, C) as (S * C,), or `outside` where there is none."""
    size, _, channels = x.shape
    if 0 <= row < size:
        return x[row].reshape(size * channels)
    return outside[: size * channels]


@njit(inline="always")
def _six_from_six(d0, d1, d2, d3, d4, d5):  # type: ignore[no-untyped-def]
    """B'd for a column d of a tile."""
    even, odd = d4 - FOUR * d2, d3 - FOUR * d1
    even2, odd2 = d4 - d2, TWO * (d3 - d1)
    return (
        FOUR * d0 - FIVE * d2 + d4,
        even + odd,
        even - odd,
        even2 + odd2,
        even2 - odd2,
        FOUR * d1 - FIVE * d3 + d5,
    )


@njit(inline="always")
def _six_from_four(y0, y1, y2, y3):  # type: ignore[no-untyped-def]
    """Ay for a column y of a tile."""
    even, odd = y0 + y2, y1 + y3
    even2, odd2 = y0 + FOUR * y2, TWO * y1 + EIGHT * y3
    return y0, even + odd, even - odd, even2 + odd2, even2 - odd2, y3


@njit(inline="always")
def _four_from_six(m0, m1, m2, m3, m4, m5):  # type: ignore[no-untyped-def]
    """A'm for a column m of products."""
    total, difference = m1 + m2, m1 - m2
    total2, difference2 = m3 + m4, m3 - m4
    return (
        m0 + total + total2,
        difference + TWO * difference2,
        total + FOUR * total2,
        difference + EIGHT * difference2 + m5,
    )


@compiled
def _inputs_to_points(x, points, first, strip, outside):  # type: ignore[no-untyped-def]
    """The paper's B'dB of each 6×6 tile d of x (S, S, C), to `points` from tile `first` on."""
    size, _, channels = x.shape
    axis, length = (size + 3) // 4, size * channels
    inside = strip[:, channels : channels + length]
    s0, s1, s2, s3, s4, s5 = inside[0], inside[1], inside[2], inside[3], inside[4], inside[5]
    for tile_row in range(axis):
        top = 4 * tile_row - 1
        d0, d1 = _row(x, top, outside), _row(x, top + 1, outside)
        d2, d3 = _row(x, top + 2, outside), _row(x, top + 3, outside)
        d4, d5 = _row(x, top + 4, outside), _row(x, top + 5, outside)
        for i in range(length):
            s0[i], s1[i], s2[i], s3[i], s4[i], s5[i] = _six_from_six(
                d0[i], d1[i], d2[i], d3[i], d4[i], d5[i]
            )
        for row in range(6):
            for tile in range(axis):
                d = strip[row, 4 * tile * channels : (4 * tile + 6) * channels]
                start = (first + tile_row * axis + tile) * channels
                stop = start + channels
                p0, p1 = points[6 * row, start:stop], points[6 * row + 1, start:stop]
                p2, p3 = points[6 * row + 2, start:stop], points[6 * row + 3, start:stop]
                p4, p5 = points[6 * row + 4, start:stop], points[6 * row + 5, start:stop]
                for i in range(channels):
                    p0[i], p1[i], p2[i], p3[i], p4[i], p5[i] = _six_from_six(
                        d[i],
                        d[channels + i],
                        d[2 * channels + i],
                        d[3 * channels + i],
                        d[4 * channels + i],
                        d[5 * channels + i],
                    )


@compiled
def _outputs_to_points(y, points, first, strip, outside):  # type: ignore[no-untyped-def]
    """AyA' of each 4×4 tile of y (S, S, K): the transpose of what `_from_points` does."""
    size, _, filters = y.shape
    axis, length = (size + 3) // 4, size * filters
    s0, s1, s2, s3, s4, s5 = strip[0], strip[1], strip[2], strip[3], strip[4], strip[5]
    for tile_row in range(axis):
        top = 4 * tile_row
        y0, y1 = _row(y, top, outside), _row(y, top + 1, outside)
        y2, y3 = _row(y, top + 2, outside), _row(y, top + 3, outside)
        for i in range(length):
            s0[i], s1[i], s2[i], s3[i], s4[i], s5[i] = _six_from_four(y0[i], y1[i], y2[i], y3[i])
        for row in range(6):
            for tile in range(axis):
                t = strip[row, 4 * tile * filters : (4 * tile + 4) * filters]
                start = (first + tile_row * axis + tile) * filters
                stop = start + filters
                p0, p1 = points[6 * row, start:stop], points[6 * row + 1, start:stop]
                p2, p3 = points[6 * row + 2, start:stop], points[6 * row + 3, start:stop]
                p4, p5 = points[6 * row + 4, start:stop], points[6 * row + 5, start:stop]
                for i in range(filters):
                    p0[i], p1[i], p2[i], p3[i], p4[i], p5[i] = _six_from_four(
                        t[i], t[filters + i], t[2 * filters + i], t[3 * filters + i]
                    )


@compiled
def _from_points(points, y, first, halves, rows):  # type: ignore[no-untyped-def]
    """The paper's A'mA of the products m of each tile from `first` on, written to y (S, S, K)."""
    size, _, filters = y.shape
    axis = (size + 3) // 4
    length = axis * filters
    for tile_row in range(axis):
        start = first * filters + tile_row * length
        stop = start + length
        for column in range(6):
            m0, m1 = points[column, start:stop], points[6 + column, start:stop]
            m2, m3 = points[12 + column, start:stop], points[18 + column, start:stop]
            m4, m5 = points[24 + column, start:stop], points[30 + column, start:stop]
            h0, h1 = halves[0, column], halves[1, column]
            h2, h3 = halves[2, column], halves[3, column]
            for i in range(length):
                h0[i], h1[i], h2[i], h3[i] = _four_from_six(
                    m0[i], m1[i], m2[i], m3[i], m4[i], m5[i]
                )
        for row in range(min(4, size - 4 * tile_row)):
            for tile in range(axis):
                m = halves[row, :, tile * filters : (tile + 1) * filters]
                m0, m1, m2, m3, m4, m5 = m[0], m[1], m[2], m[3], m[4], m[5]
                y0, y1 = rows[row, 4 * tile], rows[row, 4 * tile + 1]
                y2, y3 = rows[row, 4 * tile + 2], rows[row, 4 * tile + 3]
                for i in range(filters):
                    y0[i], y1[i], y2[i], y3[i] = _four_from_six(
                        m0[i], m1[i], m2[i], m3[i], m4[i], m5[i]
                    )
            y[4 * tile_row + row] = rows[row, :size]
