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

from stages.network.inputs import normalise
from stages.network.resnet import BLOCKS_PER_GROUP, ResNet, ResNetConfig
from stages.running.errors import PipelineError
from stages.running.outputs import replacing, write_text

FORMAT = 1


@dataclass(frozen=True)
class TrainedModel:
    """A network in evaluation mode, its input normalisation and its class names.

    mean and std: float32 (3,), on the scale 0 to 1, per channel red, green, blue.
    """

    network: ResNet
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    class_names: dict[str, list[Any]]

    def normalise(self, images: NDArray[np.uint8]) -> paddle.Tensor:
        """uint8 images (N, 3, H, W) to the float32 tensor that the network takes."""
        return normalise(paddle.to_tensor(images), self.mean, self.std)


def save_weights(path: Path, network: ResNet) -> None:
    """Write all parameters and batch-norm statistics; the same values give the same bytes."""
    state = {name: np.ascontiguousarray(t.numpy()) for name, t in network.state_dict().items()}
    with replacing(path) as temporary:
        save_file(dict(sorted(state.items())), temporary)


def save_description(
    path: Path,
    config: ResNetConfig,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    class_names: dict[str, list[Any]],
) -> None:
    """Write what is needed beside the weights to use the network, as JSON."""
    description = {
        "format": FORMAT,
        "network": {"family": "resnet", **asdict(config)},
        "input": {
            "layout": "NCHW",
            "channels": "RGB",
            "size": 32,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
        },
        "classes": class_names,
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
        if config.depth not in BLOCKS_PER_GROUP or config.stem not in ("cifar", "imagenet"):
            raise ValueError(f"no network of depth {config.depth} with stem {config.stem}")
        mean, std = (np.array(stored["input"][key], np.float32) for key in ("mean", "std"))
        if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all():
            raise ValueError("mean and std are not three positive numbers each")
        network = ResNet(config)
        tensors = load_file(weights)
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename or weights}: not found; run `dvc repro`") from None
    except safetensors.SafetensorError as error:
        raise PipelineError(f"{weights}: not a safetensors file ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"{description}: not the description of a model ({error})") from None
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    wrong = sorted(expected.items() ^ found.items())
    if wrong:
        name = wrong[0][0]
        raise PipelineError(
            f"{weights} does not fit {description}: tensor {name} should have shape "
            f"{expected.get(name, 'none')} and has {found.get(name, 'none')}"
        )
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in tensors.items()})
    network.eval()
    return TrainedModel(network, mean, std, stored["classes"])
