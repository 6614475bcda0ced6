"""Convolution of stride 2 on the CPU as one matrix product: 3×3 with padding 1, or 1×1.

The F = 9 or 1 inputs of each output are laid side by side ("im2col"; Chellapilla et al., 2006,
https://inria.hal.science/inria-00112631), channels innermost, so that they are copied in runs.
Images go through in groups, for matrix products of a good size.
"""

import numpy as np

from stages.network.compiling import Array, compiled

COLUMNS = 256  # outputs that a group of images should have


def convolve(x: Array, weight: Array, y: Array) -> None:
    """Write the convolution of x (N, S, S, C) with weight (K, C, √F, √F) into y (N, T, T, K)."""
    _convolve(x, np.ascontiguousarray(_channels_innermost(weight).T), y, _group(y))


def input_gradient(grad: Array, weight: Array, x_grad: Array) -> None:
    """Write the gradient with respect to the input (N, S, S, C) into `x_grad`.

    From the gradient `grad` (N, T, T, K) of the output and the weight (K, C, √F, √F).
    """
    _input_gradient(grad, _channels_innermost(weight), x_grad, _group(grad))


def weight_gradient(x: Array, grad: Array, weight_grad: Array) -> None:
    """Write the gradient with respect to the weight (K, C, √F, √F) into `weight_grad`.

    From the input x (N, S, S, C) and the gradient `grad` (N, T, T, K) of the output.
    """
    filters, channels, kernel, _ = weight_grad.shape
    sums = np.zeros((filters, kernel**2 * channels), np.float32)
    _weight_gradient(x, grad, sums, _group(grad))
    weight_grad[:] = sums.reshape(filters, kernel, kernel, channels).transpose(0, 3, 1, 2)


def _channels_innermost(weight: Array) -> Array:
    """(K, C, √F, √F) to (K, F·C)."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)


def _group(y: Array) -> int:
    """How many images go through together."""
    return int(min(len(y), max(1, COLUMNS // y.shape[1] ** 2)))


@compiled
def _convolve(x, weight, y, group):  # type: ignore[no-untyped-def]
    """Convolve x (N, S, S, C) with weight (F·C, K) into y (N, T, T, K)."""
    count, size, _, channels = x.shape
    side, filters = y.shape[2:]
    area = side**2
    padded, patches = _workspace(size, channels, group * area, len(weight))
    for start in range(0, count, group):
        stop = min(start + group, count)
        rows = (stop - start) * area
        for image in range(start, stop):
            _unfold(x[image], padded, patches[(image - start) * area :])
        np.dot(patches[:rows], weight, y[start:stop].reshape(rows, filters))


@compiled
def _input_gradient(grad, weight, x_grad, group):  # type: ignore[no-untyped-def]
    """Gradient with respect to the input, from grad (N, T, T, K) and weight (K, F·C)."""
    count, side, _, filters = grad.shape
    size, channels = x_grad.shape[2:]
    area = side**2
    padded, patches = _workspace(size, channels, group * area, weight.shape[1])
    for start in range(0, count, group):
        stop = min(start + group, count)
        rows = (stop - start) * area
        np.dot(grad[start:stop].reshape(rows, filters), weight, patches[:rows])
        for image in range(start, stop):
            _fold(patches[(image - start) * area :], padded, x_grad[image])


@compiled
def _weight_gradient(x, grad, sums, group):  # type: ignore[no-untyped-def]
    """Add the gradient of the weight, (K, F·C), to `sums`."""
    count, size, _, channels = x.shape
    side, filters = grad.shape[2:]
    area = side**2
    padded, patches = _workspace(size, channels, group * area, sums.shape[1])
    product = np.empty_like(sums)
    for start in range(0, count, group):
        stop = min(start + group, count)
        rows = (stop - start) * area
        for image in range(start, stop):
            _unfold(x[image], padded, patches[(image - start) * area :])
        np.dot(grad[start:stop].reshape(rows, filters).T, patches[:rows], product)
        sums += product


@compiled
def _workspace(size, channels, outputs, length):  # type: ignore[no-untyped-def]
    """Zeros for one image (S, S, C) with its border; room for patches (outputs, length = F·C)."""
    border = 0 if length == channels else 2
    padded = np.zeros((size + border, size + border, channels), np.float32)
    return padded, np.empty((outputs, length), np.float32)


@compiled
def _unfold(x, padded, patches):  # type: ignore[no-untyped-def]
    """Write the inputs of each output, (T², F·C), from x (S, S, C); `padded` has its border."""
    size, _, channels = x.shape
    margin = (len(padded) - size) // 2
    kernel = 2 * margin + 1
    for row in range(size):
        padded[row + margin, margin : size + margin] = x[row]
    side = (size + 1) // 2
    length = kernel * channels
    for row in range(side):
        for column in range(side):
            patch = patches[row * side + column]
            for tap in range(kernel):
                source = padded[2 * row + tap, 2 * column : 2 * column + kernel].reshape(length)
                target = patch[tap * length : (tap + 1) * length]
                for i in range(length):
                    target[i] = source[i]


@compiled
def _fold(patches, padded, x):  # type: ignore[no-untyped-def]
    """Add what `_unfold` copied back to where it came from: patches (T², F·C) to x (S, S, C)."""
    size, _, channels = x.shape
    margin = (len(padded) - size) // 2
    kernel = 2 * margin + 1
    side = (size + 1) // 2
    length = kernel * channels
    padded[:] = 0
    for row in range(side):
        for column in range(side):
            patch = patches[row * side + column]
            for tap in range(kernel):
                target = padded[2 * row + tap, 2 * column : 2 * column + kernel].reshape(length)
                source = patch[tap * length : (tap + 1) * length]
                for i in range(length):
                    target[i] += source[i]
    for row in range(size):
        x[row] = padded[row + margin, margin : size + margin]
