"""Loss and accuracy on the validation split."""

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray

from stages.network.inputs import normalise, resize
from stages.network.resnet import ResNet
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
    network.eval()
    sums = np.zeros(3)
    starts = range(0, len(labels), VALIDATION_BATCH)[worker_rank() :: worker_count()]
    with paddle.no_grad():
        for start in starts:
            rows = slice(start, start + VALIDATION_BATCH)
            logits = network(resize(normalise(paddle.to_tensor(images[rows]), mean, std), size))
            expected = paddle.to_tensor(labels[rows])
            ranked = logits.topk(5)[1]
            right = ranked == expected.unsqueeze(1)
            sums += [
                float(F.cross_entropy(logits, expected, reduction="sum")),
                float(right[:, 0].sum()),
                float(right.sum()),
            ]
    loss, top1, top5 = (value / len(labels) for value in total(sums.tolist()))
    return {"val_loss": loss, "val_top1": top1, "val_top5": top5}
