"""Stage 3: train the configured ResNet and write the model, its summary and the history."""

from pathlib import Path

from stages.hardware import cpu
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.running.entry import run_stage
from stages.running.outputs import check_writable, write_text

PROCESSED = Path("data/processed")
MODELS = Path("models")
REPORTS = Path("reports")


def main() -> None:
    """Write models/model.{safetensors,json}, summary.csv, reports/history.csv and timing.json."""
    params = load(TrainParameters)
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from stages.hardware.device import choose_device
    from stages.network.resnet import ResNet, ResNetConfig
    from stages.network.summary import summarise
    from stages.training.loop import Job, train
    from stages.training.workers import count_workers, run_workers

    device = choose_device(params.device)
    workers = count_workers(params.workers, device, params.batch_size)
    summary = summarise(ResNet(ResNetConfig(params.depth, params.width, params.stem)))
    parameters, multiply_adds = summary.iloc[-1][["parameters", "multiply_adds"]]
    print(
        f"train: ResNet-{params.depth}, width {params.width}: {parameters:,} parameters, "
        f"{multiply_adds:,} multiply-adds per image; workers: {workers}, device: {device}",
        flush=True,
    )
    check_writable([MODELS / "model.safetensors", REPORTS / "history.csv"])
    job = Job(params, device, PROCESSED, MODELS, REPORTS)
    run_workers(train, job, workers, device)
    write_text(MODELS / "summary.csv", summary.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    run_stage("train", main)
