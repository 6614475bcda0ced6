"""The params that the stage `evaluate` reads."""

from dataclasses import dataclass

from stages.parameters.loading import choice, switch, whole


@dataclass(frozen=True)
class EvaluateParameters:
    """How the test split is scored."""

    eval_batch_size: int = whole(1, 10_000)
    eval_flip: bool = switch()
    calibration_bins: int = whole(1, 1000)
    device: str = choice("auto", "cpu", "gpu")
