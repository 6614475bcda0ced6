"""The params that the stage `preprocess` reads."""

from dataclasses import dataclass

from stages.parameters.loading import whole


@dataclass(frozen=True)
class PreprocessParameters:
    """How the validation split is drawn from the training images."""

    val_per_class: int = whole(1, 499)
    split_seed: int = whole(0, 2**32 - 1)
