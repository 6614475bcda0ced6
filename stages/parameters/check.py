"""Checks every key of params.yaml before any stage runs: `python -m stages.parameters.check`."""

from stages.parameters.download import DownloadParameters
from stages.parameters.evaluate import EvaluateParameters
from stages.parameters.loading import StageParameters, load
from stages.parameters.preprocess import PreprocessParameters
from stages.parameters.render import RenderParameters
from stages.parameters.train import TrainParameters
from stages.running.entry import run_stage

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
    run_stage("params", main)
