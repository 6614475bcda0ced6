"""Saves and loads a trained network: weights as safetensors, all else that is needed as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from cifar100.network.resnet import BLOCKS_PER_GROUP, ResNet, ResNetConfig
from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import replacing, write_text

FORMAT = 3
MAX_WIDTH = 512  # of the networks that params.yaml allows


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode, and all else that is needed to use it.

    temperature: what logits are divided by, so that the probabilities of their softmax are
    calibrated.
    """

    network: ResNet
    temperature: float
    class_names: dict[str, list[Any]]


def save_weights(path: Path, network: ResNet) -> None:
    """Write all parameters and batch-norm statistics; the same values give the same bytes."""
    state = {name: np.ascontiguousarray(t.numpy()) for name, t in network.state_dict().items()}
    save_tensors(path, dict(sorted(state.items())))


def save_tensors(
    path: Path, tensors: dict[str, NDArray[np.float32]], metadata: dict[str, str] | None = None
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


def load_model(weights: Path, description: Path) -> TrainedModel:
    """Rebuild the network from its two files, in evaluation mode.

    Raises `PipelineError` if a file is missing or damaged, or if the two do not belong together.
    """
    try:
        stored = json.loads(description.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT or stored["network"].pop("family") != "resnet":
            raise ValueError("written by another version")
        config = ResNetConfig(**stored["network"])
        temperature, class_names = float(stored["temperature"]), stored["classes"]
        _check(config, temperature, class_names)
        tensors = load_file(weights)
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename or weights}: not found; run `dvc repro`") from None
    except safetensors.SafetensorError as error:
        raise PipelineError(f"{weights}: not a safetensors file ({reason_of(error)})") from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise PipelineError(
            f"{description}: not the description of a model ({reason_of(error)})"
        ) from None
    if sum(tensor.size for tensor in tensors.values()) < _min_weights(config):
        raise PipelineError(f"{weights} does not fit {description}: it is too small")
    network = ResNet(config)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(expected.items() ^ found.items())
    if wrong:
        name = wrong[0][0]
        raise PipelineError(
            f"{weights} does not fit {description}: tensor {name} should have shape "
            f"{expected.get(name, 'none')} and has {found.get(name, 'none')}"
        )
    for name, value in tensors.items():
        if value.dtype != np.float32 or not np.isfinite(value).all():
            raise PipelineError(f"{weights}: tensor {name} is not of finite float32 numbers")
    if not (tensors["std"] > 0).all():
        raise PipelineError(f"{weights}: tensor std is not of numbers above 0")
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in tensors.items()})
    network.eval()
    return TrainedModel(network, temperature, class_names)


def _min_weights(config: ResNetConfig) -> int:
    """Of one 3×3 convolution per block: no memory is taken for a network that is not there."""
    blocks = enumerate(BLOCKS_PER_GROUP[config.depth])
    return sum(count * 9 * (config.width * 2**group) ** 2 for group, count in blocks)


def _check(config: ResNetConfig, temperature: float, class_names: dict[str, list[Any]]) -> None:
    """Raise `ValueError` for a value that `save_description` would not write."""
    fine, coarse, coarse_of_fine = (
        class_names[key] for key in ("fine", "coarse", "coarse_of_fine")
    )
    allowed = {
        f"depth {config.depth}": config.depth in BLOCKS_PER_GROUP,
        f"stem {config.stem}": config.stem in ("cifar", "imagenet"),
        f"width {config.width}": isinstance(config.width, int) and 1 <= config.width <= MAX_WIDTH,
        "number of classes": len(fine) == len(coarse_of_fine) == config.classes,
        "class name": all(isinstance(name, str) for name in [*fine, *coarse]),
        "superclass": all(label in range(len(coarse)) for label in coarse_of_fine),
        f"temperature {temperature}": 0 < temperature < np.inf,
    }
    for what, is_allowed in allowed.items():
        if not is_allowed:
            raise ValueError(f"unsupported {what}")
