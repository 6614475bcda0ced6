"""Saves a trained network: weights as safetensors, all else that is needed as JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cifar100.network.resnet import ResNet
from cifar100.running.errors import PipelineError
from cifar100.running.outputs import replacing, write_text

FORMAT = 3  # of the description


def save_weights(path: Path, network: ResNet) -> None:
    """Write all parameters and batch-norm statistics; the same values give the same bytes."""
    state = {name: np.ascontiguousarray(t.numpy()) for name, t in network.state_dict().items()}
    save_tensors(path, dict(sorted(state.items())))


def save_tensors(
    path: Path, tensors: dict[str, NDArray[Any]], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all. `PipelineError` if there is no room for it."""
    try:
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, safetensors.SafetensorError) as error:
        raise PipelineError(f"{path}: cannot be written ({error})") from None


def save_description(
    path: Path,
    network: ResNet,
    temperature: float,
    class_names: dict[str, list[Any]],
    training: dict[str, Any],
) -> None:
    """Write what is needed beside the weights to use the network, as JSON.

    `training` says what it was trained with: params, numbers of images, device and precision. The
    mean and deviation of the input are for readers: the weights have them too.
    """
    description = {
        "format": FORMAT,
        "network": {"family": "resnet", **asdict(network.config)},
        "input": {
            "layout": "NHWC",
            "channels": "RGB",
            "scale": [0, 255],
            "size": 32,
            "mean": network.mean.tolist(),
            "std": network.std.tolist(),
        },
        "temperature": temperature,
        "classes": class_names,
        "training": training,
    }
    write_text(path, json.dumps(description, indent=1) + "\n")
