"""Accuracy over time of the default recipe and of a PyTorch recipe: `make time-to-accuracy`.

Trains with params.yaml, then the peer for the same time on the same cores, and writes
benchmarks/time_to_accuracy.csv and .png; README.md beside this file says what is compared.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.runner import BLOCKS_PER_GROUP
from benchmarks.workspace import copy_pipeline, lines_of, set_params
from cifar100.dataset.splits import load_split, save_split
from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.outputs import write_text
from cifar100.running.params import load
from stages.evaluate.params import EvaluateParameters
from stages.render.style import BLUE, ORANGE, RULES, new_figure, save_figure
from stages.train.params import TrainParameters
from tools.comparison.recipes import params_of, read_stages

OUTPUT = Path("benchmarks")
LOCK = Path("dvc.lock")
PROCESSED = Path("data/processed")
TORCH_PYTHON = Path(".venv-bench/bin/python")
SPLITS = ("train", "val", "test")
QUICK_IMAGES = 1280  # of each split


def main() -> None:
    """Train both, one after the other; write the table and the plot."""
    options = parse_options()
    if not TORCH_PYTHON.is_file():
        raise PipelineError(f"{TORCH_PYTHON}: not found; `make .venv-bench/ready` creates it")
    params = load(TrainParameters)
    if params.depth not in BLOCKS_PER_GROUP or params.stem != "cifar":
        known = ", ".join(map(str, BLOCKS_PER_GROUP))
        raise PipelineError(f"params.yaml: the peer has the depths {known} and stem: cifar only")
    if options.from_reports:
        check_trained(params)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        prepare(workspace, options.quick)
        if not options.from_reports:
            list(lines_of([sys.executable, "-m", "stages.train"], workspace))
            list(lines_of([sys.executable, "-m", "stages.evaluate"], workspace))
        project = curve(Path("reports") if options.from_reports else workspace / "reports")
        peer = train_peer(workspace, params, 60 * project["minutes"].max())
    table = pd.concat([project.assign(runner="project"), peer.assign(runner="pytorch-cifar100")])
    table = table[["runner", "epoch", "minutes", "split", "top1", "precision"]]
    print(table.to_string(index=False))
    if options.output:
        csv = table.to_csv(index=False, lineterminator="\n", float_format="%.4f")
        write_text(options.output / "time_to_accuracy.csv", csv)
        save_figure(plot(table), options.output / "time_to_accuracy.png", dpi=110)


def check_trained(params: TrainParameters) -> None:
    """Raise `PipelineError` if the run that dvc.lock records had another network."""
    trained = params_of(read_stages(LOCK.read_bytes(), str(LOCK)))
    for key in ("depth", "width", "stem"):
        if trained.get(key) != getattr(params, key):
            raise PipelineError(
                f"params.yaml: {key} is {getattr(params, key)}, but {trained.get(key)} in the run "
                "that reports/ is of; run `dvc repro` first"
            )


def parse_options() -> argparse.Namespace:
    """The command line; with `--quick` nothing is written unless `--output` is given."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_accuracy", description=__doc__
    )
    parser.add_argument("--output", type=Path, help=f"a folder; default: {OUTPUT}")
    parser.add_argument(
        "--from-reports",
        action="store_true",
        help="take the project's half from reports/, as `make repro` left them on this machine",
    )
    parser.add_argument(
        "--quick", action="store_true", help="two epochs of few images, to try it out"
    )
    options = parser.parse_args()
    if options.quick and options.from_reports:
        parser.error("--quick trains both, so it does not go with --from-reports")
    if not options.quick and options.output is None:
        options.output = OUTPUT
    return options


def prepare(workspace: Path, quick: bool) -> None:
    """Copy the pipeline to `workspace` and give it the processed data, or with `quick` a part."""
    copy_pipeline(workspace)
    target = workspace / PROCESSED
    target.mkdir(parents=True)
    for name in SPLITS:
        samples = load_split(PROCESSED / f"{name}.npz")
        if quick:
            rows = np.linspace(0, len(samples) - 1, min(QUICK_IMAGES, len(samples))).astype(int)
            samples = samples.take(rows)
        save_split(target / f"{name}.npz", samples)
    (target / "classes.json").write_bytes((PROCESSED / "classes.json").read_bytes())
    if quick:
        set_params(workspace, epochs=2)


def curve(reports: Path) -> pd.DataFrame:
    """Epoch, minutes, split, top1 and precision of the training that wrote the folder `reports`.

    The minutes are those of the stage's own clock, on which validation counts.
    """
    timing = json.loads((reports / "timing.json").read_text(encoding="utf-8"))
    metrics = json.loads((reports / "metrics.json").read_text(encoding="utf-8"))
    history = pd.read_csv(reports / "history.csv")
    val = pd.DataFrame(
        {
            "epoch": history["epoch"],
            "minutes": np.array(timing["epoch_seconds"]) / 60,
            "split": "val",
            "top1": history["val_top1"],
            "precision": timing["precision"],
        }
    )
    return pd.concat([val, val.tail(1).assign(split="test", top1=metrics["top1"])])


def train_peer(workspace: Path, params: TrainParameters, seconds: float) -> pd.DataFrame:
    """Train the peer for `seconds`; return epoch, minutes, split, top1 and precision."""
    output = workspace / "peer.csv"
    command = [str(TORCH_PYTHON), "-m", "benchmarks.run_peer"]
    command += [f"--data={workspace / PROCESSED}", f"--seconds={seconds}", f"--output={output}"]
    command += ["--flip"] if load(EvaluateParameters).eval_flip else []
    list(lines_of([*command, f"--depth={params.depth}", f"--width={params.width}"]))
    return pd.read_csv(output)


@matplotlib.rc_context(RULES)
def plot(table: pd.DataFrame) -> Figure:
    """Validation top-1 over the minutes as a line, and a star for the test split at the end."""
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    names = {
        "project": "this project",
        "pytorch-cifar100": "PyTorch with pytorch-cifar100's recipe",
    }
    for (runner, name), color in zip(names.items(), (BLUE, ORANGE), strict=True):
        rows = table[table["runner"] == runner]
        val, test = rows[rows["split"] == "val"], rows[rows["split"] == "test"]
        precision, top1 = test["precision"].iloc[-1], test["top1"].iloc[-1]
        label = f"{name}, {precision}: {top1:.1%} on the test images"
        axes.plot(val["minutes"], val["top1"], color=color, marker="o", markersize=3.5, label=label)
        axes.plot(test["minutes"], test["top1"], color=color, marker="*", markersize=13)
    axes.set_title("Top-1 accuracy over the time of training")
    axes.set_xlabel("minutes (lines: validation images, stars: test images)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    run_command("time-to-accuracy", main)
