"""What a Git revision or a DVC experiment left: its scores, predictions, curves and params."""

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames
from cifar100.dataset.splits import load_classes
from cifar100.results.predictions import Predictions, load_predictions
from cifar100.results.tables import HISTORY, parse_table
from cifar100.running.errors import PipelineError, reason_of
from stages.evaluate.metrics import scores_per_image
from tools.comparison.experiments import commits_and_names
from tools.comparison.recipes import code_of, params_of, read_stages
from tools.repository import environment, git, is_shallow

WORKSPACE = "workspace"  # the files as they are now
METRICS = "reports/metrics.json"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Revision:
    """The results of one revision; `scores` are those of `scores_per_image`.

    params: those that the scores were made with, by dvc.lock · code: the commands and the hashes of
    the folders of code, by stage.
    """

    name: str
    predictions: Predictions
    scores: dict[str, NDArray[np.float64]]
    metrics: dict[str, float]
    history: pd.DataFrame
    params: dict[str, Any]
    code: dict[str, Any]


def load_revision(name: str, classes: ClassNames) -> Revision:
    """Read the results of a branch, tag, commit or experiment from Git and the DVC cache.

    Raises `PipelineError` if there is no such revision, or its predictions are in no cache here.
    """
    predictions = _parsed(load_predictions, name, "data/predictions/test.npz")
    scores = scores_per_image(
        predictions.logits, predictions.labels, np.array(classes.coarse_of_fine)
    )
    metrics = _metrics(_read(name, METRICS), f"{name}: {METRICS}")
    history = parse_table(
        HISTORY, _read(name, "reports/history.csv"), f"{name}: reports/history.csv"
    )
    stages = read_stages(_read(name, "dvc.lock"), f"{name}: dvc.lock")
    params, code = params_of(stages), code_of(stages)
    return Revision(name, predictions, scores, metrics, history, params, code)


def load_class_names(name: str) -> ClassNames:
    """The class names that a revision was trained with."""
    return _parsed(load_classes, name, "data/processed/classes.json")


def _parsed(read: Callable[[Path], Result], name: str, stored: str) -> Result:
    """What `read` makes of the file `stored` at the revision `name`, or its reason with that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(stored).name
        path.write_bytes(_read(name, stored))
        try:
            return read(path)
        except PipelineError as error:
            raise PipelineError(str(error).replace(str(path), f"{name}: {stored}")) from None


def _metrics(content: bytes, source: str) -> dict[str, float]:
    """The metrics of a run, also of an older one, which had others."""
    try:
        return {str(name): float(value) for name, value in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PipelineError(f"{source}: not the metrics of a run ({reason_of(error)})") from None


def _read(revision: str, path: str) -> bytes:
    """The content of a file that Git or DVC keeps, at this revision."""
    if revision == WORKSPACE:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    commit = _commit_of(revision)
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.brancher import switch

    try:
        # `dvc.api.read` takes this for the root of the repository, which may lie above it.
        with Repo() as repo, switch(repo, commit):
            content: bytes = repo.dvcfs.read_bytes(path)
    except (DvcException, OSError) as error:
        raise PipelineError(
            f"{revision}: {path} is neither in Git nor in the DVC cache ({reason_of(error)}); "
            "`dvc pull` it, or run that revision again"
        ) from None
    return content


@cache
def _commit_of(revision: str) -> str:
    """The commit that Git means by this name, in each form that it takes, or an experiment's."""
    git("rev-parse", "--git-dir")  # says why Git does not answer, if so
    if commit := _verified(revision):
        return commit
    try:
        from dvc.repo import Repo
        from dvc.scm import resolve_rev

        with Repo() as repo:
            if revision.strip() and (commit := _verified(resolve_rev(repo.scm, revision))):
                return commit
    except Exception:  # DVC lets through what its Git libraries raise, with types of their own
        pass
    named = [commit[:7] for commit, name in commits_and_names() if name == revision]
    if len(named) > 1:
        raise PipelineError(
            f"{revision}: {len(named)} experiments of different commits have this name; name the "
            f"commit of one: {', '.join(named)}"
        )
    hint = "; `git fetch --unshallow` gets what this clone lacks" if is_shallow() else ""
    raise PipelineError(
        f"{revision}: no such revision; `dvc exp show` and `git branch` list them{hint}"
    )


def _verified(name: str) -> str:
    """The commit of this name by Git alone; '' if it is no commit's."""
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
