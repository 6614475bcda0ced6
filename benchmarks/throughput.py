"""Images per second of this project, stock Paddle and PyTorch: `python -m benchmarks.throughput`.

Prints a table and writes benchmarks/results.json; README.md beside this file says what is measured.
"""

import argparse
import datetime
import json
import math
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.machine import cpu_model, instruction_set, memory_gib
from benchmarks.runner import BATCH_SIZE, positive
from benchmarks.stage_seconds import stage_seconds
from benchmarks.workspace import run
from cifar100.running import cpu
from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.outputs import write_text

RESULTS = Path("benchmarks/results.json")
TORCH_PYTHON = Path(".venv-bench/bin/python")

PADDLE = [sys.executable, "-m"]
STOCK = [*PADDLE, "benchmarks.run_paddle_stock"]
PROJECT = [*PADDLE, "benchmarks.run_project"]
PYTORCH = [str(TORCH_PYTHON), "-m", "benchmarks.run_pytorch"]
BFLOAT16 = [*PYTORCH, "--layout=channels-last", "--precision=bfloat16"]
RUNNERS = {
    "project": [*PROJECT, "--precision=auto", "--threads=auto"],
    "pytorch-channels-last-bfloat16": BFLOAT16,
    "project-one-thread": [*PROJECT, "--precision=auto", "--threads=1"],
    "pytorch-compiled-bfloat16": [*BFLOAT16, "--compile"],
    "project-float32": [*PROJECT, "--precision=float32", "--threads=auto"],
    "pytorch-channels-last": [*PYTORCH, "--layout=channels-last"],
    "pytorch-eager": [*PYTORCH, "--layout=eager"],
    "paddle-stock": STOCK,
    "paddle-onednn": ["env", "FLAGS_use_onednn=True", *STOCK],
    "evaluation": [*PADDLE, "benchmarks.run_evaluation"],
}

# Timed in each repetition: about five seconds of the fastest runner on two cores with AMX. A slower
# runner takes a share of these steps.
STEPS = {"resnet20-w16": 60, "resnet18-w32": 30, "resnet18-w64": 12, "resnet50-w64": 6}
SHARES = {
    "project-float32": 0.25,
    "paddle-stock": 0.1,
    "paddle-onednn": 0.1,
    "pytorch-eager": 0.25,
    "pytorch-channels-last": 0.25,
    "evaluation": 0.25,
}
WARMUP = 2  # one for a runner with the smallest share
MAX_SECONDS = 25  # of steps: a runner that takes longer is not repeated on that network
LEFT_OUT = {("resnet50-w64", "paddle-onednn")}  # minutes, to say the same as on the others


def main() -> None:
    """Time the stages, then every runner on every network, in turn, several times."""
    options = parse_options()
    if not TORCH_PYTHON.is_file() and any("pytorch" in runner for runner in options.runners):
        raise PipelineError(f"{TORCH_PYTHON}: not found; `make .venv-bench/ready` creates it")
    stages = {} if options.quick else stage_seconds()  # first: what can fail is not at the end
    turns = [(network, runner) for network in options.networks for runner in options.runners]
    turns = [turn for turn in turns if turn not in LEFT_OUT]
    measurements: list[dict[str, Any]] = []
    for repetition in range(options.repetitions):
        repeated = []
        for network, runner in turns:
            steps, warmup = (2, 1) if options.quick else steps_of(network, runner)
            result = measure(network, runner, steps, warmup)
            if result is None:
                continue
            speed = result["images_per_second"]
            measurements.append({"network": network, "runner": runner, **result})
            print(
                f"{repetition + 1}/{options.repetitions}  {network}  {runner}: "
                f"{speed:,.1f} images/s",
                flush=True,
            )
            if (warmup + steps) * BATCH_SIZE / speed <= MAX_SECONDS:
                repeated.append((network, runner))
        turns = repeated
    conditions = machine(measurements) | {"repetitions": options.repetitions}
    results = summarise(measurements, conditions, stages)
    print(f"\nImages per second\n{to_text(results)}")
    if options.output:
        write_text(options.output, json.dumps(results, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    """The command line; only all runners on all networks go to results.json by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--repetitions", type=positive, default=3)
    parser.add_argument("--networks", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS))
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS}, if all is measured")
    parser.add_argument("--quick", action="store_true", help="two steps, once, to try it out")
    options = parser.parse_args()
    everything = set(options.networks) == set(STEPS) and set(options.runners) == set(RUNNERS)
    if options.quick:
        options.repetitions = 1
    elif options.output is None and everything:
        options.output = RESULTS
    return options


def steps_of(network: str, runner: str) -> tuple[int, int]:
    """How many steps of a runner are timed, and how many come before those."""
    share = SHARES.get(runner, 1.0)
    return math.ceil(STEPS[network] * share), 1 if share == min(SHARES.values()) else WARMUP


def measure(network: str, runner: str, steps: int, warmup: int) -> dict[str, Any] | None:
    """Start a runner once; return what it reports, or None if torch.compile does not work here."""
    command = [*RUNNERS[runner], f"--network={network}", f"--steps={steps}", f"--warmup={warmup}"]
    try:
        result: dict[str, Any] = json.loads(run(command).splitlines()[-1])
    except PipelineError:
        if "--compile" not in command:
            raise
        print(
            f"{network}  {runner} left out: torch.compile failed; it needs g++, and tells its "
            f"reason to `{shlex.join(command)}`",
            file=sys.stderr,
        )
        return None
    return result


def summarise(
    measurements: list[dict[str, Any]], machine: dict[str, Any], stages: dict[str, float]
) -> dict[str, Any]:
    """The content of results.json.

    measurements: one per run, with network, runner, images_per_second, precision, threads and, for
    the project, peak_memory_mib. stages: seconds of each. ratios: how many times as fast as each
    other runner the runner `project` is in the same repetition, the median of the repetitions.
    """
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for measured in measurements:
        runs.setdefault((measured["network"], measured["runner"]), []).append(measured)
    rows = [
        {
            "network": network,
            "runner": runner,
            "images_per_second": spread([run["images_per_second"] for run in group]),
            "precision": group[0]["precision"],
            "threads": group[0]["threads"],
            "repetitions": len(group),
        }
        for (network, runner), group in runs.items()
    ]
    throughput = [row for row in rows if row["runner"] != "evaluation"]
    return {
        "machine": machine,
        "throughput": throughput,
        "ratios": ratios(runs),
        "stages": stages,
        "evaluation": {
            row["network"]: {
                name: value for name, value in row.items() if name not in ("network", "runner")
            }
            for row in rows
            if row["runner"] == "evaluation"
        },
        "peak_memory_mib": {
            network: round(max(run["peak_memory_mib"] for run in group))
            for (network, runner), group in runs.items()
            if runner == "project"
        },
    }


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum, to one decimal."""
    measures = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, 1) for name, value in measures.items()}


def ratios(runs: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """By network and runner: the project's speed divided by the runner's, of the same repetition.

    The median of the repetitions: a machine whose speed drifts slows both.
    """
    found: dict[str, dict[str, float]] = {}
    for (network, runner), others in runs.items():
        own = runs.get((network, "project"), [])
        if runner in ("project", "evaluation") or not own:
            continue
        name = "images_per_second"
        pairs = [one[name] / other[name] for one, other in zip(own, others, strict=False)]
        found.setdefault(network, {})[runner] = round(statistics.median(pairs), 2)
    return found


def to_text(results: dict[str, Any]) -> str:
    """The table for a terminal: training runs with how many times as fast the project is."""
    rows = [dict(row) for row in results["throughput"]]
    for row in rows:
        ratio = results["ratios"].get(row["network"], {}).get(row["runner"])
        row["project is"] = "" if ratio is None else f"{ratio:.2f}×"
    rows += [
        {"network": network, "runner": "project, evaluation", "project is": "", **value}
        for network, value in results["evaluation"].items()
    ]
    table = pd.DataFrame([row | row["images_per_second"] for row in rows])
    columns = ["network", "runner", "precision", "threads", "min", "median", "max", "project is"]
    return table[columns].to_string(index=False, float_format="{:,.1f}".format)


def machine(measurements: list[dict[str, Any]]) -> dict[str, Any]:
    """What the numbers depend on; the runners say their frameworks' versions."""
    return {
        "cpu": cpu_model(),
        "instruction_set": instruction_set(),
        "cores": len(cpu.available_cores()),
        "memory_gib": round(memory_gib(), 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: m[name] for m in measurements for name in ("paddle", "torch") if name in m},
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    run_command("bench", main)
