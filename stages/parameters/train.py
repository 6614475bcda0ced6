"""The params that the stage `train` reads."""

from dataclasses import dataclass

from stages.parameters.loading import (
    auto_or_whole,
    choice,
    number,
    positive,
    rising,
    switch,
    whole,
)
from stages.running.errors import PipelineError


@dataclass(frozen=True)
class TrainParameters:
    """The network, the recipe, and the machine that it runs on."""

    depth: int = choice(18, 34, 50, 101, 152, 20, 32, 44, 56, 110)
    width: int = whole(1, 512)
    stem: str = choice("cifar", "imagenet")
    zero_init_residual: bool = switch()
    whiten_stem: bool = switch()
    dirac_init: bool = switch()

    seed: int = whole(0, 2**32 - 1)
    epochs: int = whole(1, 10_000)
    batch_size: int = whole(1, 65_536)
    lr: float = positive(100)
    schedule: str = choice("linear", "one_cycle", "cosine", "step")
    warmup: float = number(0, 1)
    lr_steps: list[float] = rising(0, 1)
    lr_gamma: float = positive(1)
    momentum: float = number(0, 0.9999)
    nesterov: bool = switch()
    weight_decay: float = number(0, 1)
    label_smoothing: float = number(0, 0.99)
    crop_padding: int = whole(0, 16)
    flip: bool = switch()
    mixup: float = number(0, 1)
    cutmix: float = number(0, 1)
    ema_decay: float = number(0, 0.99999)
    progressive_sizes: list[int] = rising(8, 31, integers=True)
    progressive_fraction: float = number(0, 1)

    device: str = choice("auto", "cpu", "gpu")
    precision: str = choice("auto", "float32", "bfloat16", "float16")
    threads: int | str = auto_or_whole(1, 256)

    def __post_init__(self) -> None:
        """Refuse values that are fine alone and do not fit together."""
        if self.mixup + self.cutmix > 1:
            raise PipelineError(
                f"params.yaml: mixup + cutmix is {self.mixup + self.cutmix:g}; "
                "each is the share of batches that it is applied to, so give at most 1 in sum"
            )
        if self.nesterov and self.momentum == 0:
            raise PipelineError("params.yaml: nesterov: true needs a momentum above 0")
