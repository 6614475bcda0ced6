"""Checks the training on this machine's GPU: `make check-gpu`. Not run by us: we had no GPU.

It prints a table to paste into an issue, and exits with 1 if a check failed or if there is no GPU:
then nothing was checked. With `cuda_graph: true` in params.yaml it checks that.
"""

import argparse
import contextlib
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames, Samples
from cifar100.dataset.splits import save_classes, save_split
from cifar100.running import cpu
from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.guard import run_command
from cifar100.running.params import load
from stages.train.params import TrainParameters

if TYPE_CHECKING:
    from stages.train.state import TrainingState

IMAGES = 1000
# The small trainings have all kinds of steps, of the params of params.yaml else.
SMALL = {"depth": 20, "width": 16, "epochs": 4, "batch_size": 32, "lr": 0.05}
SIZES = {"progressive_sizes": [16], "progressive_fraction": 0.5}
ALL_KINDS = {"mixup": 0.3, "cutmix": 0.3, "ema_decay": 0.9}
RESULTS = ("model.safetensors", "model.json", "history.csv")  # the same in equal trainings
SECONDS = 600  # that a small training may take
BATCHES, WARM_UP = 8, 16  # different ones of a measured training; steps before a measurement
# Relative errors that rounding may cause: of logits, and of gradients.
ROUNDING = {"float32": (1e-3, 1e-2), "bfloat16": (0.05, 0.5), "float16": (0.02, 0.2)}
COPY = re.compile(r'"name": *"MEMCPY_(?:HtoD|DtoH)')  # in a trace of Paddle's profiler
WAIT = re.compile(r'"name": *"cuda(?:Stream|Device|Event)Synchronize')


@dataclass(frozen=True)
class Setup:
    """What to check, with a network and batches for the measurements, and where files may lie."""

    folder: Path
    device: str
    precision: str
    threads: int
    depth: int
    width: int
    batches: tuple[int, ...]
    steps: int

    def params(self, **changes: Any) -> TrainParameters:
        """Those of params.yaml, but for the network, the size of the images, and the changes."""
        values = {"depth": self.depth, "width": self.width, "progressive_sizes": []}
        return load(TrainParameters).replace(**(values | changes))


@dataclass(frozen=True)
class Row:
    """A line of the table; `good` is None for what is only measured."""

    check: str
    result: str
    good: bool | None


def random_samples(count: int) -> Samples:
    """Images of noise, of all classes in turn."""
    rng = np.random.default_rng(0)
    fine = np.arange(count) % 100
    names = np.array([f"{i:06}.png".encode() for i in range(count)])
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Samples(images, fine, fine % 20, names)


def write_data(folder: Path) -> None:
    """Write what the stage train reads."""
    save_split(folder / "train.npz", random_samples(IMAGES))
    save_split(folder / "val.npz", random_samples(IMAGES // 5))
    fine, coarse = [f"class {i}" for i in range(100)], [f"superclass {i}" for i in range(20)]
    save_classes(folder / "classes.json", ClassNames(fine, coarse, [i % 20 for i in range(100)]))


def train_small(setup: Setup, name: str) -> None:
    """Train a small network in all kinds of steps; what it prints goes to a file."""
    cpu.prepare(setup.threads)
    from cifar100.network.device import describe, make_reproducible
    from stages.train.group import Alone
    from stages.train.loop import Job, train

    make_reproducible(setup.precision)
    params = setup.params(**SMALL, **SIZES, **ALL_KINDS)
    machine = describe(setup.device, setup.precision, setup.threads)
    results = setup.folder / name
    results.mkdir(exist_ok=True)
    job = Job(params, machine, setup.folder, results, results, results / "state", 0.0, 10)
    with (
        (results / "output").open("w", encoding="utf-8") as output,
        contextlib.redirect_stdout(output),
    ):
        train(job, Alone())


def start(setup: Setup, name: str) -> BaseProcess:
    """Start `train_small` in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=train_small, args=(setup, name))
    process.start()
    return process


def finish(setup: Setup, name: str) -> None:
    """Have a process train, or resume, to the end. Raises `PipelineError` if it does not."""
    process = start(setup, name)
    process.join(SECONDS)
    if process.exitcode != 0:
        process.kill()
        raise PipelineError(f"a small training ended with exit code {process.exitcode}")


def different(setup: Setup, first: str, second: str) -> list[str]:
    """The results that are not the same in two trainings."""
    folders = setup.folder / first, setup.folder / second
    return [n for n in RESULTS if len({(folder / n).read_bytes() for folder in folders}) > 1]


def kill_and_resume(setup: Setup) -> Row:
    """Whether a training that was killed ends with the bytes of one that was not."""
    name, state = "kill and resume", setup.folder / "killed" / "state"
    finish(setup, "whole")
    process, deadline = start(setup, "killed"), time.monotonic() + SECONDS
    while not state.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    if not state.exists():
        return Row(name, f"no checkpoint to resume from (exit code {process.exitcode})", False)
    finish(setup, "killed")
    resumed = "train: resuming after" in (setup.folder / "killed" / "output").read_text("utf-8")
    differences = different(setup, "whole", "killed")
    if differences or not resumed:
        return Row(name, ", ".join(differences) + " differ" if resumed else "not resumed", False)
    return Row(name, "the same bytes", True)


def same_bytes_twice(setup: Setup) -> Row:
    """Whether two trainings end with the same bytes."""
    for name in ("first", "second"):
        train_small(setup, name)
    differences = different(setup, "first", "second")
    result = ", ".join(differences) + " differ" if differences else "the same bytes"
    return Row("same bytes twice", result, not differences)


def export(setup: Setup) -> Row:
    """Whether ONNX and Paddle Inference give the logits of a network that was trained here."""
    import paddle

    from cifar100.trained.inference import predict_logits
    from cifar100.trained.loading import load_model
    from stages.export.inference_program import program_logits, save_program
    from stages.export.onnx_check import largest_difference, onnx_logits
    from stages.export.onnx_graph import onnx_model

    paddle.set_device("cpu")  # as the stage does
    trained, images = setup.folder / "first", random_samples(64).images
    model = load_model(trained / "model.safetensors", trained / "model.json")
    expected = predict_logits(model, images, len(images), flip=False)
    onnx = onnx_logits(onnx_model(model).SerializeToString(), images)
    program = setup.folder / "program"
    program.mkdir()
    save_program(model, program)
    differences = (
        largest_difference(onnx, expected, "ONNX"),
        largest_difference(program_logits(program, images), expected, "Paddle Inference"),
    )
    return Row(
        "export: logits of ONNX, Inference", "differ by {:.1g}, {:.1g}".format(*differences), True
    )


def rounding(setup: Setup, precision: str) -> Row:
    """How far a first step on the device is from the one on the CPU in float32."""
    pairs = zip(
        first_step(setup, setup.device, precision), first_step(setup, "cpu", "float32"), strict=True
    )
    errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
    return Row(
        f"{precision} against float32 on the CPU",
        "logits differ by {:.1g}, gradients by {:.1g} (relative)".format(*errors),
        all(error <= most for error, most in zip(errors, ROUNDING[precision], strict=True)),
    )


def first_step(
    setup: Setup, device: str, precision: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (B, classes) of the first batch in training, and the gradients of all weights (W,)."""
    import paddle
    import paddle.nn.functional as F

    from cifar100.network.device import make_reproducible
    from stages.train.batches import DeviceImages, EpochPlan
    from stages.train.group import Alone
    from stages.train.state import TrainingState

    make_reproducible(precision)
    data = random_samples(64)
    params = setup.params(batch_size=64)
    params = params.replace(cuda_graph=params.cuda_graph and precision == "float16")
    state = TrainingState.initial(params, data, device, precision, Alone())
    state.network.train()
    batch = EpochPlan(DeviceImages(data), params, 0, Alone()).batch(0)
    logits = state.network(batch.images)
    (state.loss_scale * F.cross_entropy(logits, batch.labels)).backward()
    gradients = paddle.concat([weight.grad.flatten() for weight in state.weights])
    return logits.numpy(), gradients.numpy() / state.loss_scale


def copies(setup: Setup) -> Row:
    """How often steps copy between host and device, or wait for the device: it should be never."""
    from paddle import profiler

    step = steps_of(setup, setup.batches[0], **ALL_KINDS)
    for _ in range(WARM_UP):
        step()
    path = setup.folder / "trace.json"
    with profiler.Profiler(on_trace_ready=lambda profile: profile.export(str(path))):
        for _ in range(setup.steps):
            step()
    copied, waited = count_in_trace(path.read_text(encoding="utf-8", errors="replace"))
    return Row(
        "copies between host and GPU, waits",
        f"{copied} and {waited} in {setup.steps} steps",
        copied == 0 and waited < setup.steps,  # the profiler itself waits at its end
    )


def count_in_trace(trace: str) -> tuple[int, int]:
    """The copies between host and device and the waits in a trace of Paddle's profiler."""
    return len(COPY.findall(trace)), len(WAIT.findall(trace))


def speed(setup: Setup, batch_size: int) -> Row:
    """Images per second, with batches, augmentation and update."""
    step = steps_of(setup, batch_size)
    for _ in range(WARM_UP):
        state = step()
    float(state.sums[0])  # waits for the device
    started = time.perf_counter()
    for _ in range(setup.steps):
        state = step()
    float(state.sums[0])
    seconds = time.perf_counter() - started
    return Row(
        f"ResNet-{setup.depth}, width {setup.width}, batches of {batch_size}",
        f"{setup.steps * batch_size / seconds:,.0f} images/s",
        None,
    )


def steps_of(setup: Setup, batch_size: int, **changes: Any) -> "Callable[[], TrainingState]":
    """A training of which each call does a step; it returns the state."""
    from cifar100.network.device import make_reproducible
    from stages.train.batches import DeviceImages, EpochPlan
    from stages.train.group import Alone
    from stages.train.state import TrainingState
    from stages.train.step import train_step

    make_reproducible(setup.precision)
    params = setup.params(batch_size=batch_size, **changes)
    data = random_samples(BATCHES * batch_size)
    state = TrainingState.initial(params, data, setup.device, setup.precision, Alone())
    state.network.train()
    plan = EpochPlan(DeviceImages(data), params, 0, Alone())

    def step() -> "TrainingState":
        state.add(*train_step(state, plan.batch(state.step % state.steps), 0.01, Alone()))
        return state

    return step


def run_checks(setup: Setup) -> list[Row]:
    """All rows. The first check starts processes, which may need the device for themselves."""
    write_data(setup.folder)
    precisions = dict.fromkeys(["float32", setup.precision])
    checks: list[Callable[[], Row]] = [
        *(partial(check, setup) for check in (kill_and_resume, same_bytes_twice, export, copies)),
        *(partial(rounding, setup, precision) for precision in precisions),
        *(partial(speed, setup, size) for size in setup.batches),
    ]
    rows = []
    for number, check in enumerate(checks, 1):
        print(f"check-gpu: {number} of {len(checks)}", file=sys.stderr, flush=True)
        try:
            rows.append(check())
        except Exception as error:  # whatever it is, the other checks may tell more
            reason = f"{type(error).__name__}: {reason_of(error)}"
            rows.append(Row(f"check {number}, which ended early", reason, False))
    return rows


def to_markdown(rows: list[Row]) -> str:
    """The table, for an issue."""
    marks = {True: "yes", False: "**no**", None: ""}
    lines = ["| check | result | as it should be |", "| --- | --- | --- |"]
    for row in rows:
        result = row.result.replace("|", "\\|")
        lines.append(f"| {row.check} | {result} | {marks[row.good]} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; `PipelineError` if there is no GPU, or if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.check_gpu", description=__doc__)
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024], metavar="SIZE")
    parser.add_argument("--steps", type=int, default=50, help="that are timed (default: 50)")
    options = parser.parse_args()
    if min(*options.batches, options.steps) < 1:
        parser.error("--batches and --steps: expected whole numbers of at least 1")
    threads = cpu.choose_threads("auto")
    cpu.prepare(threads)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.network.device import choose_precision, describe, gpu_count, why_no_gpu
    from stages.train.cuda_graph import check_possible

    if gpu_count() == 0:
        raise PipelineError(f"nothing was checked: {why_no_gpu()}")
    params = load(TrainParameters)
    precision = choose_precision(params.precision, "gpu")
    if params.cuda_graph:
        check_possible("gpu", precision, 1)
    network = options.depth, options.width
    with tempfile.TemporaryDirectory() as name:
        folder, batches = Path(name), tuple(options.batches)
        setup = Setup(folder, "gpu", precision, threads, *network, batches, options.steps)
        rows = run_checks(setup)
    machine = describe("gpu", precision, threads)
    facts = f"{machine['instruction_set']}, {machine['library']}, Paddle {paddle.__version__}"
    rows.insert(0, Row("machine", f"{facts}; cuda_graph: {params.cuda_graph}", None))
    print(to_markdown(rows))
    failed = sum(row.good is False for row in rows)
    if failed:
        raise PipelineError(
            f"{failed} of {len(rows)} rows are not as they should be; please report the table"
        )


if __name__ == "__main__":
    run_command("check-gpu", main)
