"""The in-memory form of CIFAR-100: samples and class names."""

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
