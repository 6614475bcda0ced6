"""Writes the weights for `paddle.load`, by the names that `paddle.vision.models.ResNet` has."""

import re
from pathlib import Path

import paddle

from cifar100.network.resnet import CIFAR_DEPTHS, ResNet
from cifar100.running.outputs import replacing

RENAMED = {
    r"^stem\.0\.": "conv1.",
    r"^stem\.1\.": "bn1.",
    **{rf"^groups\.{group}\.": f"layer{group + 1}." for group in range(4)},
    r"\.norm(\d)\.": r".bn\1.",
    r"\.shortcut\.": ".downsample.",
    r"^classifier\.": "fc.",
}


def write_weights(path: Path, network: ResNet) -> None:
    """Write all parameters and batch-norm statistics as float32, whole or not at all.

    `paddle.load` gives a mapping of names to tensors. The depths 18 to 152 have the names of
    `paddle.vision.models.ResNet` and no `mean` and `std`, which that class has no place for. The
    depths 20 to 110, which it does not know, have the names of model.safetensors.
    """
    # Arrays, as tensors bring along a name that counts the layers which the process has made
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    if network.config.depth not in CIFAR_DEPTHS:
        last = len(network.groups[0][0].units())
        arrays = {
            _renamed(name, last): values
            for name, values in arrays.items()
            if name not in ("mean", "std")
        }
    with replacing(path) as temporary:
        paddle.save(arrays, str(temporary))


def _renamed(name: str, last: int) -> str:
    """The name in Paddle's class of a tensor, where a block has `last` convolutions."""
    name = name.replace(".last_norm.", f".norm{last}.")
    for pattern, replacement in RENAMED.items():
        name = re.sub(pattern, replacement, name)
    return name
