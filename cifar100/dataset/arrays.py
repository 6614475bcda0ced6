"""Stores NumPy arrays as .npz files, and trusts nothing when it reads them."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import replacing


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an uncompressed .npz, whole or not at all; the same arrays give the same bytes.

    `np.savez` gives other bytes in other versions of Python.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy")
            member.create_system, member.external_attr = 3, 0o644 << 16  # as on Unix
            archive.writestr(member, content.getbuffer())


def load_arrays(path: Path, names: list[str], content: str) -> list[NDArray[Any]]:
    """The arrays called `names` of an .npz that `save_arrays` wrote.

    `content` says in the error what was expected. Raises `PipelineError` if the file is missing,
    damaged, or anything that `save_arrays` does not write: no object is unpickled, and nothing is
    decompressed, so that no more memory is taken than the file is large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.file_size != member.compress_size for member in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[name] for name in names]
        if not all(isinstance(array, np.ndarray) for array in arrays):
            raise ValueError("a member is no array")
        return arrays
    except MemoryError:
        raise
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except Exception as error:  # a damaged file makes the libraries raise what they please
        raise PipelineError(
            f"{path}: not {content} ({reason_of(error)}); run `dvc repro`"
        ) from None
