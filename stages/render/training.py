"""Reads what was trained: weights to draw, size and data of the network, and its params."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
from numpy.typing import NDArray

from cifar100.running.errors import PipelineError, reason_of

# The params of the stage train in the committed params.yaml, by its sections.
DEFAULTS = Path(__file__).with_name("default_params.json")


@dataclass(frozen=True)
class Param:
    """A param of a training as text; `default` is another value in params.yaml, or ''."""

    name: str
    value: str
    default: str


@dataclass(frozen=True)
class Training:
    """What was trained: facts by their names, and the params of the stage train by section.

    numbers: the params that are numbers · augmentations: what was done to its images, in words.
    """

    facts: dict[str, str]
    params: dict[str, list[Param]]
    numbers: dict[str, int | float]
    augmentations: list[str]

    @property
    def mixed(self) -> float:
        """The share of batches whose images were mixed with others."""
        return self.numbers["mixup"] + self.numbers["cutmix"]


def first_filters(weights: Path) -> NDArray[np.float32]:
    """The weights (K, 3, S, S) of the first convolution of a stored network.

    Raises `PipelineError` if the file is missing, or not such a network.
    """
    try:
        with safetensors.safe_open(weights, "numpy") as file:
            filters: NDArray[np.float32] = file.get_tensor("stem.0.weight")
    except FileNotFoundError:
        raise PipelineError(f"{weights}: not found; run `dvc repro`") from None
    except safetensors.SafetensorError as error:
        raise PipelineError(
            f"{weights}: not a network of this pipeline ({reason_of(error)})"
        ) from None
    if filters.ndim != 4 or filters.shape[1] != 3:
        raise PipelineError(f"{weights}: the first convolution does not take colour images")
    return filters


def describe_training(description: Path, summary: pd.DataFrame, history: pd.DataFrame) -> Training:
    """What was trained, in words: from models/model.json, models/summary.csv and the history.

    Raises `PipelineError` if the first is missing or not the description of a network.
    """
    try:
        stored = json.loads(description.read_text(encoding="utf-8"))
        network, training = stored["network"], stored["training"]
        images = f"{training['images']:,}, and {training['validation_images']:,} for validation"
        name = f"ResNet-{network['depth']}, width {network['width']}, stem {network['stem']}"
        values = dict(training["params"].items())
        params, numbers = grouped_params(values), numbers_of(values)
        augmentations = augmentations_of(values)
    except FileNotFoundError:
        raise PipelineError(f"{description}: not found; run `dvc repro`") from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise PipelineError(
            f"{description}: not the description of a model ({reason_of(error)})"
        ) from None
    total = summary.iloc[-1]
    sizes = history.groupby("image_size", sort=False)["epoch"].count()
    facts = {
        "Network": name,
        "Parameters": f"{total['parameters']:,}",
        "Multiply-adds per image": f"{total['multiply_adds']:,}",
        "Training images": images,
        "Epochs": ", then ".join(f"{n} on images of {size} pixels" for size, n in sizes.items()),
    }
    return Training(facts, params, numbers, augmentations)


def grouped_params(values: dict[str, Any]) -> dict[str, list[Param]]:
    """The params of a training by the sections of params.yaml, with the defaults that they changed.

    Params that are in no section come last, under "Other".
    """
    sections = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    known = {name for section in sections.values() for name in section}
    sections["Other"] = {name: value for name, value in values.items() if name not in known}
    grouped = {
        title: [
            Param(name, as_yaml(values[name]), "" if values[name] == default else as_yaml(default))
            for name, default in section.items()
            if name in values
        ]
        for title, section in sections.items()
    }
    return {title: rows for title, rows in grouped.items() if rows}


def numbers_of(values: dict[str, Any]) -> dict[str, int | float]:
    """The params of a training that are numbers, and the default of those that are not given.

    Raises `ValueError`, `TypeError` or `OverflowError` if one is no number.
    """
    return {
        name: type(default)(values.get(name, default))
        for name, default in defaults().items()
        if type(default) in (int, float)
    }


def augmentations_of(values: dict[str, Any]) -> list[str]:
    """What is done to the images of a training with these params: verbs, and when."""
    values = defaults() | values
    mixed = values["mixup"] + values["cutmix"]
    words = {
        "cropped": values["crop_padding"] > 0,
        "mirrored": values["flip"],
        f"mixed in {mixed:.0%} of the batches": mixed > 0,
    }
    return [word for word, is_done in words.items() if is_done]


def defaults() -> dict[str, Any]:
    """The params of the stage train in the committed params.yaml."""
    sections = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    return {name: value for section in sections.values() for name, value in section.items()}


def as_yaml(value: Any) -> str:
    """A param as in params.yaml."""
    return value if isinstance(value, str) else json.dumps(value)
