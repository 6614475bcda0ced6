"""A trained model as programs use it; `cifar100.load_model` gives one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar100.dataset.samples import IMAGE_SHAPE
from cifar100.pictures import read_image
from cifar100.running.errors import PipelineError
from cifar100.top_classes import top_classes
from cifar100.trained.loading import TrainedModel


@dataclass(frozen=True)
class Model:
    """A trained network with its class names and temperature."""

    trained: TrainedModel

    def predict(
        self, pictures: Sequence[str | Path | NDArray[np.uint8]], top: int = 5
    ) -> list[list[dict[str, Any]]]:
        """For each picture its `top` most probable classes, the best first.

        A picture is the name of a file of any size, or an image (3, 32, 32). Each prediction is a
        mapping with class, superclass and calibrated probability. Raises `PipelineError` for a file
        that cannot be read, for an array that is not uint8 (3, 32, 32), and for a single picture.
        """
        if isinstance(pictures, str | Path):
            raise PipelineError(f"predict: expected a list of pictures, as in [{str(pictures)!r}]")
        images = [p if isinstance(p, np.ndarray) else read_image(str(p)) for p in pictures]
        for image in images:
            if image.dtype != np.uint8 or image.shape != IMAGE_SHAPE:
                raise PipelineError(
                    f"predict: expected uint8 {IMAGE_SHAPE}, found {image.dtype} {image.shape}"
                )
        if top < 1:
            raise PipelineError(f"predict: top is {top}; expected a whole number of at least 1")
        return top_classes(self.trained, np.stack(images), top) if images else []
