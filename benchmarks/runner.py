"""What the runners of the throughput benchmark share: options, networks, images, their one line."""

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH_SIZE = 128  # in all, however many processes share it
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4  # Nesterov
CLASSES = 100

BLOCKS_PER_GROUP = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 20: (3, 3, 3)}
BOTTLENECK_DEPTHS = (50,)  # the others' blocks have two 3×3 convolutions


def runner_options(description: str | None) -> argparse.ArgumentParser:
    """The options that every runner takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--network", type=depth_and_width, required=True, help="as resnet18-w64")
    parser.add_argument("--steps", type=positive, default=5, help="timed steps")
    parser.add_argument("--warmup", type=positive, default=2, help="steps before those")
    return parser


def positive(text: str) -> int:
    """A count of at least one; `ValueError` for anything else."""
    if int(text) < 1:
        raise ValueError(f"{text} is less than 1")
    return int(text)


def depth_and_width(network: str) -> tuple[int, int]:
    """`resnet18-w64` to (18, 64); `ValueError` for a name or a depth that is not known."""
    depth, width = network.removeprefix("resnet").split("-w")
    if int(depth) not in BLOCKS_PER_GROUP:
        raise ValueError(f"no network of depth {depth}")
    return int(depth), int(width)


def random_images(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` images (N, 3, 32, 32) and labels (N,); what they show does not matter here."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, count)


def random_inputs(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The same, normalised: peers get them ready, so none of their time goes into augmentation."""
    images, labels = random_images(count)
    return (images - np.float32(128)) / np.float32(64), labels


def report(**values: Any) -> None:
    """Print the result as one line of JSON, which has to be the runner's last line."""
    print(json.dumps(values), flush=True)
