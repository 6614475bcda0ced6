"""What a Git revision or a DVC experiment left: its scores, predictions and curves."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames
from cifar100.dataset.splits import load_classes
from cifar100.results.predictions import Predictions, load_predictions
from cifar100.results.tables import HISTORY, parse_table
from cifar100.running.errors import PipelineError, reason_of
from stages.evaluate.metrics import scores_per_image
from tools.repository import git, is_shallow

WORKSPACE = "workspace"  # the files as they are now


@dataclass(frozen=True)
class Revision:
    """The results of one revision; `scores` are those of `scores_per_image`."""

    name: str
    predictions: Predictions
    scores: dict[str, NDArray[np.float64]]
    metrics: dict[str, float]
    history: pd.DataFrame


def load_revision(name: str, classes: ClassNames) -> Revision:
    """Read the results of a branch, tag, commit or experiment from Git and the DVC cache.

    Raises `PipelineError` if there is no such revision, or its predictions are in no cache here.
    """
    stored = "data/predictions/test.npz"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.npz"
        path.write_bytes(_read(name, stored))
        try:
            predictions = load_predictions(path)
        except PipelineError as error:
            raise PipelineError(str(error).replace(str(path), f"{name}: {stored}")) from None
    scores = scores_per_image(
        predictions.logits, predictions.labels, np.array(classes.coarse_of_fine)
    )
    metrics = json.loads(_read(name, "reports/metrics.json"))
    history = parse_table(
        HISTORY, _read(name, "reports/history.csv"), f"{name}: reports/history.csv"
    )
    return Revision(name, predictions, scores, metrics, history)


def load_class_names(name: str) -> ClassNames:
    """The class names that a revision was trained with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.json"
        path.write_bytes(_read(name, "data/processed/classes.json"))
        return load_classes(path)


def _read(revision: str, path: str) -> bytes:
    """The content of a file that Git or DVC keeps, at this revision."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.brancher import switch
    from dvc.scm import SCMError

    if revision == WORKSPACE:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    git("rev-parse", "--git-dir")  # says why Git does not answer, if so
    try:
        # `dvc.api.read` takes this for the root of the repository, which may lie above it.
        with Repo() as repo, switch(repo, revision):
            content: bytes = repo.dvcfs.read_bytes(path)
    except SCMError:
        hint = "; `git fetch --unshallow` gets what this clone lacks" if is_shallow() else ""
        raise PipelineError(
            f"{revision}: no such revision; `dvc exp show` and `git branch` list them{hint}"
        ) from None
    except (DvcException, OSError) as error:
        raise PipelineError(
            f"{revision}: {path} is neither in Git nor in the DVC cache ({reason_of(error)}); "
            "`dvc pull` it, or run that revision again"
        ) from None
    return content
