"""The canonical order of samples, and a digest of a whole archive's content."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames, Samples


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
