"""Logits of a stored model for many images, in float32."""

import numpy as np
import paddle
from numpy.typing import NDArray

from cifar100.trained.loading import TrainedModel


def predict_logits(
    model: TrainedModel, images: NDArray[np.uint8], batch_size: int, flip: bool
) -> NDArray[np.float32]:
    """Logits (N, classes) of uint8 images (N, 3, H, W), of which `batch_size` are taken at a time.

    With `flip` they are the mean over each image and its mirror image.
    """
    logits = []
    with paddle.no_grad():
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].transpose(0, 2, 3, 1)
            found = model.network(paddle.to_tensor(batch)).numpy()
            if flip:
                mirrored = paddle.to_tensor(batch[:, :, ::-1])
                found = (found + model.network(mirrored).numpy()) / 2
            logits.append(found)
    return np.concatenate(logits)
