"""All that is published about a run's predictions: its form, and how it is stored and read."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cifar100.results.tables import (
    CLASS_CONFUSION,
    CONFUSED_PAIRS,
    INTERVALS,
    PER_CLASS,
    RELIABILITY,
    SUPERCLASS_CONFUSION,
    read_table,
    write_table,
)
from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import write_text

METRICS = (
    "top1",
    "top5",
    "superclass_top1",
    "superclass_top1_summed",
    "loss",
    "macro_f1",
    "errors_in_superclass",
    "confident_errors",
    "calibration_error",
    "calibrated_error",
)
DIGITS = 5  # of the metrics
CONFIDENT = 0.9  # calibrated probability above which an error counts as confident


@dataclass(frozen=True)
class Scores:
    """Metrics by name, each a number from 0 on, and the tables with the columns of their schemas.

    The tables are those of the module `tables`: INTERVALS, PER_CLASS, CLASS_CONFUSION,
    SUPERCLASS_CONFUSION, CONFUSED_PAIRS and RELIABILITY.
    """

    metrics: dict[str, float]
    intervals: pd.DataFrame
    per_class: pd.DataFrame
    class_confusion: pd.DataFrame
    superclass_confusion: pd.DataFrame
    confused_pairs: pd.DataFrame
    reliability: pd.DataFrame


TABLES = {
    "intervals": INTERVALS,
    "per_class": PER_CLASS,
    "class_confusion": CLASS_CONFUSION,
    "superclass_confusion": SUPERCLASS_CONFUSION,
    "confused_pairs": CONFUSED_PAIRS,
    "reliability": RELIABILITY,
}


def write_scores(scores: Scores, folder: Path) -> None:
    """Write metrics.json and a CSV file per table to `folder`.

    Raises `ValueError` if the metrics are not those that METRICS names.
    """
    if set(scores.metrics) != set(METRICS):
        raise ValueError(f"METRICS does not name {set(scores.metrics) ^ set(METRICS)}")
    for field, schema in TABLES.items():
        write_table(schema, getattr(scores, field), folder)
    rounded = {name: round(float(scores.metrics[name]), DIGITS) for name in METRICS}
    write_text(folder / "metrics.json", json.dumps(rounded, indent=1) + "\n")


def read_scores(folder: Path) -> Scores:
    """Read what `write_scores` wrote, with the rounding of the files.

    Raises `PipelineError` if a file is missing or holds something else.
    """
    tables = {field: read_table(schema, folder) for field, schema in TABLES.items()}
    return Scores(read_metrics(folder), **tables)


def read_metrics(folder: Path) -> dict[str, float]:
    """The metrics of metrics.json in `folder`.

    Raises `PipelineError` if the file is missing, or lacks a metric as a finite number.
    """
    path = folder / "metrics.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        metrics = {name: float(stored[name]) for name in METRICS}
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except KeyError as error:
        raise PipelineError(f"{path}: has no metric {error.args[0]}; run `dvc repro`") from None
    except (ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        raise PipelineError(
            f"{path}: not the metrics of a run ({reason_of(error)}); run `dvc repro`"
        ) from None
    if not all(map(math.isfinite, metrics.values())):
        raise PipelineError(f"{path}: expected finite metrics; run `dvc repro`")
    return metrics
