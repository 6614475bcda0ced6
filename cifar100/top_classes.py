"""What the network says about images, in words."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar100.results.predictions import probabilities_of
from cifar100.results.tables import readable
from cifar100.trained.inference import predict_logits
from cifar100.trained.loading import TrainedModel

BATCH = 100
BLOCK = "▀"  # its upper half has the colour of the letters, its lower half that of the background


def top_classes(
    model: TrainedModel, images: NDArray[np.uint8], top: int
) -> list[list[dict[str, Any]]]:
    """For each of the images (N, 3, 32, 32) the `top` most probable classes, the best first.

    Each is a mapping with class, superclass and its calibrated probability.
    """
    names = model.class_names
    found = []
    logits = predict_logits(model, images, BATCH, flip=False)
    for probabilities in probabilities_of(logits, model.temperature):
        best = np.argsort(-probabilities, kind="stable")[:top]
        found.append(
            [
                {
                    "class": names["fine"][label],
                    "superclass": names["coarse"][names["coarse_of_fine"][label]],
                    "probability": round(float(probabilities[label]), 4),
                }
                for label in best
            ]
        )
    return found


def as_lines(name: str, prediction: list[dict[str, Any]]) -> str:
    """The name of a picture and its classes, for people."""
    lines = [
        f"  {row['probability']:6.1%}  {readable(row['class'])} ({readable(row['superclass'])})"
        for row in prediction
    ]
    return "\n".join([name, *lines])


def as_blocks(image: NDArray[np.uint8]) -> str:
    """An image (3, S, S) in the colours of a terminal, two pixels to a letter."""
    rows = image.transpose(1, 2, 0)
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        letters = (
            f"\033[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m{BLOCK}"
            for a, b in zip(upper, lower, strict=True)
        )
        lines.append("".join(letters) + "\033[0m")
    return "\n".join(lines)
