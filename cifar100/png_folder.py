"""Folders into which `python -m cifar100.predict` writes a PNG for each picture."""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar100.running.errors import PipelineError
from cifar100.running.outputs import replacing

MAX_NAME = 200  # bytes of a file's name without number and suffix; file systems allow 255


def check_folder(option: str, folder: Path) -> None:
    """Make `folder` if it is missing. Raises `PipelineError` if no file can be written to it.

    `option`, such as --why, is the one that named it, for errors.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "is a file" if os.path.isfile(folder) else error.strerror
        raise PipelineError(
            f"{option} {folder}: cannot be written to ({reason}); name another folder"
        ) from None


def new_paths(option: str, folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """A file for each picture: by its name, with a number where two would be the same.

    Raises `PipelineError` if one of these files is there already: it is not overwritten.
    """
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    for name in names:
        letters = re.sub(r"[^\w.-]+", "_", name.removesuffix(".png")).lstrip("._-") or "picture"
        plain = file = letters.encode()[-MAX_NAME:].decode(errors="ignore")
        number = 1
        while file.casefold() in taken:  # because some file systems ignore case
            number += 1
            file = f"{plain}-{number}"
        taken.add(file.casefold())
        paths[name] = folder / f"{file}.png"
    existing = [path for path in paths.values() if os.path.lexists(path)]
    if existing:
        others = f" and {len(existing) - 1} more" if existing[1:] else ""
        raise PipelineError(
            f"{option} {folder}: {existing[0].name}{others} would be overwritten; name another "
            "folder, or remove what is there"
        )
    return paths


def write_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write an image, uint8 (H, W, 3), whole or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary)
