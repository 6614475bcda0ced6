"""What the stages share, and what people import: `from cifar100 import load_model`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar100.model import Model

__all__ = ["load_model"]


def load_model(folder: "str | Path" = "models") -> "Model":
    """The trained model whose files model.safetensors and model.json are in `folder`.

    Raises `PipelineError` if one is missing or damaged, or if they do not belong together.
    """
    from cifar100.running import cpu

    cpu.prepare(cpu.choose_threads("auto"))  # before Paddle is imported: it reads that once
    from cifar100.model import Model
    from cifar100.network.storage import load_model

    weights, description = Path(folder) / "model.safetensors", Path(folder) / "model.json"
    return Model(load_model(weights, description))
