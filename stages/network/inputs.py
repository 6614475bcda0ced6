"""From bytes to what a network takes: normalised channels, at the wanted size."""

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation per channel of (N, 3, H, W) images, each (3,), on the scale 0 to 1."""
    counts = np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    return mean.astype(np.float32), std.astype(np.float32)


def normalise(
    images: paddle.Tensor, mean: NDArray[np.float32], std: NDArray[np.float32]
) -> paddle.Tensor:
    """uint8 images (N, 3, H, W) to float32 with about zero mean and unit deviation per channel."""
    scale = paddle.to_tensor((1 / (255 * std)).reshape(1, 3, 1, 1))
    shift = paddle.to_tensor((mean / std).reshape(1, 3, 1, 1))
    return images.astype("float32") * scale - shift


def resize(images: paddle.Tensor, size: int) -> paddle.Tensor:
    """Scale images (N, 3, S, S) to (N, 3, size, size), bilinearly."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, [size, size], mode="bilinear", align_corners=False)
