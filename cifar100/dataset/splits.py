"""Stores the splits and the class names under data/processed/, and reads them."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from cifar100.dataset.arrays import load_arrays, save_arrays
from cifar100.dataset.samples import CLASSES, IMAGE_SHAPE, SUPERCLASSES, ClassNames, Samples
from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import write_text


def save_split(path: Path, samples: Samples) -> None:
    """Write `samples` as an uncompressed .npz; the same samples give the same bytes."""
    save_arrays(path, **vars(samples))


def load_split(path: Path) -> Samples:
    """Read what `save_split` wrote. Raises `PipelineError` if the file is missing or not that."""
    names = [field.name for field in fields(Samples)]
    samples = Samples(*load_arrays(path, names, "a split of this pipeline"))
    images, fine, coarse = samples.images, samples.fine, samples.coarse
    rows = fine.size
    if (
        images.dtype != np.uint8
        or images.shape != (rows, *IMAGE_SHAPE)
        or not fine.shape == coarse.shape == samples.names.shape == (rows,)
        or not fine.dtype == coarse.dtype == np.int64
        or not rows
    ):
        raise PipelineError(f"{path}: arrays have unexpected shapes or types; run `dvc repro`")
    for labels, count in ((fine, CLASSES), (coarse, SUPERCLASSES)):
        if not 0 <= labels.min() <= labels.max() < count:
            raise PipelineError(f"{path}: labels outside 0 to {count - 1}; run `dvc repro`")
    return samples


def save_classes(path: Path, classes: ClassNames) -> None:
    """Write the class names and the class-to-superclass mapping as JSON."""
    write_text(path, json.dumps(asdict(classes), indent=1) + "\n")


def load_classes(path: Path) -> ClassNames:
    """Read what `save_classes` wrote. Raises `PipelineError` if the file is missing or not that."""
    try:
        classes = ClassNames(**json.loads(path.read_text(encoding="utf-8")))
        counts = [len(names) for names in vars(classes).values()]
        names = [*classes.fine, *classes.coarse]
        in_range = all(label in range(SUPERCLASSES) for label in classes.coarse_of_fine)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise PipelineError(f"{path}: not a list of class names ({reason_of(error)})") from None
    if (
        counts != [CLASSES, SUPERCLASSES, CLASSES]
        or not all(isinstance(name, str) for name in names)
        or not in_range
    ):
        raise PipelineError(f"{path}: expected {CLASSES} classes in {SUPERCLASSES} superclasses")
    return classes
