"""Builds archives in the official format, honest ones and others, for the tests."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cifar100.archive.reader import read_archive
from cifar100.dataset.samples import ClassNames, Samples
from cifar100.running.errors import PipelineError


def batch(samples: Samples) -> dict[bytes, Any]:
    """The dictionary that the official archive stores for these samples."""
    return {
        b"data": samples.images.reshape(len(samples), -1),
        b"fine_labels": samples.fine.tolist(),
        b"coarse_labels": samples.coarse.tolist(),
        b"filenames": samples.names.tolist(),
    }


def members(train: Samples, test: Samples, classes: ClassNames) -> dict[str, bytes]:
    """The three files of the archive, pickled."""
    meta = {
        b"fine_label_names": [name.encode() for name in classes.fine],
        b"coarse_label_names": [name.encode() for name in classes.coarse],
    }
    contents = {"meta": meta, "train": batch(train), "test": batch(test)}
    return {name: pickle.dumps(content, protocol=4) for name, content in contents.items()}


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    """Write the files as cifar-100-python/NAME into a .tar.gz."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def refusal(path: Path) -> str:
    """The one line with which the archive is refused; a failure if it is not."""
    with pytest.raises(PipelineError) as caught:
        read_archive(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message
