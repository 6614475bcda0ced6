"""Writes a network in about half the space, for `load_model`: its weights as float16."""

from pathlib import Path

import numpy as np

from cifar100.network.resnet import ResNet
from cifar100.network.storage import save_tensors
from cifar100.trained.loading import DIGEST, digest_of


def write_float16(path: Path, network: ResNet) -> None:
    """Write the weights of convolutions and classifier as float16, whole or not at all.

    Vectors (batch norm, biases, mean and deviation of the input) stay float32: they take next to
    no space, and a variance may be too large for float16. So does a weight that is. The metadata
    have a digest, by which `load_model` notices damage.
    """
    tensors = {}
    for name, tensor in sorted(network.state_dict().items()):
        value = np.ascontiguousarray(tensor.numpy())
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        tensors[name] = half if value.ndim > 1 and np.isfinite(half).all() else value
    save_tensors(path, tensors, {DIGEST: digest_of(tensors)})
