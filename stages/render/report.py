"""Fills the template of reports/index.html: one page that needs no other file and no network."""

import base64
import io
import warnings
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cifar100.results.tables import readable
from stages.render.charts import Chart
from stages.render.findings import confusions, learned_nothing, next_steps, trust
from stages.render.results import Results
from stages.render.training import Training

TEMPLATE = Path(__file__).with_name("report.html.j2")
IMAGES_PER_CELL = 3  # behind a cell of the confusion of superclasses
IMAGES_PER_PAIR = 12
COLUMNS = 32  # of the sheet of all images behind cells and pairs
MAX_SIDE = 16383  # pixels of a WebP
TITLES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "superclass_top1": "Superclass accuracy",
    "superclass_top1_summed": "Superclass by summed probability",
}


def render_report(results: Results, drawn: list[Chart], training: Training, reports: Path) -> str:
    """The page as HTML, with the files of the charts in `reports` and the images behind cells."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["readable"] = readable
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = [chart for chart in drawn if chart.in_report]
    classes = results.classes
    return template.render(
        images=len(results.predictions.labels),
        verdict=verdict(results),
        confusions=" ".join(confusions(results)),
        trust=" ".join(trust(results)),
        steps=next_steps(results, training.numbers),
        scores=scores_with_titles(results),
        training=training,
        charts=[(chart, inlined(reports / chart.file, chart.photos)) for chart in shown],
        classes=results.scores.per_class.sort_values("top1", kind="stable").to_dict("records"),
        superclasses=sorted(classes.coarse),
        confusion=results.superclass_counts.tolist(),
        names={key: [*map(readable, getattr(classes, key))] for key in ("fine", "coarse")},
        pairs=results.scores.confused_pairs.to_dict("records"),
        columns=COLUMNS,
        **images_behind(results),
    )


def verdict(results: Results) -> str:
    """What to know before looking at the charts of an unusual run; '' for others."""
    if not results.errors:
        return "No test image was classified wrongly, so there is nothing to show about errors."
    if learned_nothing(results):
        return (
            "The network is no better than chance (1 %), so it learned nothing: look at the "
            "learning curves first, and try another lr."
        )
    return ""


def scores_with_titles(results: Results) -> list[dict[Hashable, Any]]:
    """The rows of the intervals that the head of the page shows, each with a title."""
    rows = results.scores.intervals.to_dict("records")
    return [row | {"title": TITLES[row["metric"]]} for row in rows if row["metric"] in TITLES]


def images_behind(results: Results) -> dict[str, Any]:
    """Which images the page shows on demand: `behind` cells and pairs, and the `sheet` of them.

    An image is its place in the sheet, its actual and its predicted class, and its probability.
    """
    cells, pairs = errors_by_cell(results), errors_by_pair(results)
    shown = sorted({index for rows in [*cells.values(), *pairs] for index in rows})
    place = {index: position for position, index in enumerate(shown)}
    predictions = results.predictions

    def described(rows: Iterable[int]) -> list[list[Any]]:
        return [
            [
                place[index],
                int(predictions.labels[index]),
                int(predictions.predicted[index]),
                round(float(predictions.confidence[index]), 3),
            ]
            for index in rows
        ]

    return {
        "behind": {
            "cells": {key: described(rows) for key, rows in cells.items()},
            "pairs": [described(rows) for rows in pairs],
        },
        "sheet": _webp(Image.fromarray(sheet(results.images[shown])), quality=80),
    }


def errors_by_cell(results: Results) -> dict[str, list[int]]:
    """For "row,column" of the superclass confusion the images there, the most confident first."""
    coarse, predictions = np.array(results.classes.coarse_of_fine), results.predictions
    found: dict[str, list[int]] = {}
    for index in _by_confidence(results, results.wrong):
        key = f"{coarse[predictions.labels[index]]},{coarse[predictions.predicted[index]]}"
        if len(found.setdefault(key, [])) < IMAGES_PER_CELL:
            found[key].append(int(index))
    return found


def errors_by_pair(results: Results) -> list[list[int]]:
    """For each of the most confused pairs its images, the most confident first."""
    names, predictions = results.classes.fine, results.predictions
    found = []
    for pair in results.scores.confused_pairs.to_dict("records"):
        both = [names.index(pair["class_a"]), names.index(pair["class_b"])]
        in_pair = np.isin(predictions.labels, both) & np.isin(predictions.predicted, both)
        rows = _by_confidence(results, in_pair & results.wrong)
        found.append([int(index) for index in rows[:IMAGES_PER_PAIR]])
    return found


def _by_confidence(results: Results, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-results.predictions.confidence[rows], kind="stable")]


def sheet(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, 3, S, S) side by side in one picture (rows · S, 32 · S, 3)."""
    size, rows = images.shape[-1], max(1, -(-len(images) // COLUMNS))
    places = np.zeros((rows * COLUMNS, 3, size, size), np.uint8)
    places[: len(images)] = images
    grid = places.reshape(rows, COLUMNS, 3, size, size).transpose(0, 3, 1, 4, 2)
    return grid.reshape(rows * size, COLUMNS * size, 3)


def inlined(path: Path, photos: bool) -> str:
    """The picture at `path` as a data URL; photos smaller, and with some loss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it is our own picture
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
    rgb.thumbnail((MAX_SIDE, MAX_SIDE))  # changes a larger one only
    return _webp(rgb, quality=75) if photos else _webp(rgb, lossless=True)


def _webp(picture: Image.Image, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", method=4, **options)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
