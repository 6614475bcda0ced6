"""Loss, accuracy and calibration on the validation split."""

from collections.abc import Iterator

import numpy as np
import paddle
import paddle.nn.functional as F

from cifar100.network.resnet import ResNet
from stages.train.batches import DeviceImages
from stages.train.group import Group
from stages.train.temperature import fit_temperature

VALIDATION_BATCH = 250


def validate(network: ResNet, val: DeviceImages, size: int, group: Group) -> dict[str, float]:
    """Loss and accuracy on the validation split at this image size; processes share the batches."""
    sums = [paddle.zeros([3])]
    for logits, labels in batches_of(network, val, size, group.rank, group.size):
        correct = (logits.topk(5)[1] == labels.unsqueeze(1)).astype("float32")
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums.append(paddle.stack([loss, correct[:, 0].sum(), correct.sum()]))
    totals = group.total(paddle.stack(sums).numpy().sum(0, dtype=np.float64).tolist())
    loss, top1, top5 = (value / len(val) for value in totals)
    return {"val_loss": loss, "val_top1": top1, "val_top5": top5}


def calibrated_temperature(network: ResNet, val: DeviceImages) -> float:
    """The temperature that suits the validation split, at the size of its images."""
    logits, labels = zip(*batches_of(network, val, val.side), strict=True)
    return fit_temperature(paddle.concat(logits).numpy(), paddle.concat(labels).numpy())


@paddle.no_grad()
def batches_of(
    network: ResNet, val: DeviceImages, size: int, first: int = 0, step: int = 1
) -> Iterator[tuple[paddle.Tensor, paddle.Tensor]]:
    """Logits (B, classes) and labels (B,) of each `step`-th batch, in evaluation mode."""
    network.eval()
    for start in range(0, len(val), VALIDATION_BATCH)[first::step]:
        images, labels = val.range(start, min(start + VALIDATION_BATCH, len(val)))
        yield network(images, size), labels
