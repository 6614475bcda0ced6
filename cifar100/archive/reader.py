"""Reads `cifar-100-python.tar.gz` (www.cs.toronto.edu/~kriz/cifar.html) without trusting it.

Nothing in a file is executed: its pickles may ask for plain data and NumPy arrays alone. Memory is
bounded: at most 256 MiB are unpacked, 32 KiB of them headers, and a pickle takes few steps. Nothing
is written: members are found by name and read, never extracted.
"""

import gzip
import io
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from cifar100.dataset.samples import CLASSES, IMAGE_SHAPE, SUPERCLASSES, ClassNames, Samples
from cifar100.running.errors import PipelineError, reason_of

META, TRAIN, TEST = MEMBERS = [f"cifar-100-python/{name}" for name in ("meta", "train", "test")]
MAX_UNPACKED = 2**28  # bytes; the official archive has 178 MiB
MAX_HEADERS = 2**15  # bytes; the official archive has 2,048 in 4 members
MAX_STEPS = 10**6  # of a pickle; the official training batch has 200,371


def read_archive(path: Path) -> tuple[Samples, Samples, ClassNames]:
    """Read the training samples, the test samples and the class names, in the archive's order.

    Raises `PipelineError` if the file is not such an archive, is damaged, or holds a pickle that
    asks for anything but plain data and NumPy arrays.
    """
    found = _read_members(path)
    meta, train, test = (_unpickle(f"{path}: {name}", found[name]) for name in MEMBERS)
    fine = _list(f"{path}: {META}", meta, b"fine_label_names", bytes, CLASSES)
    coarse = _list(f"{path}: {META}", meta, b"coarse_label_names", bytes, SUPERCLASSES)
    splits = _samples(f"{path}: {TRAIN}", train), _samples(f"{path}: {TEST}", test)
    pairs = {(int(f), int(c)) for s in splits for f, c in zip(s.fine, s.coarse, strict=True)}
    coarse_of_fine = dict(sorted(pairs))
    if not len(pairs) == len(coarse_of_fine) == len(set(fine)) == CLASSES:
        raise PipelineError(f"{path}: expected {CLASSES} classes, each in exactly one superclass")
    if len(set(coarse)) != SUPERCLASSES:
        raise PipelineError(f"{path}: expected {SUPERCLASSES} different names of superclasses")
    fine, coarse = ([name.decode(errors="replace") for name in names] for names in (fine, coarse))
    return *splits, ClassNames(fine, coarse, list(coarse_of_fine.values()))


class _Unpacked:
    """The unpacked archive for `tarfile`, which reads headers and seeks past all else."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self.stream = stream
        self.tell = stream.tell
        self.headers = 0  # bytes read

    def read(self, size: int) -> bytes:
        self.headers += size
        if size < 0 or self.headers > MAX_HEADERS:
            raise tarfile.ReadError(f"it has more than {MAX_HEADERS:,} bytes of headers")
        return self.stream.read(size)

    def seek(self, position: int) -> None:
        if not self.tell() - 1 <= position <= MAX_UNPACKED:  # `tarfile` never goes further back
            raise tarfile.ReadError(f"it claims more than {MAX_UNPACKED:,} bytes")
        self.stream.seek(position)


def _read_members(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as stream:
            unpacked: Any = _Unpacked(stream)
            with tarfile.open(fileobj=unpacked, mode="r:") as archive:
                for member in archive:
                    if not 0 <= member.size <= MAX_UNPACKED - stream.tell():
                        raise tarfile.ReadError(f"a member claims {member.size:,} bytes")
                    if member.name in MEMBERS and member.isreg():
                        found[member.name] = stream.read(member.size)
                    if len(found) == len(MEMBERS):
                        return found
    except MemoryError:
        raise
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive can raise almost any exception
        raise PipelineError(
            f"{path}: not a complete .tar.gz archive ({reason_of(error)}); fetch it again"
        ) from None
    missing = next(name for name in MEMBERS if name not in found)
    raise PipelineError(f"{path}: no member {missing}; this is not CIFAR-100")


def _empty_array(*_arguments: Any) -> np.ndarray:
    """What NumPy's `_reconstruct` makes in an honest pickle, which then gives it a state."""
    return np.ndarray((0,), np.uint8)


def _dtype(spec: str | bytes, *_flags: Any) -> np.dtype:
    """A numeric dtype; old pickles pass flags that current NumPy warns about.

    None of the other byte order: those are not NumPy's own, and a pickle can change what they are.
    """
    dtype = np.dtype(spec.decode("ascii") if isinstance(spec, bytes) else spec)
    if dtype.kind not in "uif" or not dtype.isnative:
        raise pickle.UnpicklingError(f"it builds an array of type {dtype}")
    return dtype


ALLOWED = {
    ("numpy", "ndarray"): None,  # not the type, which could be called for an array of any size
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
}


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain data and NumPy arrays; every other name that a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return ALLOWED[module, name]


def _bound_memory(pickled: bytes) -> None:
    """Refuse a pickle that takes far more memory than it has bytes.

    An opcode creates one object at most; `PUT n` makes room for n objects; each BUILD of an array
    copies bytes that several arrays could share, and an honest batch has one array and its type.
    """
    builds = 0
    for step, (opcode, argument, _place) in enumerate(pickletools.genops(pickled)):
        builds += opcode.name == "BUILD"
        places = argument or 0 if "PUT" in opcode.name else 0
        if max(step, places) > MAX_STEPS or builds > 2:
            raise pickle.UnpicklingError("it would take more memory than CIFAR-100 does")


def _unpickle(where: str, data: bytes) -> dict[bytes, Any]:
    try:
        _bound_memory(data)
        content = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise PipelineError(
            f"{where} is not a plain CIFAR-100 batch ({reason_of(error)}); nothing in it was run; "
            "get the official archive"
        ) from None
    if not isinstance(content, dict):
        raise PipelineError(f"{where} holds no dictionary; this is not CIFAR-100")
    return content


def _samples(where: str, batch: dict[bytes, Any]) -> Samples:
    data, pixels = batch.get(b"data"), int(np.prod(IMAGE_SHAPE))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (pixels,):
        raise PipelineError(f"{where}: expected `data` as a uint8 array of shape (N, {pixels})")
    fine = _list(where, batch, b"fine_labels", int, len(data))
    coarse = _list(where, batch, b"coarse_labels", int, len(data))
    names = _list(where, batch, b"filenames", bytes, len(data))
    for labels, count in ((fine, CLASSES), (coarse, SUPERCLASSES)):
        if not all(0 <= label < count for label in labels):
            raise PipelineError(f"{where}: expected labels as whole numbers below {count}")
    if not all(0 < len(name) <= 255 for name in names):
        raise PipelineError(f"{where}: expected `filenames` of 1 to 255 bytes")
    images = data.reshape(-1, *IMAGE_SHAPE)
    return Samples(images, np.array(fine, np.int64), np.array(coarse, np.int64), np.array(names))


def _list(where: str, content: dict[bytes, Any], key: bytes, kind: type, count: int) -> list[Any]:
    values = content.get(key)
    if not isinstance(values, list) or len(values) != count or set(map(type, values)) != {kind}:
        raise PipelineError(f"{where}: expected `{key.decode()}` as {count} {kind.__name__} values")
    return values
