"""Learning rate and image size as pure functions of the params and the position in the training."""

import math

from stages.train.params import TrainParameters

START = 0.04  # of the peak, where the one-cycle schedule begins
FULL_SIZE = 32  # pixels: the side at which the network is used
COST_OF_ANY_SIZE = 0.1  # of an image, in units of what its area costs at full size


def learning_rate(params: TrainParameters, progress: float) -> float:
    """The learning rate at `progress`, 0 at the first step to 1 after the last; its peak is `lr`.

    one_cycle: rises on a cosine to the peak during the share `warmup` of the steps, then falls on a
    cosine to zero (Smith and Topin, https://arxiv.org/abs/1708.07120). All others rise linearly.
    linear: then falls linearly to zero (Defazio et al., https://arxiv.org/abs/2310.07831) ·
    cosine: then falls on a cosine to zero (https://arxiv.org/abs/1608.03983) · step: then is
    multiplied by `lr_gamma` at each share of the training named in `lr_steps`.
    """
    if progress < params.warmup:
        rise = progress / params.warmup
        if params.schedule == "one_cycle":
            return params.lr * (START + (1 - START) * (1 - math.cos(math.pi * rise)) / 2)
        return params.lr * rise
    if params.schedule == "step":
        return params.lr * params.lr_gamma ** sum(progress >= step for step in params.lr_steps)
    fall = (progress - params.warmup) / (1 - params.warmup) if params.warmup < 1 else 0.0
    if params.schedule == "linear":
        return params.lr * (1 - fall)
    return params.lr * (1 + math.cos(math.pi * fall)) / 2


def image_size(params: TrainParameters, epoch: int) -> int:
    """The side of the training images in `epoch`, counted from 0.

    `progressive_sizes` share the first `progressive_fraction` of the epochs equally; the rest, and
    always the last epoch, has the size at which the network is used.
    """
    small = min(round(params.progressive_fraction * params.epochs), params.epochs - 1)
    sizes = params.progressive_sizes
    return sizes[epoch * len(sizes) // small] if sizes and epoch < small else FULL_SIZE


def share_done(params: TrainParameters, epochs: int) -> float:
    """The share of a training's time that its first `epochs` take.

    An image costs by its area, and a part that is the same for every size.
    """
    sizes = (image_size(params, epoch) for epoch in range(params.epochs))
    costs = [COST_OF_ANY_SIZE + (size / FULL_SIZE) ** 2 for size in sizes]
    return sum(costs[:epochs]) / sum(costs)
