"""3×3 convolution of stride 2 and padding 1 on the CPU as one matrix product.

The 9 inputs of each output are laid side by side ("im2col"; Chellapilla et al., 2006,
https://inria.hal.science/inria-00112631), channels innermost, so that they are copied in runs.
Images go through in groups, for matrix products of a good size.
"""

import numpy as np
from numpy.typing import NDArray

from stages.network.compiling import compiled

COLUMNS = 256  # outputs that a group of images should have

Array = NDArray[np.float32]


def convolve(x: Array, weight: Array, y: Array) -> None:
    """Write the convolution of maps x (N, C, S, S) with weight (K, C, 3, 3) into y (N, K, T, T)."""
    _convolve(x, _channels_innermost(weight), y, _group(y))


def input_gradient(grad: Array, weight: Array, x_grad: Array) -> None:
    """Write the gradient with respect to the input (N, C, S, S) into `x_grad`.

    From the gradient `grad` (N, K, T, T) of the output and the weight (K, C, 3, 3).
    """
    _input_gradient(grad, _channels_innermost(weight), x_grad, _group(grad))


def weight_gradient(x: Array, grad: Array, weight_grad: Array) -> None:
    """Write the gradient with respect to the weight (K, C, 3, 3) into `weight_grad`.

    From the input x (N, C, S, S) and the gradient `grad` (N, K, T, T) of the output.
    """
    filters, channels = weight_grad.shape[:2]
    sums = np.zeros((filters, 9 * channels), np.float32)
    _weight_gradient(x, grad, sums, _group(grad))
    weight_grad[:] = sums.reshape(filters, 3, 3, channels).transpose(0, 3, 1, 2)


def _channels_innermost(weight: Array) -> Array:
    """(K, C, 3, 3) to (K, 9C)."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)


def _group(y: Array) -> int:
    """How many images go through together."""
    return int(min(len(y), max(1, COLUMNS // y.shape[2] ** 2)))


@compiled
def _convolve(x, weight, y, group):  # type: ignore[no-untyped-def]
    """Convolve x (N, C, S, S) with weight (K, 9C) into y (N, K, T, T)."""
    count, channels, size, _ = x.shape
    filters, side = y.shape[1:3]
    area = side**2
    padded = np.zeros((size + 2, size + 2, channels), np.float32)
    patches = np.empty((group * area, 9 * channels), np.float32)
    products = np.empty(filters * group * area, np.float32)
    for start in range(0, count, group):
        images = min(group, count - start)
        for image in range(images):
            _unfold(x[start + image], padded, patches[image * area : (image + 1) * area])
        product = products[: filters * images * area].reshape(filters, images * area)
        np.dot(weight, patches[: images * area].T, product)
        for image in range(images):
            _copy(
                product[:, image * area : (image + 1) * area],
                y[start + image].reshape(filters, area),
            )


@compiled
def _input_gradient(grad, weight, x_grad, group):  # type: ignore[no-untyped-def]
    """Gradient with respect to the input, from grad (N, K, T, T) and weight (K, 9C)."""
    count, filters, side, _ = grad.shape
    channels, size = x_grad.shape[1:3]
    area = side**2
    padded = np.empty((size + 2, size + 2, channels), np.float32)
    patches = np.empty((group * area, 9 * channels), np.float32)
    gathered = np.empty(filters * group * area, np.float32)
    for start in range(0, count, group):
        images = min(group, count - start)
        grads = gathered[: filters * images * area].reshape(filters, images * area)
        for image in range(images):
            _copy(
                grad[start + image].reshape(filters, area),
                grads[:, image * area : (image + 1) * area],
            )
        np.dot(grads.T, weight, patches[: images * area])
        for image in range(images):
            _fold(patches[image * area : (image + 1) * area], padded, x_grad[start + image])


@compiled
def _weight_gradient(x, grad, sums, group):  # type: ignore[no-untyped-def]
    """Add the gradient of the weight, (K, 9C), to `sums`."""
    count, channels, size, _ = x.shape
    filters, side = grad.shape[1:3]
    area = side**2
    padded = np.zeros((size + 2, size + 2, channels), np.float32)
    patches = np.empty((group * area, 9 * channels), np.float32)
    gathered = np.empty(filters * group * area, np.float32)
    product = np.empty_like(sums)
    for start in range(0, count, group):
        images = min(group, count - start)
        grads = gathered[: filters * images * area].reshape(filters, images * area)
        for image in range(images):
            _unfold(x[start + image], padded, patches[image * area : (image + 1) * area])
            _copy(
                grad[start + image].reshape(filters, area),
                grads[:, image * area : (image + 1) * area],
            )
        np.dot(grads, patches[: images * area], product)
        sums += product


@compiled
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Copy (K, T²) to a part of a matrix, or from one."""
    for row in range(len(source)):
        a, b = source[row], target[row]
        for i in range(len(a)):
            b[i] = a[i]


@compiled
def _unfold(x, padded, patches):  # type: ignore[no-untyped-def]
    """Write the inputs of each output, (T², 9C), from x (C, S, S); `padded` is (S+2, S+2, C)."""
    channels, size, _ = x.shape
    for row in range(size):
        for channel in range(channels):
            line = x[channel, row]
            for column in range(size):
                padded[row + 1, column + 1, channel] = line[column]
    side = (size + 1) // 2
    length = 3 * channels
    for row in range(side):
        for column in range(side):
            patch = patches[row * side + column]
            for tap in range(3):
                source = padded[2 * row + tap, 2 * column : 2 * column + 3].reshape(length)
                target = patch[tap * length : (tap + 1) * length]
                for i in range(length):
                    target[i] = source[i]


@compiled
def _fold(patches, padded, x):  # type: ignore[no-untyped-def]
    """Add what `_unfold` copied back to where it came from: patches (T², 9C) to x (C, S, S)."""
    channels, size, _ = x.shape
    side = (size + 1) // 2
    length = 3 * channels
    padded[:] = 0
    for row in range(side):
        for column in range(side):
            patch = patches[row * side + column]
            for tap in range(3):
                target = padded[2 * row + tap, 2 * column : 2 * column + 3].reshape(length)
                source = patch[tap * length : (tap + 1) * length]
                for i in range(length):
                    target[i] += source[i]
    for row in range(size):
        for channel in range(channels):
            line = x[channel, row]
            for column in range(size):
                line[column] = padded[row + 1, column + 1, channel]
