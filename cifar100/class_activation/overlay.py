"""Draws a class activation map over its image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Okabe and Ito's palette, which stays distinct for all common kinds of colour blindness.
FOR, AGAINST = (213, 94, 0), (0, 114, 178)  # red, green, blue
OPACITY = 0.8  # of the strongest values


def overlay(
    image: NDArray[np.uint8], values: NDArray[np.float32], side: int, strongest: float | None = None
) -> NDArray[np.uint8]:
    """The map `values` (H, W) over a grey copy of the image (3, S, S), as uint8 (side, side, 3).

    What speaks for the class is orange, what speaks against it is blue, and grey is 0. The colour
    is densest where the absolute value is `strongest`, by default the largest of the map. The map
    is interpolated bilinearly.
    """
    scale = float(abs(values).max() if strongest is None else strongest)
    strength = enlarged(values, side) / (scale or 1.0)
    opacity = OPACITY * abs(strength).clip(0, 1)[:, :, None]
    colour = np.where(
        strength[:, :, None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32)
    )
    grey = Image.fromarray(image.transpose(1, 2, 0)).convert("L")
    under = np.asarray(grey.resize((side, side), Image.Resampling.NEAREST), np.float32)
    return np.round((1 - opacity) * under[:, :, None] + opacity * colour).astype(np.uint8)


def enlarged(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A map (H, W) as (side, side), each value at the middle of the part that it stands for."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), np.float32)
