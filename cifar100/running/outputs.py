"""Writes outputs whole or not at all."""

from __future__ import annotations  # for a Python that is too old: see restore.py

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # most stages write no table
    import pandas as pd

CHECKPOINTS = Path(".checkpoints")
FINISHED_CHECKPOINTS = CHECKPOINTS / "finished"  # kept until DVC has recorded the results


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` on success and is deleted on failure.

    It takes the name when its content is on the disk: a power cut leaves the old file or the new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        _flush(temporary)
        os.replace(temporary, path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until the file, or the names in the folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with Unix line ends, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: Path, table: pd.DataFrame, digits: int | None = None) -> None:
    """Write `table` without its index, whole or not at all, the same bytes on each system.

    Fractions get `digits` after the decimal point, or as many as they need.
    """
    float_format = None if digits is None else f"%.{digits}f"
    write_text(path, table.to_csv(index=False, lineterminator="\n", float_format=float_format))


def check_writable(paths: Iterable[Path]) -> None:
    """Raise `OSError` if a file at one of `paths` could not be written: before the long work."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
