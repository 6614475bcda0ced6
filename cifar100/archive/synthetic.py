"""Makes a small synthetic data set in the official format: the demo and the tests need no network.

100 classes in 20 superclasses: a superclass is a colour on a background pattern, a class adds one
of five shapes. A small network learns them in a minute, and confuses neighbouring colours and
similar shapes, because the hues of two colours overlap and a tilted square is nearly a diamond.
"""

import gzip
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HUES = {"red": 0, "orange": 30, "yellow": 60, "green": 120, "blue": 220}  # degrees
HUE_DEVIATION = 10  # degrees; red and orange, orange and yellow overlap
TILT_DEVIATION = 13  # degrees; a square that is tilted by 45 is a diamond
PATTERNS = ("plain", "stripes", "bars", "checks")
SHAPES = ("disc", "ring", "square", "diamond", "cross")
TRAIN_PER_CLASS = 60
TEST_PER_CLASS = 20
SEED = 20


def write_synthetic_archive(path: Path) -> None:
    """Write `cifar-100-python.tar.gz` with synthetic images; the same bytes at every call."""
    coarse_names = sorted(f"{colour} on {pattern}" for colour in HUES for pattern in PATTERNS)
    fine_names = sorted(
        f"{colour} {shape} on {pattern}"
        for colour in HUES
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
    centre_x, centre_y = rng.uniform(11, 21, (2, count, 1, 1))
    radius = rng.uniform(6, 10, (count, 1, 1))
    hole = rng.uniform(0.1, 0.6, (count, 1, 1))
    tilt = np.radians(rng.normal(0, TILT_DEVIATION, (count, 1, 1)))
    dx = (x - centre_x) * np.cos(tilt) + (y - centre_y) * np.sin(tilt)
    dy = (y - centre_y) * np.cos(tilt) - (x - centre_x) * np.sin(tilt)
    distance = np.hypot(dx, dy)
    inside = {
        "disc": distance < radius,
        "square": np.maximum(abs(dx), abs(dy)) < 0.85 * radius,
        "diamond": abs(dx) + abs(dy) < 1.2 * radius,
        "ring": (distance < radius) & (distance > hole * radius),
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
    hue = HUES[colour] + rng.normal(0, HUE_DEVIATION, count)
    light = rng.uniform(150, 240, count)
    picture = np.where(inside[:, None], _ink(hue, light)[:, :, None, None], background[:, None])
    noise = rng.normal(0, 20, (count, 3, 32, 32))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _ink(hue: NDArray[np.float64], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Red, green and blue (N, 3) of hues in degrees, at a saturation of 0.8."""
    distance = abs((hue[:, None] - np.array([0, 120, 240]) + 180) % 360 - 180)  # 0 to 180
    return light[:, None] * (0.2 + 0.8 * np.clip(2 - distance / 60, 0, 1))
