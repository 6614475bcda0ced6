"""The CSV files of the pipeline: their names, columns and checks, one writer and one reader."""

import io
import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import write_csv


@dataclass(frozen=True)
class Column:
    """What a column holds: str, bool, int or float; numbers lie between `low` and `high`."""

    kind: type
    low: float = -math.inf
    high: float = math.inf

    @property
    def expected(self) -> str:
        """The same in words."""
        if self.kind in (str, bool):
            return "text" if self.kind is str else "True or False"
        numbers = "whole numbers" if self.kind is int else "numbers"
        low = f" from {self.low:g}" if self.low > -math.inf else ""
        return numbers + low + (f" to {self.high:g}" if self.high < math.inf else "")

    def holds(self, values: pd.Series) -> bool:
        """Whether all values are of this kind and in this range; numbers have to be finite."""
        is_kind = {
            str: pd.api.types.is_object_dtype,
            bool: pd.api.types.is_bool_dtype,
            int: pd.api.types.is_integer_dtype,
            float: pd.api.types.is_any_real_numeric_dtype,
        }[self.kind]
        if self.kind in (str, bool) or not is_kind(values):
            return bool(is_kind(values))
        return bool(np.isfinite(values).all() and values.between(self.low, self.high).all())


@dataclass(frozen=True)
class Schema:
    """A kind of CSV file: its name and its columns in order.

    digits: after the decimal point of each fraction, None for all · may_be_empty: whether it is
    valid without a row · one_row: a column and a value that exactly one row has there.
    """

    name: str
    columns: dict[str, Column]
    digits: int | None = 4
    may_be_empty: bool = False
    one_row: tuple[str, str] | None = None


TEXT, FLAG = Column(str), Column(bool)
COUNT, POSITIVE_COUNT = Column(int, 0), Column(int, 1)
SHARE, NOT_NEGATIVE = Column(float, 0, 1), Column(float, 0)

# reports/, by the stage train: a row per epoch
HISTORY = Schema(
    "history.csv",
    {
        "epoch": POSITIVE_COUNT,
        "lr": NOT_NEGATIVE,
        "image_size": POSITIVE_COUNT,
        "train_loss": NOT_NEGATIVE,
        "train_top1": SHARE,
        "val_loss": NOT_NEGATIVE,
        "val_top1": SHARE,
        "val_top5": SHARE,
    },
    digits=None,
)
# models/, by the stage train: a row per layer, and one with the sums
SUMMARY = Schema(
    "summary.csv",
    {"layer": TEXT, "output_shape": TEXT, "parameters": COUNT, "multiply_adds": COUNT},
)
# reports/, by the stage evaluate
INTERVALS = Schema(
    "intervals.csv",
    {"metric": TEXT, "value": NOT_NEGATIVE, "low": NOT_NEGATIVE, "high": NOT_NEGATIVE},
    one_row=("metric", "top1"),
)
PER_CLASS = Schema(
    "per_class.csv",
    {
        "class": TEXT,
        "superclass": TEXT,
        "images": COUNT,
        "top1": SHARE,
        "top5": SHARE,
        "superclass_top1": SHARE,
        "precision": SHARE,
        "recall": SHARE,
        "f1": SHARE,
        "taken_for": TEXT,
        "taken_for_images": COUNT,
    },
)
CONFUSION = {"actual": TEXT, "predicted": TEXT, "images": COUNT}
CLASS_CONFUSION = Schema("class_confusion.csv", CONFUSION)
SUPERCLASS_CONFUSION = Schema("superclass_confusion.csv", CONFUSION)
CONFUSED_PAIRS = Schema(
    "confused_pairs.csv",
    {
        "pair": TEXT,
        "class_a": TEXT,
        "class_b": TEXT,
        "a_as_b": COUNT,
        "b_as_a": COUNT,
        "images": POSITIVE_COUNT,
        "same_superclass": FLAG,
    },
    may_be_empty=True,
)
RELIABILITY = Schema(
    "reliability.csv",
    {
        "from": SHARE,
        "to": SHARE,
        "images": COUNT,
        "confidence": SHARE,
        "top1": SHARE,
        "calibrated": FLAG,
    },
)
# lr_range/, by the learning-rate range test: a row per step
LR_RANGE = Schema(
    "loss.csv",
    {"lr": NOT_NEGATIVE, "loss": NOT_NEGATIVE, "smoothed_loss": NOT_NEGATIVE},
    digits=None,
    may_be_empty=True,
)


def write_table(schema: Schema, table: pd.DataFrame, folder: Path) -> None:
    """Write the file of `schema` in `folder`, whole or not at all.

    Raises `ValueError` if the columns are not exactly those of the schema.
    """
    if list(table) != list(schema.columns):
        raise ValueError(f"{schema.name} has the columns {[*schema.columns]}, not {[*table]}")
    write_csv(folder / schema.name, table, schema.digits)


def read_table(schema: Schema, folder: Path) -> pd.DataFrame:
    """The rows of the file of `schema` in `folder`.

    Raises `PipelineError` if it is missing or is not valid by `parse_table`.
    """
    path = folder / schema.name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run `dvc repro`") from None
    except OSError as error:
        raise PipelineError(f"{path}: not a CSV table ({reason_of(error)})") from None
    return parse_table(schema, content, str(path))


def parse_table(schema: Schema, content: bytes, source: str) -> pd.DataFrame:
    """The rows of a CSV file, with the columns of `schema` in its order; empty cells are ''.

    `source` names the file in errors. Raises `PipelineError` if the content is no table, has no
    rows, has a column that is missing or holds what it must not, or lacks the row that its schema
    demands. Other columns are left out.
    """
    texts: dict[Hashable, type[str]] = {
        name: str for name, column in schema.columns.items() if column.kind is str
    }
    try:
        table = pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=texts)
    except ValueError as error:
        raise PipelineError(f"{source}: not a CSV table ({reason_of(error)})") from None
    if table.empty and not schema.may_be_empty:
        raise PipelineError(f"{source}: has no rows; run `dvc repro`")
    for name, column in schema.columns.items():
        if name not in table:
            raise PipelineError(f"{source}: has no column {name}; run `dvc repro`")
        if not table.empty and not column.holds(table[name]):
            raise PipelineError(
                f"{source}: column {name}: expected {column.expected}; run `dvc repro`"
            )
    if schema.one_row:
        name, value = schema.one_row
        if (table[name] == value).sum() != 1:
            raise PipelineError(f"{source}: expected one row of {name} {value}; run `dvc repro`")
    if table.empty:  # pandas cannot know the types
        table = table.astype({name: column.kind for name, column in schema.columns.items()})
    return table[list(schema.columns)]


def confusion_table(counts: NDArray[np.int64], names: list[str]) -> pd.DataFrame:
    """The cells of a confusion matrix (C, C) that are not zero and its diagonal, row by row.

    Columns: actual, predicted (names of classes) and images. Thanks to the diagonal both columns
    have all classes, which is what DVC's plot takes its axes from.
    """
    actual, predicted = np.nonzero(counts + np.eye(len(counts), dtype=np.int64))
    labels = np.array(names)
    return pd.DataFrame(
        {
            "actual": labels[actual],
            "predicted": labels[predicted],
            "images": counts[actual, predicted],
        }
    )


def confusion_counts(table: pd.DataFrame, names: list[str]) -> NDArray[np.int64]:
    """The confusion matrix (C, C) of a `confusion_table`.

    Raises `PipelineError` if the table has a class that is not among the C `names`.
    """
    place = {name: index for index, name in enumerate(names)}
    unknown = {*table["actual"], *table["predicted"]} - {*place}
    if unknown:
        raise PipelineError(f"unknown class {min(unknown)!r} in a confusion; run `dvc repro`")
    counts = np.zeros((len(names), len(names)), np.int64)
    cells = table["actual"].map(place), table["predicted"].map(place)
    np.add.at(counts, cells, table["images"])
    return counts


def readable(name: str) -> str:
    """A name of the data set, which has underscores, as people write it."""
    return name.replace("_", " ")
