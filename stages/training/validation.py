"""Loss, accuracy and calibration on the validation split."""

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray

from stages.network.inputs import normalise, resize
from stages.network.resnet import ResNet
from stages.training.temperature import fit_temperature
from stages.training.workers import total, worker_count, worker_rank

VALIDATION_BATCH = 250


def validate(
    network: ResNet,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    size: int,
) -> dict[str, float]:
    """Loss and accuracy on the validation split at this image size; workers share the batches."""
    sums = np.zeros(3)
    for start in range(0, len(labels), VALIDATION_BATCH)[worker_rank() :: worker_count()]:
        rows = slice(start, start + VALIDATION_BATCH)
        logits = logits_of(network, images[rows], mean, std, size)
        expected = paddle.to_tensor(labels[rows])
        right = logits.topk(5)[1] == expected.unsqueeze(1)
        sums += [
            float(F.cross_entropy(logits, expected, reduction="sum")),
            float(right[:, 0].sum()),
            float(right.sum()),
        ]
    loss, top1, top5 = (value / len(labels) for value in total(sums.tolist()))
    return {"val_loss": loss, "val_top1": top1, "val_top5": top5}


def calibrated_temperature(
    network: ResNet,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> float:
    """The temperature that suits the validation split, at the size of its images."""
    batches = [
        logits_of(network, images[start : start + VALIDATION_BATCH], mean, std, images.shape[-1])
        for start in range(0, len(labels), VALIDATION_BATCH)
    ]
    return fit_temperature(np.concatenate([logits.numpy() for logits in batches]), labels)


def logits_of(
    network: ResNet,
    images: NDArray[np.uint8],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    size: int,
) -> paddle.Tensor:
    """Logits (N, classes) of images (N, 3, S, S) scaled to `size`, in evaluation mode."""
    network.eval()
    with paddle.no_grad():
        return network(resize(normalise(paddle.to_tensor(images), mean, std), size))
