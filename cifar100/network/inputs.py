"""From bytes to what the layers take: normalised channels, at the wanted size."""

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


def normalise(images: paddle.Tensor, mean: paddle.Tensor, std: paddle.Tensor) -> paddle.Tensor:
    """Images (N, H, W, 3) on the scale 0 to 255, of any type, to float32 of mean 0 and deviation 1.

    `mean` and `std` (3,) are those of each channel, on the scale 0 to 1.
    """
    return images.astype("float32") * (1 / (255 * std)) - mean / std


def resize(images: paddle.Tensor, size: int | None) -> paddle.Tensor:
    """Scale images (N, S, S, C) to (N, size, size, C), bilinearly; not at all for `None`."""
    if size is None or images.shape[1:3] == [size, size]:
        return images
    return F.interpolate(
        images, [size, size], mode="bilinear", align_corners=False, data_format="NHWC"
    )
