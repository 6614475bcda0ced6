"""What the stages share, and what people import: `from cifar100 import load_model`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar100.model import Model

__all__ = ["load_model"]


def load_model(folder: "str | Path | None" = None, threads: "int | str" = "auto") -> "Model":
    """The trained model whose files model.safetensors and model.json are in `folder`.

    Without a folder it is that of the last run, in `models`, if there is one in the current folder,
    and else the one that comes with the repository, in `pretrained`. `threads` compute, `auto` is
    one per core; the first call in a program decides. Variables of the environment that set
    threads, kernels, arithmetic or clusters are forgotten. Raises `PipelineError` if a file is
    missing or damaged, if the two do not belong together, and for more threads than cores.
    """
    from cifar100.model_folder import FILES, choose_folder
    from cifar100.running import cpu
    from cifar100.running.errors import PipelineError

    cores = len(cpu.available_cores())
    if threads != "auto" and threads not in range(1, cores + 1):
        raise PipelineError(
            f"load_model: threads is {threads!r}; expected a whole number from 1 to {cores}, the "
            "cores that this program may use, or 'auto'"
        )
    place = choose_folder() if folder is None else Path(folder)
    # Paddle reads it once, when it is imported.
    cpu.prepare(cores if threads == "auto" else int(threads))
    from cifar100.model import Model
    from cifar100.trained.loading import load_model

    weights, description = (place / name for name in FILES)
    return Model(load_model(weights, description))
