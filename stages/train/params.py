"""The params that the stage `train` reads."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cifar100.running.params import StageParameters


def _check_rising(values: list[Any]) -> list[Any]:
    if any(a > b for a, b in itertools.pairwise(values)):
        raise ValueError("not rising")
    return values


def _check_whole(value: Any) -> Any:
    """A `Literal` of 18 would take 18.0 too."""
    if isinstance(value, float):
        raise ValueError("not whole")
    return value


class TrainParameters(StageParameters):
    """The network, the recipe, and the machine that it runs on."""

    depth: Annotated[
        Literal[18, 34, 50, 101, 152, 20, 32, 44, 56, 110], BeforeValidator(_check_whole)
    ]
    width: int = Field(ge=1, le=512)
    stem: Literal["cifar", "imagenet"]
    zero_init_residual: bool
    whiten_stem: bool
    dirac_init: bool

    seed: int = Field(ge=0, le=2**32 - 1)
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=65_536)
    lr: float = Field(gt=0, le=100)
    schedule: Literal["linear", "one_cycle", "cosine", "step"]
    warmup: float = Field(ge=0, le=1)
    lr_steps: Annotated[list[Annotated[float, Field(ge=0, le=1)]], AfterValidator(_check_rising)]
    lr_gamma: float = Field(gt=0, le=1)
    momentum: float = Field(ge=0, le=0.9999)
    nesterov: bool
    weight_decay: float = Field(ge=0, le=1)
    label_smoothing: float = Field(ge=0, le=0.99)
    crop_padding: int = Field(ge=0, le=16)
    flip: bool
    mixup: float = Field(ge=0, le=1)
    cutmix: float = Field(ge=0, le=1)
    ema_decay: float = Field(ge=0, le=0.99999)
    progressive_sizes: Annotated[
        list[Annotated[int, Field(ge=8, le=31)]], AfterValidator(_check_rising)
    ]
    progressive_fraction: float = Field(ge=0, le=1)

    device: Literal["auto", "cpu", "gpu"]
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    cuda_graph: bool

    @model_validator(mode="after")
    def _check_together(self) -> "TrainParameters":
        """Refuse values that are fine alone and do not fit together."""
        if self.mixup + self.cutmix > 1:
            raise ValueError(
                f"mixup + cutmix is {self.mixup + self.cutmix:g}; "
                "each is the share of batches that it is applied to, so give at most 1 in sum"
            )
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self
