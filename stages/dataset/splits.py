"""Divides the training samples, and stores splits and class names under data/processed/."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.dataset.samples import CLASSES, IMAGE_SHAPE, SUPERCLASSES, ClassNames, Samples
from stages.running.arrays import load_arrays, save_arrays
from stages.running.errors import PipelineError, reason_of
from stages.running.outputs import write_text


def stratified_split(
    fine: NDArray[np.int64], val_per_class: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training and of the validation samples, both in rising order.

    Exactly `val_per_class` samples of each class go to validation, drawn by `seed`. Raises
    `PipelineError` if that leaves a class without training samples.
    """
    smallest = int(np.bincount(fine, minlength=CLASSES).min())
    if val_per_class >= smallest:
        raise PipelineError(
            f"params.yaml: val_per_class: {val_per_class} leaves nothing to train on; "
            f"the smallest class has {smallest} images, so give at most {smallest - 1}"
        )
    rng = np.random.default_rng(seed)
    drawn = [
        rng.permutation(np.flatnonzero(fine == label))[:val_per_class] for label in range(CLASSES)
    ]
    in_val = np.zeros(len(fine), bool)
    in_val[np.concatenate(drawn)] = True
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


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
    ):
        raise PipelineError(f"{path}: arrays have unexpected shapes or types; run `dvc repro`")
    for labels, count in ((fine, CLASSES), (coarse, SUPERCLASSES)):
        if rows and not 0 <= labels.min() <= labels.max() < count:
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
