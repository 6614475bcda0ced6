"""Stage 3: train the configured ResNet and write the model, its summary and the history.

A training that was killed goes on from its last checkpoint when the stage is started again. The
last one of all stays until the stage evaluate: by then DVC has recorded the results.
"""

from pathlib import Path

from stages.hardware import cpu
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.running.entry import run_stage
from stages.running.outputs import check_writable, write_text

PROCESSED = Path("data/processed")
MODELS = Path("models")
REPORTS = Path("reports")
CHECKPOINTS = Path(".checkpoints")
PIPELINE = Path("dvc.yaml")


def main() -> None:
    """Write models/model.{safetensors,json}, summary.csv, reports/history.csv and timing.json."""
    params = load(TrainParameters)
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from stages.hardware.device import choose_device
    from stages.network.resnet import ResNet, ResNetConfig
    from stages.network.summary import summarise
    from stages.training.checkpoint import take_up, training_digest
    from stages.training.loop import Job, train
    from stages.training.workers import count_workers, run_workers

    device = choose_device(params.device)
    workers = count_workers(params.threads, device, params.batch_size)
    summary = summarise(ResNet(ResNetConfig(params.depth, params.width, params.stem)))
    parameters, multiply_adds = summary.iloc[-1][["parameters", "multiply_adds"]]
    print(
        f"train: ResNet-{params.depth}, width {params.width}: {parameters:,} parameters, "
        f"{multiply_adds:,} multiply-adds per image; workers: {workers}, device: {device}",
        flush=True,
    )
    digest = training_digest(params, device, workers, PIPELINE)
    checkpoint = CHECKPOINTS / f"{digest}.safetensors"
    check_writable([MODELS / "model.safetensors", REPORTS / "history.csv", checkpoint])
    take_up(checkpoint)
    write_text(MODELS / "summary.csv", summary.to_csv(index=False, lineterminator="\n"))
    run_workers(train, Job(params, device, PROCESSED, MODELS, REPORTS, checkpoint), workers, device)


if __name__ == "__main__":
    run_stage("train", main)
