"""The params that the stage `evaluate` reads."""

from typing import Literal

from pydantic import Field

from cifar100.running.params import StageParameters


class EvaluateParameters(StageParameters):
    """How the test split is scored."""

    eval_batch_size: int = Field(ge=1, le=10_000)
    eval_flip: bool
    calibration_bins: int = Field(ge=1, le=1000)
    device: Literal["auto", "cpu", "gpu"]
