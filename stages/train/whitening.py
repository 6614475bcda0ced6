"""Filters that whiten image patches, as the initial weights of a network's first convolution.

Random filters see little but brightness, because neighbouring pixels are alike; these share the
differences between patches out evenly. Page, "How to Train Your ResNet 8"
(https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/); Jordan, "94% on CIFAR-10 in
3.29 Seconds on a Single GPU" (https://arxiv.org/abs/2404.00498), section 3.2.
"""

import numpy as np
from numpy.typing import NDArray

from cifar100.network.resnet import ResNet

MAX_IMAGES = 2000  # whose patches are looked at
EPSILON = 1e-2  # added to the variances: what hardly varies is not blown up


def whiten_stem(network: ResNet, images: NDArray[np.uint8]) -> None:
    """Give the first convolution the filters for images (N, 3, S, S), then their negatives.

    If it has fewer, it gets the strongest; if it has more, the others keep their weights. The
    images are normalised as the network does it.
    """
    mean, std = (values.numpy()[:, None, None] for values in (network.mean, network.std))
    weight = network.stem[0].weight
    size = weight.shape[-1]
    some = images[:: -(-len(images) // MAX_IMAGES)]
    filters = whitening_filters((some / 255 - mean) / std, size)
    filters = np.concatenate([filters, -filters])[: weight.shape[0]]
    values = weight.numpy()
    values[: len(filters)] = filters
    weight.set_value(values)


def whitening_filters(images: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Filters (C·size², C, size, size) whose responses to images (N, C, S, S) are uncorrelated.

    They are the principal components of the patches, strongest first, over their deviations.
    """
    count, channels, side, _ = images.shape
    cells = side // size
    grid = images[:, :, : cells * size, : cells * size]
    patches = grid.reshape(count, channels, cells, size, cells, size).transpose(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(-1, channels * size**2)
    variances, components = np.linalg.eigh(patches.T @ patches / len(patches))
    filters = (components / np.sqrt(variances + EPSILON)).T[::-1]
    largest = np.take_along_axis(filters, np.abs(filters).argmax(1, keepdims=True), 1)
    return (np.sign(largest) * filters).reshape(-1, channels, size, size)
