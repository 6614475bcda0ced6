"""Loads a trained network from its weights and its description, and checks both."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors
from numpy.typing import NDArray

from cifar100.network.resnet import BLOCKS_PER_GROUP, ResNet, ResNetConfig
from cifar100.network.storage import FORMAT
from cifar100.running.errors import PipelineError, reason_of

MAX_WIDTH = 512  # of the networks that params.yaml allows
DIGEST = "sha256"  # in the metadata of a file of weights, if it has one
GET_AGAIN = "get it again by `dvc checkout`, or by `git restore` where Git keeps it"
# What Python and the libraries raise for content that they do not understand
NOT_UNDERSTOOD = ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode, and all else that is needed to use it.

    temperature: what logits are divided by, so that the probabilities of their softmax are
    calibrated.
    """

    network: ResNet
    temperature: float
    class_names: dict[str, list[Any]]


def load_model(weights: Path, description: Path) -> TrainedModel:
    """Rebuild the network from its two files, in evaluation mode; it computes in float32.

    Raises `PipelineError` if a file is missing or damaged, or if the two do not belong together.
    """
    config, temperature, class_names = _read_description(description)
    tensors = _read_tensors(weights)
    _check_shapes(config, tensors, f"{weights} does not fit {description}")
    _check_values(tensors, weights)
    network = ResNet(config)
    network.set_state_dict(
        {name: paddle.to_tensor(value.astype(np.float32)) for name, value in tensors.items()}
    )
    network.eval()
    return TrainedModel(network, temperature, class_names)


def _read_description(path: Path) -> tuple[ResNetConfig, float, dict[str, list[Any]]]:
    """What `save_description` was given: the config, the temperature and the class names."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT or stored["network"].pop("family") != "resnet":
            raise ValueError("written by another version")
        config = ResNetConfig(**stored["network"])
        temperature, class_names = float(stored["temperature"]), stored["classes"]
        _check(config, temperature, class_names)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except NOT_UNDERSTOOD as error:
        raise PipelineError(
            f"{path}: not the description of a model ({reason_of(error)}); {GET_AGAIN}"
        ) from None
    return config, temperature, class_names


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


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file by name; if it has a digest, they are those written."""
    try:
        with safetensors.safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get(DIGEST)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except (safetensors.SafetensorError, *NOT_UNDERSTOOD) as error:
        raise PipelineError(
            f"{path}: not a safetensors file ({reason_of(error)}); {GET_AGAIN}"
        ) from None
    if expected is not None and expected != digest_of(tensors):
        raise PipelineError(f"{path}: damaged: not the numbers that were written; {GET_AGAIN}")
    return tensors


def digest_of(tensors: dict[str, NDArray[Any]]) -> str:
    """SHA-256 over the names and the bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _check_shapes(config: ResNetConfig, tensors: dict[str, NDArray[Any]], problem: str) -> None:
    """Raise `PipelineError` that begins with `problem` unless these are all tensors of a network.

    The network that this asks takes no memory: the description may claim a large one.
    """
    with paddle.LazyGuard():
        claimed = ResNet(config)
    expected = {name: tuple(tensor.shape) for name, tensor in claimed.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(expected.items() ^ found.items())
    if wrong:
        name = wrong[0][0]
        raise PipelineError(
            f"{problem}: tensor {name} should have shape "
            f"{expected.get(name, 'none')} and has {found.get(name, 'none')}"
        )


def _check_values(tensors: dict[str, NDArray[Any]], path: Path) -> None:
    for name, value in tensors.items():
        if value.dtype not in (np.float32, np.float16) or not np.isfinite(value).all():
            raise PipelineError(
                f"{path}: tensor {name} is not of finite float32 numbers (or float16)"
            )
    if not (tensors["std"] > 0).all():
        raise PipelineError(f"{path}: tensor std is not of numbers above 0")
