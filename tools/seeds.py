"""Trains the present params with several seeds: `python -m tools.seeds --count 3`.

Each seed is a DVC experiment that runs in a copy of the repository, so the files here stay as they
are. Experiments that are there already with the same params and code are not run again.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.outputs import write_csv
from cifar100.running.params import load
from stages.train.params import TrainParameters
from tools.check_params import SCHEMAS
from tools.comparison.experiments import Experiment, changed, found_or_run, scores_of
from tools.comparison.recipes import Recipe, present_recipe, without_seed

DIGITS = 4


def main() -> None:
    """Run the seeds that are missing; print the scores of all, their mean and their deviation."""
    parser = argparse.ArgumentParser(prog="python -m tools.seeds", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=3, help="how many, from `seed` in params.yaml on; default: 3"
    )
    parser.add_argument("--table", type=Path, help="a CSV file to write the scores to as well")
    options = parser.parse_args()
    if options.count < 2:
        parser.error("argument --count: expected a whole number of at least 2")
    for schema in SCHEMAS.values():
        load(schema)
    seeds = seeds_from(load(TrainParameters), options.count)
    recipe = present_recipe()
    finished: dict[int, Experiment] = {}
    try:
        for seed in seeds:
            changes = {"seed": seed}
            wanted, name = changed(recipe, changes), name_of(seed, recipe)
            finished[seed] = found_or_run("seeds", f"seed {seed}", name, wanted, changes)
    except KeyboardInterrupt:
        print(f"seeds: {kept(finished)}", file=sys.stderr)
        raise
    except PipelineError as error:
        raise PipelineError(f"{error}; {kept(finished)}") from None
    table = score_table({seed: scores_of(one) for seed, one in finished.items()})
    print(f"\n{len(seeds)} seeds of the same params and code")
    print(table.to_string(index=False, na_rep="", float_format=f"{{:.{DIGITS}f}}".format))
    print(
        "mean and sd: over the seeds of the training; half_interval: half of the 95 % confidence "
        "interval over the choice of test images, mean of the seeds"
    )
    if options.table:
        write_csv(options.table, table, DIGITS)
        print(f"seeds: {options.table}")


def seeds_from(params: TrainParameters, count: int) -> range:
    """The seeds to run. Raises `PipelineError` if the last one is larger than a seed may be."""
    last = params.seed + count - 1
    try:
        params.replace(seed=last)
    except ValueError:
        raise PipelineError(
            f"params.yaml: seed: {count} seeds from {params.seed} on end at {last}, which is not "
            "allowed; give a smaller seed"
        ) from None
    return range(params.seed, last + 1)


def name_of(seed: int, recipe: Recipe) -> str:
    """A name that other params or other code do not get, such as seed-0-1a2b3c."""
    content = json.dumps(without_seed(recipe), sort_keys=True)
    return f"seed-{seed}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def kept(finished: dict[int, Experiment]) -> str:
    """What is done when the rest is not, and how to resume."""
    names = ", ".join(f"seed {seed} ({one.name})" for seed, one in finished.items())
    return f"finished and kept: {names or 'no seed'}; run the same command again to resume"


def score_table(scores: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """A row per metric: mean and standard deviation over seeds, and the value for each seed.

    `scores` has a table of `scores_of` per seed. sd is the sample standard deviation (n − 1);
    half_interval is half of the interval over test images, NaN for metrics without one.
    """
    values = pd.DataFrame({f"seed {seed}": table["value"] for seed, table in scores.items()})
    halves = pd.DataFrame(
        {seed: (table["high"] - table["low"]) / 2 for seed, table in scores.items()}
    )
    summary = pd.DataFrame(
        {
            "mean": values.mean(axis=1),
            "sd": values.std(axis=1),
            "half_interval": halves.mean(axis=1),
        }
    )
    return summary.join(values).rename_axis("metric").reset_index()


if __name__ == "__main__":
    run_command("seeds", main)
