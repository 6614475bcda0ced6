"""Reads the tables and weights that the figures are drawn from."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
from numpy.typing import NDArray

from stages.running.errors import PipelineError, reason_of

# The columns that the readers of a table need, by its name.
WORDS = {
    "intervals": ["metric"],
    "per_class": ["class", "superclass", "taken_for"],
    "summary": ["layer"],
}
NUMBERS = {
    "history": ["epoch", "lr", "image_size", "train_loss", "train_top1", "val_loss", "val_top1"],
    "intervals": ["value", "low", "high"],
    "per_class": ["images", "top1", "top5", "superclass_top1"],
    "summary": ["parameters", "multiply_adds"],
}


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a CSV file that the pipeline wrote; empty cells are ''.

    Raises `PipelineError` if there are none, or not all columns that its name needs.
    """
    try:
        table = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except (ValueError, OSError) as error:
        raise PipelineError(f"{path}: not a CSV table ({reason_of(error)})") from None
    if table.empty:
        raise PipelineError(f"{path}: has no rows; run `dvc repro`")
    numbers = NUMBERS.get(path.stem, [])
    for column in [*WORDS.get(path.stem, []), *numbers]:
        if column not in table:
            raise PipelineError(f"{path}: has no column {column}; run `dvc repro`")
    for column in numbers:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise PipelineError(f"{path}: column {column}: expected numbers; run `dvc repro`")
    return table


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


def describe_training(
    description: Path, summary: pd.DataFrame, history: pd.DataFrame
) -> dict[str, str]:
    """What was trained, in words: from models/model.json, models/summary.csv and the history.

    Raises `PipelineError` if the first is missing or not the description of a network.
    """
    try:
        stored = json.loads(description.read_text(encoding="utf-8"))
        network, training = stored["network"], stored["training"]
        params = ", ".join(f"{key} {value}" for key, value in training["params"].items())
        images = f"{training['images']:,}, and {training['validation_images']:,} for validation"
        seed = f"{training['params']['seed']}"
        name = f"ResNet-{network['depth']}, width {network['width']}, stem {network['stem']}"
    except FileNotFoundError:
        raise PipelineError(f"{description}: not found; run `dvc repro`") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PipelineError(
            f"{description}: not the description of a model ({reason_of(error)})"
        ) from None
    total = summary.iloc[-1]
    sizes = history.groupby("image_size", sort=False)["epoch"].count()
    return {
        "Network": name,
        "Parameters": f"{total['parameters']:,}",
        "Multiply-adds per image": f"{total['multiply_adds']:,}",
        "Training images": images,
        "Seed": seed,
        "Epochs": ", then ".join(f"{n} on images of {size} pixels" for size, n in sizes.items()),
        "All params of the stage train": params,
    }
