"""Images per second of this project, stock Paddle and PyTorch: `python -m benchmarks.throughput`.

Prints a table and writes benchmarks/results.json; README.md beside this file says what is measured.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.stage_seconds import stage_seconds
from benchmarks.workspace import run
from stages.hardware import cpu
from stages.running.entry import run_stage
from stages.running.errors import PipelineError
from stages.running.outputs import write_text

RESULTS = Path("benchmarks/results.json")
TORCH_PYTHON = Path(".venv-bench/bin/python")

# Timed in each repetition, about ten seconds on two cores. Stock Paddle's steps take so long that a
# quarter of them is enough.
STEPS = {"resnet20-w16": 30, "resnet18-w32": 20, "resnet18-w64": 6}
STOCK_SHARE, FEWEST = 4, 3
WARMUP = 2
REPORTED = ("paddle", "torch", "workers")  # by the runners, of themselves

PADDLE = [sys.executable, "-m"]
PYTORCH = [str(TORCH_PYTHON), "-m", "benchmarks.run_pytorch"]
RUNNERS = {
    "project": [*PADDLE, "benchmarks.run_project"],
    "paddle-stock": [*PADDLE, "benchmarks.run_paddle_stock"],
    "pytorch-eager": [*PYTORCH, "--layout=eager"],
    "pytorch-channels-last": [*PYTORCH, "--layout=channels-last"],
    "evaluation": [*PADDLE, "benchmarks.run_evaluation"],
}


def main() -> None:
    """Time the stages, then every runner on every network, in turn, several times."""
    options = parse_options()
    warmup = 1 if options.quick else WARMUP
    if not TORCH_PYTHON.is_file() and any("pytorch" in runner for runner in options.runners):
        raise PipelineError(f"{TORCH_PYTHON}: not found; `make .venv-bench/ready` creates it")
    stages = {} if options.quick else stage_seconds()  # first: what can fail is not at the end
    measurements: list[dict[str, Any]] = []
    for repetition in range(options.repetitions):
        for network in options.networks:
            for runner in options.runners:
                steps = STEPS[network]
                if runner == "paddle-stock":
                    steps = max(FEWEST, steps // STOCK_SHARE)
                steps = 2 if options.quick else steps
                count = [f"--network={network}", f"--steps={steps}", f"--warmup={warmup}"]
                result = json.loads(run([*RUNNERS[runner], *count]).splitlines()[-1])
                measurements.append({"network": network, "runner": runner, **result})
                print(
                    f"{repetition + 1}/{options.repetitions}  {network}  {runner}: "
                    f"{result['images_per_second']:,.1f} images/s",
                    flush=True,
                )
    conditions = machine(measurements) | {"repetitions": options.repetitions}
    results = summarise(measurements, conditions, stages)
    print(f"\nImages per second\n{to_text(results)}")
    if options.output:
        write_text(options.output, json.dumps(results, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    """The command line; only all runners on all networks go to results.json by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
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


def summarise(
    measurements: list[dict[str, Any]], machine: dict[str, Any], stages: dict[str, float]
) -> dict[str, Any]:
    """The content of results.json.

    measurements: one per run, with network, runner, images_per_second and, for the project,
    peak_memory_mib. stages: seconds of each.
    """
    speeds: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, int] = {}
    for measured in measurements:
        network, runner = measured["network"], measured["runner"]
        speeds.setdefault((network, runner), []).append(measured["images_per_second"])
        if "peak_memory_mib" in measured:
            memory[network] = max(memory.get(network, 0), round(measured["peak_memory_mib"]))
    rows = [
        {"network": network, "runner": runner, "images_per_second": spread(values)}
        for (network, runner), values in speeds.items()
    ]
    return {
        "machine": machine,
        "throughput": [row for row in rows if row["runner"] != "evaluation"],
        "stages": stages,
        "evaluation": {
            row["network"]: {"images_per_second": row["images_per_second"]}
            for row in rows
            if row["runner"] == "evaluation"
        },
        "peak_memory_mib": memory,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Minimum, median and maximum, to one decimal."""
    measures = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, 1) for name, value in measures.items()}


def to_text(results: dict[str, Any]) -> str:
    """The table for a terminal: training runs with how many times faster the project is."""
    rows = [row | row["images_per_second"] for row in results["throughput"]]
    rows += [
        {"network": network, "runner": "project, evaluation", **value["images_per_second"]}
        for network, value in results["evaluation"].items()
    ]
    table = pd.DataFrame(rows)
    project = table[table["runner"] == "project"].set_index("network")["median"]
    table["project is"] = (table["network"].map(project) / table["median"]).map("{:.2f}×".format)
    table.loc[table["runner"].str.startswith("project"), "project is"] = ""
    table.loc[~table["network"].isin(project.index), "project is"] = ""
    columns = ["network", "runner", "min", "median", "max", "project is"]
    return table[columns].to_string(index=False, float_format="{:,.1f}".format)


def machine(measurements: list[dict[str, Any]]) -> dict[str, Any]:
    """What the numbers depend on; the runners say their frameworks' versions and processes."""
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo")),
        "cores": len(cpu.available_cores()),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: m[name] for m in measurements for name in REPORTED if name in m},
        "date": datetime.date.today().isoformat(),
    }


def cpu_model(cpuinfo: Path) -> str:
    """The processor's name, with family and model number, as virtual machines shorten the name."""
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


if __name__ == "__main__":
    run_stage("bench", main)
