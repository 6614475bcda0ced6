"""Reads `cifar-100-python.tar.gz` without trusting it: members by name, an allow-list unpickler.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. The members are Python pickles, and a pickle
can run code when it is read; this reader builds arrays, lists, dicts, strings and numbers only.
"""

import gzip
import io
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from stages.dataset.samples import CLASSES, IMAGE_SHAPE, SUPERCLASSES, ClassNames, Samples
from stages.running.errors import PipelineError, reason_of

FOLDER = "cifar-100-python"
MEMBER_LIMIT = 256 * 2**20  # bytes; the real training batch has 148 MiB
MOST_MEMBERS = 100  # with the headers of long names; the real archive has 5
MOST_STEPS = 10**6  # of a pickle; the real training batch has 200,371
NDARRAY = "ndarray"  # stands for the type, which a pickle could call for an array of any size


def read_archive(path: Path) -> tuple[Samples, Samples, ClassNames]:
    """Read the training samples, the test samples and the class names, in the archive's order.

    Raises `PipelineError` if the file is not such an archive, is damaged, or holds a pickle that
    asks for anything but plain data and NumPy arrays.
    """
    members = _read_members(path)
    meta, train, test = (_unpickle(path, name, data) for name, data in members.items())
    fine_names, coarse_names = _names(path, meta)
    splits = [_samples(path, name, raw) for name, raw in (("train", train), ("test", test))]
    coarse_of_fine = _coarse_of_fine(path, splits)
    return splits[0], splits[1], ClassNames(fine_names, coarse_names, coarse_of_fine)


def _read_members(path: Path) -> dict[str, bytes]:
    """The contents of the three members; nothing is extracted to the disk.

    The headers are read here, as `tarfile.open` takes long names and pax headers of any size into
    memory, and calls itself for each. The three names are short: such headers are passed over.
    """
    found: dict[str, bytes] = {}
    wanted = {f"{FOLDER}/{name}": name for name in ("meta", "train", "test")}
    passed = 0
    try:
        with gzip.open(path) as stream:
            while len(found) < len(wanted):
                block = stream.read(tarfile.BLOCKSIZE)
                if block == bytes(tarfile.BLOCKSIZE):
                    break  # the end of a tar file
                if passed == MOST_MEMBERS:
                    raise PipelineError(
                        f"{path}: more than {MOST_MEMBERS} members; this is not CIFAR-100"
                    )
                member = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
                if not 0 <= member.size <= MEMBER_LIMIT:
                    raise PipelineError(
                        f"{path}: member {member.name[:50]!r} claims {member.size:,} bytes; "
                        f"no file of CIFAR-100 exceeds {MEMBER_LIMIT:,}"
                    )
                blocks = -(-member.size // tarfile.BLOCKSIZE)
                following = stream.tell() + blocks * tarfile.BLOCKSIZE
                if member.name in wanted and member.isreg():
                    data = stream.read(member.size)
                    if len(data) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    found[wanted[member.name]] = data
                stream.seek(following)
                passed += 1
    except (PipelineError, MemoryError):
        raise
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive can raise almost any exception
        raise PipelineError(
            f"{path}: not a complete .tar.gz archive ({reason_of(error)}); fetch it again"
        ) from None
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        raise PipelineError(f"{path}: no member {FOLDER}/{missing[0]}; this is not CIFAR-100")
    return {name: found[name] for name in wanted.values()}


class _PlainUnpickler(pickle.Unpickler):
    """Builds plain data and NumPy arrays; every other name that a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return {"ndarray": NDARRAY, "dtype": _dtype}[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: str, shape: tuple[int, ...], _typecode: bytes) -> np.ndarray:
    """What NumPy's own `_reconstruct` is called with in every honest pickle: an empty array."""
    if kind is not NDARRAY or shape != (0,):
        raise pickle.UnpicklingError("it builds an array in a way that NumPy does not write")
    return np.ndarray((0,), np.uint8)


def _dtype(spec: str | bytes, *_flags: Any) -> np.dtype:
    """A numeric dtype; old pickles pass flags that current NumPy warns about.

    None of the other byte order: those are not NumPy's own, and a pickle can change what they are.
    """
    dtype = np.dtype(spec.decode("ascii") if isinstance(spec, bytes) else spec)
    if dtype.kind not in "uif" or not dtype.isnative:
        raise pickle.UnpicklingError(f"it builds an array of type {dtype}")
    return dtype


def _check_steps(data: bytes) -> None:
    """Refuse a pickle that takes far more memory than it has bytes.

    Each step makes one object at most, and a `PUT` has room made for as many objects as its number
    says; an array is a copy of bytes that may be shared.
    """
    arrays_and_types = 0
    for step, (opcode, argument, _place) in enumerate(pickletools.genops(data)):
        if step > MOST_STEPS or ("PUT" in opcode.name and (argument or 0) > MOST_STEPS):
            raise pickle.UnpicklingError(f"it needs more than {MOST_STEPS:,} steps or places")
        arrays_and_types += opcode.name == "BUILD"
        if arrays_and_types > 2:
            raise pickle.UnpicklingError("it builds more than one array and its type")


def _unpickle(path: Path, name: str, data: bytes) -> dict[bytes, Any]:
    try:
        _check_steps(data)
        content = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise PipelineError(
            f"{path}: {FOLDER}/{name} is not a plain CIFAR-100 batch ({reason_of(error)}); "
            "nothing in it was run; get the official archive"
        ) from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: {FOLDER}/{name} holds no dictionary; this is not CIFAR-100")
    return content


def _names(path: Path, meta: dict[bytes, Any]) -> tuple[list[str], list[str]]:
    lists = []
    for key, count in ((b"fine_label_names", CLASSES), (b"coarse_label_names", SUPERCLASSES)):
        names = meta.get(key)
        if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
            raise PipelineError(f"{path}: {FOLDER}/meta has no list {key.decode()}")
        if len(set(names)) != count or len(names) != count:
            raise PipelineError(f"{path}: {key.decode()} has not {count} different names")
        lists.append([name.decode("utf-8", "replace") for name in names])
    return lists[0], lists[1]


def _samples(path: Path, name: str, raw: dict[bytes, Any]) -> Samples:
    where = f"{path}: {FOLDER}/{name}"
    data = raw.get(b"data")
    pixels = int(np.prod(IMAGE_SHAPE))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (pixels,):
        raise PipelineError(f"{where}: expected `data` as a uint8 array of shape (N, {pixels})")
    labels = {}
    for key, count in ((b"fine_labels", CLASSES), (b"coarse_labels", SUPERCLASSES)):
        values = raw.get(key)
        if (
            not isinstance(values, list)
            or len(values) != len(data)
            or not all(type(value) is int and 0 <= value < count for value in values)
        ):
            raise PipelineError(
                f"{where}: expected `{key.decode()}` as {len(data)} whole numbers below {count}"
            )
        labels[key] = np.array(values, dtype=np.int64)
    names = raw.get(b"filenames")
    if (
        not isinstance(names, list)
        or len(names) != len(data)
        or not all(isinstance(value, bytes) and 0 < len(value) <= 255 for value in names)
    ):
        raise PipelineError(f"{where}: expected `filenames` as {len(data)} byte strings")
    images = data.reshape(-1, *IMAGE_SHAPE)
    return Samples(images, labels[b"fine_labels"], labels[b"coarse_labels"], np.array(names))


def _coarse_of_fine(path: Path, splits: list[Samples]) -> list[int]:
    pairs = {(int(f), int(c)) for s in splits for f, c in zip(s.fine, s.coarse, strict=True)}
    mapping = dict(sorted(pairs))
    if len(pairs) != CLASSES or len(mapping) != CLASSES:
        raise PipelineError(f"{path}: expected {CLASSES} classes, each in exactly one superclass")
    return list(mapping.values())
