"""From the replaced experiment to the committed recipe, step by step: `python -m tools.ladder`.

Each rung is a DVC experiment that runs in a copy of the repository, so the files here stay as they
are; those that are there already with the same params and code are not run again. The results go
to docs/ladder/.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import ValidationError
from ruamel.yaml import YAML

from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.guard import run_command
from cifar100.running.outputs import write_csv
from cifar100.running.params import StageParameters, load
from stages.render.style import BLUE, GREY, ORANGE, RULES, new_figure, save_figure
from tools.check_params import SCHEMAS
from tools.comparison.experiments import (
    Experiment,
    changed,
    found_or_run,
    scores_of,
    seconds_of,
    train_top1_of,
)
from tools.comparison.recipes import Recipe, present_recipe

FOLDER = Path("docs/ladder")
RUNGS, REFERENCE = FOLDER / "rungs.yaml", FOLDER / "reference_run.csv"
RESULTS, FIGURE = FOLDER / "results.csv", FOLDER / "ladder.png"
REFERENCE_MINUTES = 600  # and more, says its author
DIGITS, DPI = 4, 110


class Rung(StageParameters):
    """What one rung changes: in words, in English and Chinese, and in params."""

    name: str
    change: str
    change_zh: str
    params: dict[str, Any]


def main() -> None:
    """Run the rungs that are missing; print the results of all, write them and draw them."""
    argparse.ArgumentParser(prog="python -m tools.ladder", description=__doc__).parse_args()
    for schema in SCHEMAS.values():
        load(schema)
    rungs, recipe = read_rungs(RUNGS), present_recipe()
    settings = settings_of(rungs, recipe)
    finished: list[Experiment] = []
    try:
        for rung, changes in zip(rungs, settings, strict=True):
            wanted = changed(recipe, changes)
            name = name_of(rung, wanted)
            finished.append(found_or_run("ladder", rung.name, name, wanted, changes))
    except KeyboardInterrupt:
        print(f"ladder: {kept(finished)}", file=sys.stderr)
        raise
    except PipelineError as error:
        raise PipelineError(f"{error}; {kept(finished)}") from None
    table = result_table(pd.read_csv(REFERENCE), rungs, finished)
    write_csv(RESULTS, table, DIGITS)
    save_figure(ladder_figure(table), FIGURE, DPI)
    print(f"\n{table.to_string(index=False, na_rep='', float_format=f'{{:.{DIGITS}f}}'.format)}")
    print(f"ladder: {RESULTS}, {FIGURE}")


def read_rungs(path: Path) -> list[Rung]:
    """The rungs of the ladder, the lowest first.

    Raises `PipelineError` if the file is missing, no YAML, or has something else than rungs.
    """
    try:
        rungs = [Rung(**rung) for rung in YAML(typ="safe").load(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run from the root of the repository") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise PipelineError(f"{path}: {where}: {fault['msg']}") from None
    except Exception as error:  # of many types: of the parser, of a content of another form
        raise PipelineError(f"{path}: no list of rungs ({reason_of(error)})") from None
    if not rungs:
        raise PipelineError(f"{path}: no rung; give at least one")
    return rungs


def settings_of(rungs: list[Rung], recipe: Recipe) -> list[dict[str, Any]]:
    """For each rung the params in which it differs from `recipe`, with its values.

    A rung has the changes of all up to it, the last one none at all. Raises `PipelineError` for a
    param that no stage has, or a value that it cannot have.
    """
    present = {key: value for stage in recipe.values() for key, value in stage["params"].items()}
    together: dict[str, Any] = {}
    found = []
    for rung in rungs:
        together |= rung.params
        unknown = [key for key in together if key not in present]
        if unknown:
            raise PipelineError(f"{RUNGS}: {rung.name}: no stage that scores has {unknown[0]}")
        for schema in SCHEMAS.values():
            values = {key: together[key] for key in schema.model_fields if key in together}
            try:
                load(schema).replace(**values)
            except ValidationError as error:
                key = next(iter(error.errors()[0]["loc"]), "params")
                reason = error.errors()[0]["msg"]
                raise PipelineError(f"{RUNGS}: {rung.name}: {key}: {reason}") from None
        found.append({key: v for key, v in together.items() if v != present[key]})
    return [*found[:-1], {}]


def name_of(rung: Rung, recipe: Recipe) -> str:
    """A name that other params or other code do not get, such as ladder-stem-1a2b3c."""
    content = json.dumps(recipe, sort_keys=True)
    return f"ladder-{rung.name}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def kept(finished: list[Experiment]) -> str:
    """What is done when the rest is not, and how to resume."""
    names = ", ".join(experiment.name for experiment in finished)
    return f"finished and kept: {names or 'no rung'}; run the same command again to resume"


def result_table(
    reference: pd.DataFrame, rungs: list[Rung], finished: list[Experiment]
) -> pd.DataFrame:
    """A row per rung, the replaced experiment as number 0.

    Columns: rung, name, change, epochs, minutes of training, train_top1 (of the training images in
    the last epoch), top1 of the test images, low and high (its 95 % interval over them; NaN for the
    replaced experiment, which has none).
    """
    rows: list[dict[str, Any]] = [
        {
            "rung": 0,
            "name": "replaced",
            "change": "the replaced experiment",
            "epochs": int(reference["epoch"].iloc[-1]),
            "minutes": REFERENCE_MINUTES,
            "train_top1": reference["train_top1"].iloc[-1],
            "top1": reference["test_top1"].iloc[-1],
            "low": np.nan,
            "high": np.nan,
        }
    ]
    for number, (rung, experiment) in enumerate(zip(rungs, finished, strict=True), 1):
        top1 = scores_of(experiment).T["top1"]
        rows.append(
            {
                "rung": number,
                "name": rung.name,
                "change": rung.change,
                "epochs": experiment.recipe["train"]["params"]["epochs"],
                "minutes": round(seconds_of(experiment) / 60, 1),
                "train_top1": train_top1_of(experiment),
                "top1": top1["value"],
                "low": top1["low"],
                "high": top1["high"],
            }
        )
    return pd.DataFrame(rows)


@matplotlib.rc_context(RULES)
def ladder_figure(table: pd.DataFrame) -> Figure:
    """A bar per rung, the first at the bottom: top-1 with its interval, and the minutes."""
    figure = new_figure(9, 0.55 * len(table) + 1)
    axes = figure.subplots()
    last = len(table) - 1
    colors = [GREY, *[BLUE] * (last - 1), ORANGE]
    axes.barh(table["rung"], table["top1"] * 100, color=colors, height=0.72)
    bars = np.abs(table[["low", "high"]].to_numpy().T - table["top1"].to_numpy()) * 100
    axes.errorbar(table["top1"] * 100, table["rung"], xerr=bars, fmt="none", ecolor="black")
    for _, row in table.iterrows():
        over = "over " if row["rung"] == 0 else ""
        end = np.nanmax([row["top1"], row["high"]]) * 100 + 0.8
        text = f"{row['top1']:.1%}, {over}{row['minutes']:.0f} min"
        axes.text(end, row["rung"], text, va="center", fontsize=9)
    axes.set_yticks(table["rung"], table["rung"].astype(str) + "  " + table["change"])
    axes.margins(x=0.25)
    axes.set_xlabel("top-1 of the test images, percent; lines: 95 % interval")
    axes.set_title("Step by step")
    axes.tick_params(axis="y", length=0)
    return figure


if __name__ == "__main__":
    run_command("ladder", main)
