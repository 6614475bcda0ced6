"""Computes class activation maps.

Zhou et al., "Learning Deep Features for Discriminative Localization", 2016
(https://arxiv.org/abs/1512.04150), section 2.
"""

import numpy as np
import paddle
from numpy.typing import NDArray

from cifar100.network.inputs import normalise
from cifar100.network.resnet import ResNet
from cifar100.trained.loading import TrainedModel

BATCH = 100


def class_maps(
    model: TrainedModel, images: NDArray[np.uint8], labels: NDArray[np.int64], flip: bool
) -> NDArray[np.float32]:
    """Maps (N, K, H', W') of uint8 images (N, 3, H, W), for K classes of each: `labels` (N, K).

    A map is the features of the last block times the row of the class in the classifier. Positive
    values speak for the class, negative ones against it. The network ends with the mean over all
    positions and the classifier, so the mean of a map plus the bias of the class is its logit:
    nothing is approximated. With `flip` both are means over each image and its mirror image, whose
    map is mirrored back.
    """
    rows = model.network.classifier.weight.numpy().T.astype(np.float64)  # (classes, C)
    maps = [np.zeros((0, labels.shape[1], 1, 1), np.float32)]
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH].transpose(0, 2, 3, 1)
        features = _features(model.network, batch)
        if flip:
            features = (features + _features(model.network, batch[:, :, ::-1])[:, :, ::-1]) / 2
        of_classes = rows[labels[start : start + BATCH]]
        maps.append(np.einsum("nhwc,nkc->nkhw", features, of_classes).astype(np.float32))
    return np.concatenate(maps[1:] or maps)


def _features(network: ResNet, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The maps (N, H', W', C) of the last block, of images (N, H, W, 3)."""
    with paddle.no_grad():
        inputs = normalise(paddle.to_tensor(images), network.mean, network.std)
        return network.features(inputs).numpy().astype(np.float64)
