"""Makes a small synthetic data set in the official format: the demo and the tests need no network.

100 classes in 20 superclasses: a superclass is a colour on a background pattern, a class adds one
of five shapes. A small network learns them in a minute.
"""

import gzip
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = {
    "red": (225, 45, 45),
    "green": (40, 190, 70),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "white": (245, 245, 245),
}
PATTERNS = ("plain", "stripes", "bars", "checks")
SHAPES = ("disc", "square", "triangle", "ring", "cross")
TRAIN_PER_CLASS = 60
TEST_PER_CLASS = 20
SEED = 20


def write_synthetic_archive(path: Path) -> None:
    """Write `cifar-100-python.tar.gz` with synthetic images; the same bytes at every call."""
    coarse_names = sorted(f"{colour} on {pattern}" for colour in COLOURS for pattern in PATTERNS)
    fine_names = sorted(
        f"{colour} {shape} on {pattern}"
        for colour in COLOURS
        for shape in SHAPES
        for pattern in PATTERNS
    )
    rng = np.random.default_rng(SEED)
    members = {
        "meta": {
            b"fine_label_names": [name.encode() for name in fine_names],
            b"coarse_label_names": [name.encode() for name in coarse_names],
        },
        "test": _batch(fine_names, coarse_names, TEST_PER_CLASS, rng),
        "train": _batch(fine_names, coarse_names, TRAIN_PER_CLASS, rng),
    }
    with (
        path.open("wb") as out,
        # Neither the name nor the time of the file enters its bytes.
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=1, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name, content in members.items():
            data = pickle.dumps(content, protocol=4)
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _batch(
    fine_names: list[str], coarse_names: list[str], per_class: int, rng: np.random.Generator
) -> dict[bytes, Any]:
    """`per_class` drawings of each class, shuffled, as the official batches store them."""
    images, fine, coarse, names = [], [], [], []
    for label, name in enumerate(fine_names):
        colour, shape, _, pattern = name.split()
        images.append(draw(colour, shape, pattern, per_class, rng))
        fine += [label] * per_class
        coarse += [coarse_names.index(f"{colour} on {pattern}")] * per_class
        names += [f"{name.replace(' ', '_')}_s_{i:06d}.png".encode() for i in range(per_class)]
    order = rng.permutation(len(fine))
    return {
        b"filenames": [names[i] for i in order],
        b"batch_label": b"synthetic",
        b"fine_labels": [fine[i] for i in order],
        b"coarse_labels": [coarse[i] for i in order],
        b"data": np.concatenate(images)[order].reshape(len(fine), -1),
    }


def draw(
    colour: str, shape: str, pattern: str, count: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """`count` images of one class, uint8 (count, 3, 32, 32), with varied place, size and light."""
    y, x = np.mgrid[0:32, 0:32][:, None]
    centre_x, centre_y = rng.uniform(12, 20, (2, count, 1, 1))
    radius = rng.uniform(7, 10, (count, 1, 1))
    dx, dy = x - centre_x, y - centre_y
    distance = np.hypot(dx, dy)
    inside = {
        "disc": distance < radius,
        "square": np.maximum(abs(dx), abs(dy)) < 0.85 * radius,
        "triangle": (abs(dx) < 0.6 * (dy + radius)) & (dy < 0.7 * radius),
        "ring": (distance < radius) & (distance > 0.55 * radius),
        "cross": (np.minimum(abs(dx), abs(dy)) < 0.28 * radius)
        & (np.maximum(abs(dx), abs(dy)) < radius),
    }[shape]
    phase_x, phase_y = rng.integers(0, 8, (2, count, 1, 1))
    wave_x, wave_y = (x + phase_x) % 8 < 4, (y + phase_y) % 8 < 4
    bright = {
        "plain": np.zeros((count, 32, 32), bool),
        "stripes": np.broadcast_to(wave_y, (count, 32, 32)),
        "bars": np.broadcast_to(wave_x, (count, 32, 32)),
        "checks": wave_x ^ wave_y,
    }[pattern]
    background = rng.uniform(50, 80, (count, 1, 1)) + 70 * bright
    light = rng.uniform(0.8, 1.0, (count, 1, 1, 1))
    ink = light * np.array(COLOURS[colour]).reshape(1, 3, 1, 1)
    picture = np.where(inside[:, None], ink, background[:, None])
    noise = rng.normal(0, 8, (count, 3, 32, 32))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)
