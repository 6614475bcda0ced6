"""Learning rate and image size as pure functions of the position in the training."""

import math
from collections.abc import Sequence

START = 0.04  # of the peak, where the one-cycle schedule begins


def learning_rate(
    progress: float,
    peak: float,
    schedule: str,
    warmup: float,
    steps: Sequence[float] = (),
    gamma: float = 1.0,
) -> float:
    """The learning rate at `progress`, 0 at the first step to 1 after the last.

    one_cycle: rises on a cosine to `peak` during the share `warmup` of the steps, then falls on a
    cosine to zero (Smith and Topin, https://arxiv.org/abs/1708.07120). All others rise linearly.
    linear: then falls linearly to zero (Defazio et al., https://arxiv.org/abs/2310.07831) ·
    cosine: then falls on a cosine to zero (https://arxiv.org/abs/1608.03983) · step: then is
    multiplied by `gamma` at each share of the training named in `steps`.
    """
    if progress < warmup:
        rise = progress / warmup
        if schedule == "one_cycle":
            return peak * (START + (1 - START) * (1 - math.cos(math.pi * rise)) / 2)
        return peak * rise
    if schedule == "step":
        return peak * gamma ** sum(progress >= step for step in steps)
    fall = (progress - warmup) / (1 - warmup) if warmup < 1 else 0.0
    if schedule == "linear":
        return peak * (1 - fall)
    return peak * (1 + math.cos(math.pi * fall)) / 2


def image_size(
    epoch: int, epochs: int, sizes: Sequence[int], fraction: float, full: int = 32
) -> int:
    """The side of the training images in `epoch`, counted from 0.

    `sizes` share the first `fraction` of the epochs equally; the rest, and always the last epoch,
    has `full`, the size at which the network is used.
    """
    small = min(round(fraction * epochs), epochs - 1)
    return sizes[epoch * len(sizes) // small] if sizes and epoch < small else full
