"""The in-memory form of CIFAR-100: samples, class names, and the canonical order of both."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 100
SUPERCLASSES = 20


@dataclass(frozen=True)
class Samples:
    """N labelled images.

    images: uint8 (N, 3, 32, 32), channels red, green, blue · fine, coarse: int64 (N,), 0 to 99 and
    0 to 19 · names: bytes (N,), the original file names.
    """

    images: NDArray[np.uint8]
    fine: NDArray[np.int64]
    coarse: NDArray[np.int64]
    names: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.fine)

    def take(self, rows: NDArray[np.int64]) -> "Samples":
        """The samples at `rows`, in that order."""
        return Samples(self.images[rows], self.fine[rows], self.coarse[rows], self.names[rows])


@dataclass(frozen=True)
class ClassNames:
    """The 100 class names, the 20 superclass names, and the superclass index of each class."""

    fine: list[str]
    coarse: list[str]
    coarse_of_fine: list[int]


def canonical_order(samples: Samples) -> NDArray[np.int64]:
    """Row numbers that sort by fine label, then file name, then pixels.

    File names are not unique (each split has one twice), pixels break the tie, so the order does
    not depend on the order in which an archive stores its samples.
    """
    fine, names, images = samples.fine, samples.names, samples.images
    keys = [(fine[i], names[i], images[i].tobytes()) for i in range(len(samples))]
    return np.array(sorted(range(len(samples)), key=keys.__getitem__), dtype=np.int64)


def content_digest(train: Samples, test: Samples, classes: ClassNames) -> str:
    """SHA-256 over all samples in canonical order and all class names, as hexadecimal digits.

    Two archives have the same digest exactly when they hold the same samples in any order.
    """
    digest = hashlib.sha256()
    for names in (classes.fine, classes.coarse):
        digest.update("\n".join(names).encode() + b"\n\n")
    for split in (train, test):
        ordered = split.take(canonical_order(split))
        digest.update(f"{len(ordered)}\n".encode())
        digest.update(ordered.fine.astype("<i8").tobytes())
        digest.update(ordered.coarse.astype("<i8").tobytes())
        digest.update(b"\n".join(ordered.names.tolist()))
        digest.update(np.ascontiguousarray(ordered.images).tobytes())
    return digest.hexdigest()
