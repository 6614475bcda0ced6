"""Writes class activation maps over pictures, for `python -m cifar100.predict --why FOLDER`."""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar100.class_activation.overlay import overlay
from cifar100.running.errors import PipelineError
from cifar100.running.outputs import replacing

if TYPE_CHECKING:
    from cifar100.network.storage import TrainedModel

SIDE = 256  # pixels of a picture that is written
MAX_NAME = 200  # bytes of its name without number and suffix; file systems allow 255


def check_folder(folder: Path) -> None:
    """Make `folder` if it is missing. Raises `PipelineError` if no file can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "is a file" if os.path.isfile(folder) else error.strerror
        raise PipelineError(
            f"--why {folder}: cannot be written to ({reason}); name another folder"
        ) from None


def png_paths(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """A file for each picture: by its name, with a number where two would be the same."""
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    for name in names:
        letters = re.sub(r"[^\w.-]+", "_", name.removesuffix(".png")).lstrip("._-") or "picture"
        plain = file = letters.encode()[-MAX_NAME:].decode(errors="ignore")
        number = 1
        while file.casefold() in taken:  # as there are file systems that ignore case
            number += 1
            file = f"{plain}-{number}"
        taken.add(file.casefold())
        paths[name] = folder / f"{file}.png"
    return paths


def map_paths(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the map of each picture goes.

    Raises `PipelineError` if one of these files is there already: it is not overwritten.
    """
    paths = png_paths(folder, names)
    existing = [path for path in paths.values() if os.path.lexists(path)]
    if existing:
        others = f" and {len(existing) - 1} more" if existing[1:] else ""
        raise PipelineError(
            f"--why {folder}: {existing[0].name}{others} would be overwritten; name another "
            "folder, or remove what is there"
        )
    return paths


def draw_maps(
    model: "TrainedModel",
    images: dict[str, NDArray[np.uint8]],
    predictions: list[list[dict[str, Any]]],
) -> dict[str, NDArray[np.uint8]]:
    """The map of the most probable class of each image (3, 32, 32) over it, uint8 (256, 256, 3).

    `predictions` are the `top_classes` of the images, in their order.
    """
    from cifar100.class_activation.maps import class_maps  # not above: it imports Paddle

    fine = model.class_names["fine"]
    labels = np.array([[fine.index(rows[0]["class"])] for rows in predictions])
    maps = class_maps(model, np.stack(list(images.values())), labels, flip=False)
    drawn = (overlay(image, of[0], SIDE) for image, of in zip(images.values(), maps, strict=True))
    return dict(zip(images, drawn, strict=True))


def write_map(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture (S, S, 3) as PNG, whole or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary)
