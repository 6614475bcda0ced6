"""Stage 5: draw the figures and the report page from what the earlier stages wrote."""

from pathlib import Path

import numpy as np

from cifar100.dataset.splits import load_classes, load_split
from cifar100.results.class_maps import load_class_maps
from cifar100.results.predictions import load_predictions
from cifar100.results.scores import read_scores
from cifar100.results.tables import HISTORY, SUMMARY, read_table
from cifar100.running.errors import PipelineError
from cifar100.running.outputs import write_text
from cifar100.running.params import load
from stages.render.charts import charts
from stages.render.params import RenderParameters
from stages.render.report import render_report
from stages.render.results import Results
from stages.render.style import save_figure
from stages.render.training import describe_training, first_filters

PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions/test.npz")
CLASS_MAPS = Path("data/predictions/class_maps.npz")
MODELS = Path("models")
REPORTS = Path("reports")


def main() -> None:
    """Write reports/figures/, reports/gallery/ and reports/index.html."""
    params = load(RenderParameters)
    test, predictions = load_split(PROCESSED / "test.npz"), load_predictions(PREDICTIONS)
    if not np.array_equal(test.fine, predictions.labels):
        raise PipelineError(
            f"{PREDICTIONS}: of other images than {PROCESSED / 'test.npz'}; run `dvc repro`"
        )
    results = Results(
        test.images,
        predictions,
        load_classes(PROCESSED / "classes.json"),
        read_scores(REPORTS),
        read_table(HISTORY, REPORTS),
        first_filters(MODELS / "model.safetensors"),
        load_class_maps(CLASS_MAPS, predictions),
        params.gallery_images,
    )
    training = describe_training(
        MODELS / "model.json", read_table(SUMMARY, MODELS), results.history
    )
    drawn = list(charts(results, training))
    for chart in drawn:
        save_figure(chart.figure, REPORTS / chart.file, params.figure_dpi)
    write_text(REPORTS / "index.html", render_report(results, drawn, training, REPORTS))
    print(f"render: {REPORTS / 'index.html'}")
