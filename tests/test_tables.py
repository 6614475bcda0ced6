"""The CSV files of the pipeline: what is written can be read, anything else is refused."""

import numpy as np
import pandas as pd
import pytest

from cifar100.results.tables import (
    CLASS_CONFUSION,
    CONFUSED_PAIRS,
    HISTORY,
    INTERVALS,
    SUMMARY,
    confusion_counts,
    confusion_table,
    parse_table,
    read_table,
    write_table,
)
from cifar100.running.errors import PipelineError
from tests.conftest import ROOT


@pytest.mark.parametrize("content", ["", "a,b\n", "metric,value,low,high\n"])
def test_table_without_rows_is_refused(tmp_path, content):
    with pytest.raises(PipelineError, match="not found; run `dvc repro`"):
        read_table(INTERVALS, tmp_path)
    (tmp_path / "intervals.csv").write_text(content)
    with pytest.raises(PipelineError, match=r"intervals\.csv: "):
        read_table(INTERVALS, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("metric,value,low\ntop1,0.7,0.6\n", "has no column high"),
        ("metric,value,low,high\ntop1,0.7,much,0.8\n", "column low: expected numbers"),
        ("metric,value,low,high\ntop1,0.7,nan,0.8\n", "column low: expected numbers"),
        ("metric,value,low,high\ntop1,0.7,-inf,0.8\n", "column low: expected numbers"),
        ("metric,value,low,high\ntop1,0.7,-0.1,0.8\n", "column low: expected numbers from 0"),
        ("metric,value,low,high\ntop1,0.7,True,0.8\n", "column low: expected numbers"),
    ],
)
def test_table_that_someone_changed_is_refused(tmp_path, content, reason):
    (tmp_path / "intervals.csv").write_text(content)
    with pytest.raises(PipelineError, match=rf"intervals\.csv: {reason}"):
        read_table(INTERVALS, tmp_path)


@pytest.mark.parametrize("metrics", [["top5"], ["top1", "top5", "top1"], ["Top1"]])
def test_intervals_without_a_single_row_of_the_top1_are_refused(tmp_path, metrics):
    rows = "".join(f"{metric},0.7,0.6,0.8\n" for metric in metrics)
    (tmp_path / "intervals.csv").write_text(f"metric,value,low,high\n{rows}")
    with pytest.raises(
        PipelineError, match=r"intervals\.csv: expected one row of metric top1; run `dvc repro`"
    ):
        read_table(INTERVALS, tmp_path)


def test_check_does_not_depend_on_the_name_of_the_file():
    with pytest.raises(PipelineError, match="an old commit: column images: expected whole numbers"):
        parse_table(CLASS_CONFUSION, b"actual,predicted,images\na,b,1.5\n", "an old commit")


def test_names_that_look_like_numbers_or_like_nothing_stay_names():
    found = parse_table(CLASS_CONFUSION, b"actual,predicted,images\n1,NA,2\n", "here")
    assert found.to_dict("records") == [{"actual": "1", "predicted": "NA", "images": 2}]


def test_table_that_may_be_empty_keeps_its_types(tmp_path):
    write_table(CONFUSED_PAIRS, pd.DataFrame(columns=list(CONFUSED_PAIRS.columns)), tmp_path)
    found = read_table(CONFUSED_PAIRS, tmp_path)
    assert found.empty
    assert found["images"].sum() == 0
    assert found["same_superclass"].dtype == bool


def test_other_columns_than_those_of_the_schema_are_not_written(tmp_path):
    table = pd.DataFrame({"actual": ["a"], "images": [1], "predicted": ["b"]})
    with pytest.raises(ValueError, match=r"class_confusion\.csv has the columns"):
        write_table(CLASS_CONFUSION, table, tmp_path)


def test_fractions_are_rounded_by_the_schema(tmp_path):
    row = {"metric": "top1", "value": 2 / 3, "low": 0.0, "high": 1.0}
    write_table(INTERVALS, pd.DataFrame([row]), tmp_path)
    content = (tmp_path / "intervals.csv").read_bytes()
    assert content == b"metric,value,low,high\ntop1,0.6667,0.0000,1.0000\n"


def test_confusion_survives_a_round_trip():
    counts = np.random.default_rng(0).integers(0, 3, (20, 20))
    names = [f"class {i}" for i in range(20)]
    table = confusion_table(counts, names)
    assert len(table) == np.count_nonzero(counts + np.eye(20))
    assert set(table["actual"]) == set(table["predicted"]) == set(names)
    np.testing.assert_array_equal(confusion_counts(table, names), counts)
    with pytest.raises(PipelineError, match="unknown class 'class 19'"):
        confusion_counts(table, [*names[:19], "other"])


def test_what_training_writes_has_the_columns_of_its_schemas(finished):
    """The stage train knows no schema, so that a change of a table does not train again."""
    for schema, folder in ((HISTORY, "reports"), (SUMMARY, "models")):
        written = pd.read_csv(finished.path / folder / schema.name)
        assert list(written) == list(schema.columns)
        assert len(read_table(schema, finished.path / folder)) == len(written)


def test_csv_is_formatted_in_one_place():
    sources = [p for room in ("cifar100", "stages", "tools") for p in (ROOT / room).rglob("*.py")]
    users = [p.name for p in sources if "to_csv(" in p.read_text(encoding="utf-8")]
    assert users == ["outputs.py"]
