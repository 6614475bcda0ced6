"""Stage 3: train the configured ResNet and write the model, its summary and the history.

A training that was killed resumes from its last checkpoint when the stage is started again. The
final checkpoint is kept until the stage evaluate starts: only then has DVC recorded the results.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cifar100.running import cpu
from cifar100.running.outputs import CHECKPOINTS, check_writable, write_csv
from cifar100.running.params import load
from cifar100.running.restore import recorded_outputs
from stages.train.params import TrainParameters

if TYPE_CHECKING:
    from stages.train.rendezvous import Watch

PROCESSED = Path("data/processed")
MODELS = Path("models")
REPORTS = Path("reports")
PIPELINE = Path("dvc.yaml")


def main(watch: "Watch | None" = None) -> None:
    """With a watch: as one of several processes, of which the one with rank 0 prints and writes.

    Write models/model.{safetensors,json}, summary.csv, reports/history.csv and timing.json.
    """
    params = load(TrainParameters)
    threads = cpu.choose_threads(params.threads)
    cpu.prepare(threads)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.network.device import choose_device, choose_precision, describe, make_reproducible
    from cifar100.network.resnet import ResNet, ResNetConfig
    from stages.train.checkpoint import reopen, training_digest, training_facts
    from stages.train.cuda_graph import check_possible
    from stages.train.group import join
    from stages.train.loop import WEIGHTS, Job, train
    from stages.train.summary import summarise

    device = choose_device(params.device)
    precision = choose_precision(params.precision, device)
    machine = describe(device, precision, threads)
    make_reproducible(precision)
    group = join(watch, {} if watch is None else training_facts(params, PIPELINE), machine)
    machine |= group.description
    if params.cuda_graph:
        check_possible(device, precision, group.size)
    paddle.set_device("cpu")  # the summary needs no GPU; `train` takes the one of this process
    digest = training_digest(params, machine, group.size, PIPELINE)
    checkpoint = CHECKPOINTS / f"{digest}.safetensors"
    if group.rank == 0:
        check_writable([MODELS / WEIGHTS, REPORTS / "history.csv", checkpoint])
        reopen(checkpoint, recorded_outputs().get("train", {}).get(str(MODELS / WEIGHTS)))
        summary = summarise(ResNet(ResNetConfig(params.depth, params.width, params.stem)))
        write_csv(MODELS / "summary.csv", summary)
        parameters, multiply_adds = summary.iloc[-1][["parameters", "multiply_adds"]]
        print(
            f"train: ResNet-{params.depth}, width {params.width}: {parameters:,} parameters, "
            f"{multiply_adds:,} multiply-adds per image; "
            + ", ".join(f"{k.replace('_', ' ')}: {v}" for k, v in machine.items() if v != ""),
            flush=True,
        )
    train(Job(params, machine, PROCESSED, MODELS, REPORTS, checkpoint), group)
