"""What a Git revision or a DVC experiment left: its scores, predictions, curves and params."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames
from cifar100.dataset.splits import load_classes
from cifar100.results.predictions import Predictions, load_predictions
from cifar100.results.tables import HISTORY, parse_table
from cifar100.running.errors import PipelineError, reason_of
from stages.evaluate.metrics import scores_per_image
from tools.comparison.recipes import params_of, read_stages

WORKSPACE = "workspace"  # the files as they are now


@dataclass(frozen=True)
class Revision:
    """The results of one revision; `scores` are those of `scores_per_image`.

    params: those that the scores were made with, by dvc.lock.
    """

    name: str
    predictions: Predictions
    scores: dict[str, NDArray[np.float64]]
    metrics: dict[str, float]
    history: pd.DataFrame
    params: dict[str, Any]


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
    params = params_of(read_stages(_read(name, "dvc.lock"), f"{name}: dvc.lock"))
    return Revision(name, predictions, scores, metrics, history, params)


def load_class_names(name: str) -> ClassNames:
    """The class names that a revision was trained with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.json"
        path.write_bytes(_read(name, "data/processed/classes.json"))
        return load_classes(path)


def _read(revision: str, path: str) -> bytes:
    """The content of a file that Git or DVC keeps, at this revision."""
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    if revision == WORKSPACE:
        try:
            return Path(path).read_bytes()
        except FileNotFoundError:
            raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    try:
        content: bytes = dvc.api.read(path, rev=revision, mode="rb")
    except SCMError:
        raise PipelineError(
            f"{revision}: no such revision; `dvc exp show` and `git branch` list them"
        ) from None
    except (DvcException, OSError) as error:
        raise PipelineError(
            f"{revision}: {path} is neither in Git nor in the DVC cache ({reason_of(error)}); "
            "`dvc pull` it, or run that revision again"
        ) from None
    return content
