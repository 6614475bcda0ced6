"""The params that the stage `preprocess` reads."""

from pydantic import Field

from cifar100.running.params import StageParameters


class PreprocessParameters(StageParameters):
    """How the validation split is drawn from the training images."""

    val_per_class: int = Field(ge=1, le=499)
    split_seed: int = Field(ge=0, le=2**32 - 1)
