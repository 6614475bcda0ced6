"""Where the network is if nobody names a folder: that of the last run, or else the one in Git."""

from pathlib import Path

from cifar100.running.errors import PipelineError

MODELS = Path("models")  # written by the pipeline
PRETRAINED = Path("pretrained")  # in Git, by `python -m tools.publish`
FILES = ("model.safetensors", "model.json")


def choose_folder() -> Path:
    """`models` if one of the two files of a network is there, else `pretrained`.

    Both are looked for in the current folder. A network of one's own that is incomplete is not
    passed over in silence. Raises `PipelineError` if there is no network in either.
    """
    if any((MODELS / name).exists() for name in FILES):
        return MODELS
    missing = [name for name in FILES if not (PRETRAINED / name).exists()]
    if len(missing) == len(FILES):
        raise PipelineError(
            f"no network here: neither {MODELS}/ nor {PRETRAINED}/ has {' and '.join(FILES)}; run "
            f"`dvc repro`, or `git restore {PRETRAINED}`, or name the folder of a network"
        )
    if missing:
        raise PipelineError(f"{PRETRAINED}/{missing[0]}: not found; run `git restore {PRETRAINED}`")
    return PRETRAINED
