"""DVC experiments of this repository: running one, and finding those of given code and params."""

import json
import re
import signal
import sys
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cifar100.results.scores import METRICS
from cifar100.results.tables import HISTORY, INTERVALS, parse_table
from cifar100.running.errors import PipelineError, reason_of
from tools.children import child
from tools.comparison.recipes import Recipe, read_stages, recorded_recipe
from tools.publish import locked_hashes, md5_of
from tools.repository import git, git_bytes

EXPERIMENT = re.compile(r"(\w+) refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")


@dataclass(frozen=True)
class Experiment:
    """A finished experiment: its name, its commit, and what it was made from.

    outputs: the md5 of each of its outputs, by dvc.lock.
    """

    name: str
    commit: str
    recipe: Recipe
    outputs: dict[str, str]


def find(recipe: Recipe) -> Experiment | None:
    """An experiment that was made from this recipe."""
    return next((one for one in experiments() if one.recipe == recipe), None)


def experiments() -> list[Experiment]:
    """The last commit's run, and all experiments, whose scores belong to their params and code."""
    found = []
    for commit, name in [("HEAD", "the committed run"), *commits_and_names()]:
        try:
            stages = read_stages(git_bytes("show", f"{commit}:./dvc.lock"), name)
        except PipelineError:
            continue  # no run is committed, or an experiment of another pipeline
        recipe = recorded_recipe(stages)
        if recipe:
            found.append(Experiment(name, commit, recipe, locked_hashes({"stages": stages})))
    return found


def commits_and_names() -> list[tuple[str, str]]:
    """The commit and the name of each experiment, whichever commit it began from."""
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    return EXPERIMENT.findall(listed)


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with other values of some params, in all stages that have them."""
    return {
        name: stage
        | {"params": {key: changes.get(key, value) for key, value in stage["params"].items()}}
        for name, stage in recipe.items()
    }


def found_or_run(
    tool: str, what: str, name: str, wanted: Recipe, changes: dict[str, Any]
) -> Experiment:
    """The experiment with this recipe, which is run as `name` with these changes if there is none.

    `tool` and `what` begin the lines that say so. Raises `PipelineError` if it fails, or if the
    files were changed since the recipe was read.
    """
    found, state = find(wanted), "there already"
    if not found:
        print(f"{tool}: {what}: running experiment {name}", flush=True)
        run_experiment(name, changes, what)
        found, state = find(wanted), "finished"
        if not found:
            raise PipelineError(
                f"{what}: params or code were changed while it ran; put them back or leave them, "
                f"and remove what was made of both: `dvc exp remove {name}`"
            )
    top1 = scores_of(found)["value"]["top1"]
    print(f"{tool}: {what}: {found.name}, {state}: top1 {top1:.4f}", flush=True)
    return found


def run_experiment(name: str, changes: dict[str, Any], what: str) -> None:
    """Run the present params with these changes, in a copy of the repository.

    Raises `PipelineError`, which begins with `what`, if it fails.
    """
    settings = [f"--set-param={key}={literal(value)}" for key, value in changes.items()]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *settings]
    with child([sys.executable, "-m", *command], request=signal.SIGINT) as running:
        pass
    if running.returncode:
        raise PipelineError(f"{what}: `{' '.join(command)}` failed, for the reason above")


def literal(value: Any) -> str:
    """A value as `--set-param` of DVC takes it."""
    return json.dumps(value, separators=(",", ":")) if not isinstance(value, str) else value


def scores_of(experiment: Experiment) -> pd.DataFrame:
    """A row per metric: its value, and low and high of its interval over images if it has one.

    Raises `PipelineError` if the experiment does not hold them.
    """
    content = report_of(experiment, INTERVALS.name)
    intervals = parse_table(INTERVALS, content, f"{experiment.name}: reports/{INTERVALS.name}")
    try:
        stored = json.loads(report_of(experiment, "metrics.json"))
        values = {name: float(stored[name]) for name in METRICS}
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{experiment.name}: reports/metrics.json: not the metrics of a run "
            f"({reason_of(error)}); {how_to_run_again(experiment)}"
        ) from None
    table = pd.DataFrame({"value": pd.Series(values)})
    return table.join(intervals.set_index("metric")[["low", "high"]])


def train_top1_of(experiment: Experiment) -> float:
    """The share of training images that it classified correctly in its last epoch.

    Raises `PipelineError` if the experiment does not hold it.
    """
    content = report_of(experiment, HISTORY.name)
    history = parse_table(HISTORY, content, f"{experiment.name}: reports/{HISTORY.name}")
    return float(history["train_top1"].iloc[-1])


def seconds_of(experiment: Experiment) -> float:
    """How long its training took. Raises `PipelineError` if the experiment does not hold it."""
    try:
        timing = json.loads(report_of(experiment, "timing.json"))
        return float(timing["train_seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{experiment.name}: reports/timing.json: not the times of a run "
            f"({reason_of(error)}); {how_to_run_again(experiment)}"
        ) from None


def report_of(experiment: Experiment, name: str) -> bytes:
    """The content of a file in its reports/.

    Raises `PipelineError` if it is missing, or not the one that its dvc.lock records: a commit can
    hold one without the other.
    """
    path = f"reports/{name}"
    content = git_bytes("show", f"{experiment.commit}:./{path}")
    if md5_of(content) != experiment.outputs.get(path):
        raise PipelineError(
            f"{experiment.name}: {path}: not the one that its dvc.lock records; commit both "
            f"together, or {how_to_run_again(experiment)}"
        )
    return content


def how_to_run_again(experiment: Experiment) -> str:
    """What to do about an experiment whose files are no results."""
    if experiment.commit == "HEAD":
        return "run `dvc repro --force`, and commit what it writes"
    return f"run it again, after `dvc exp remove {experiment.name}`"
