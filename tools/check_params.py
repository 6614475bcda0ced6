"""Checks every key of params.yaml before any stage runs: `python -m tools.check_params`."""

from cifar100.running.guard import run_command
from cifar100.running.params import StageParameters, load
from stages.download.params import DownloadParameters
from stages.evaluate.params import EvaluateParameters
from stages.preprocess.params import PreprocessParameters
from stages.render.params import RenderParameters
from stages.train.params import TrainParameters

SCHEMAS: dict[str, type[StageParameters]] = {
    "download": DownloadParameters,
    "preprocess": PreprocessParameters,
    "train": TrainParameters,
    "evaluate": EvaluateParameters,
    "render": RenderParameters,
}


def main() -> None:
    """Load the params of each stage; the first bad key raises `PipelineError`."""
    for schema in SCHEMAS.values():
        load(schema)


if __name__ == "__main__":
    run_command("params", main)
