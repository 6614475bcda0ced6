"""Draws class activation maps over pictures, for `python -m cifar100.predict --why FOLDER`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cifar100.class_activation.overlay import overlay

if TYPE_CHECKING:
    from cifar100.trained.loading import TrainedModel

SIDE = 256  # pixels of a picture that is written


def draw_maps(
    model: "TrainedModel",
    images: dict[str, NDArray[np.uint8]],
    predictions: list[list[dict[str, Any]]],
) -> dict[str, NDArray[np.uint8]]:
    """The map of the most probable class of each image (3, 32, 32) over it, uint8 (256, 256, 3).

    `predictions` are the `top_classes` of the images, in their order.
    """
    from cifar100.class_activation.maps import class_maps  # not above: it imports Paddle

    fine = model.class_names["fine"]
    labels = np.array([[fine.index(rows[0]["class"])] for rows in predictions])
    maps = class_maps(model, np.stack(list(images.values())), labels, flip=False)
    drawn = (overlay(image, of[0], SIDE) for image, of in zip(images.values(), maps, strict=True))
    return dict(zip(images, drawn, strict=True))
