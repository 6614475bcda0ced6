"""Fills the template of reports/index.html: one page that needs no other file and no network."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stages.figures.charts import Chart
from stages.figures.results import Results

TEMPLATE = Path(__file__).with_name("report.html.j2")
PER_CELL = 3  # images behind a cell of the confusion of superclasses
PER_PAIR = 12  # and behind a pair of classes
COLUMNS = 32  # of the sheet that holds them all
TITLES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "superclass_top1": "Superclass accuracy",
    "superclass_top1_summed": "Superclass by summed probability",
}


def render_report(
    results: Results,
    drawn: list[Chart],
    intervals: pd.DataFrame,
    training: dict[str, str],
    reports: Path,
) -> str:
    """The page as HTML, with the files of the charts in `reports` and what lies behind them.

    `intervals` has the columns metric, value, low and high; `training` says what was trained.
    """
    cells, pairs = mistakes_by_cell(results), mistakes_by_pair(results)
    shown = sorted({index for rows in [*cells.values(), *pairs] for index in rows})
    place = {index: position for position, index in enumerate(shown)}

    def described(rows: Iterable[int]) -> list[list[Any]]:
        return [
            [
                place[index],
                int(results.labels[index]),
                int(results.predicted[index]),
                round(float(results.probabilities[index].max()), 3),
            ]
            for index in rows
        ]

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        images=len(results.labels),
        scores=[
            row | {"title": TITLES[row["metric"]]}
            for row in intervals.to_dict("records")
            if row["metric"] in TITLES
        ],
        training=training,
        charts=[(chart, _inlined(reports / chart.file)) for chart in drawn],
        classes=results.per_class.sort_values("top1", kind="stable").to_dict("records"),
        superclasses=sorted(results.classes.coarse),
        confusion=results.superclass_counts.tolist(),
        names={"fine": results.classes.fine, "coarse": results.classes.coarse},
        pairs=results.pairs.to_dict("records"),
        behind={
            "cells": {key: described(rows) for key, rows in cells.items()},
            "pairs": [described(rows) for rows in pairs],
        },
        columns=COLUMNS,
        sheet=_webp(Image.fromarray(sheet(results.images[shown])), quality=80),
    )


def mistakes_by_cell(results: Results) -> dict[str, list[int]]:
    """For "row,column" of the superclass confusion the images there, the most confident first."""
    coarse = np.array(results.classes.coarse_of_fine)
    found: dict[str, list[int]] = {}
    for index in _by_confidence(results, results.predicted != results.labels):
        key = f"{coarse[results.labels[index]]},{coarse[results.predicted[index]]}"
        if len(found.setdefault(key, [])) < PER_CELL:
            found[key].append(int(index))
    return found


def mistakes_by_pair(results: Results) -> list[list[int]]:
    """For each of the most confused pairs its images, the most confident first."""
    names = results.classes.fine
    found = []
    for pair in results.pairs.to_dict("records"):
        both = [names.index(pair["class_a"]), names.index(pair["class_b"])]
        mine = np.isin(results.labels, both) & np.isin(results.predicted, both)
        rows = _by_confidence(results, mine & (results.labels != results.predicted))
        found.append([int(index) for index in rows[:PER_PAIR]])
    return found


def _by_confidence(results: Results, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-results.probabilities.max(axis=1)[rows], kind="stable")]


def sheet(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, 3, S, S) side by side in one picture (rows · S, 32 · S, 3)."""
    size, rows = images.shape[-1], max(1, -(-len(images) // COLUMNS))
    places = np.zeros((rows * COLUMNS, 3, size, size), np.uint8)
    places[: len(images)] = images
    grid = places.reshape(rows, COLUMNS, 3, size, size).transpose(0, 3, 1, 4, 2)
    return grid.reshape(rows * size, COLUMNS * size, 3)


def _inlined(path: Path) -> str:
    """The picture at `path` as a data URL; charts without loss, galleries small."""
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    return _webp(rgb, quality=75) if path.parent.name == "gallery" else _webp(rgb, lossless=True)


def _webp(picture: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", method=4, **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
