"""Stage 5: draw the figures and the report page from what the earlier stages wrote."""

from pathlib import Path

import pandas as pd

from stages.dataset.splits import load_classes, load_split
from stages.evaluation.predictions import load_predictions
from stages.figures.charts import charts
from stages.figures.confusion import superclass_pairs
from stages.figures.report import render_report
from stages.figures.results import Results
from stages.figures.style import save_figure
from stages.figures.tables import describe_training, first_filters, read_table
from stages.parameters.loading import load
from stages.parameters.render import RenderParameters
from stages.running.entry import run_stage
from stages.running.outputs import write_text

PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions/test.npz")
MODELS = Path("models")
REPORTS = Path("reports")


def main() -> None:
    """Write reports/figures/, reports/gallery/ and reports/index.html."""
    params = load(RenderParameters)
    results = Results(
        load_split(PROCESSED / "test.npz").images,
        load_predictions(PREDICTIONS),
        load_classes(PROCESSED / "classes.json"),
        read_table(REPORTS / "history.csv"),
        read_table(REPORTS / "per_class.csv"),
        first_filters(MODELS / "model.safetensors"),
        params.calibration_bins,
        params.gallery_images,
    )
    drawn = list(charts(results))
    for chart in drawn:
        save_figure(chart.figure, REPORTS / chart.file, params.figure_dpi)
    before, after = results.reliability
    tables = {
        "superclass_confusion": superclass_pairs(
            results.labels, results.predicted, results.classes
        ),
        "confused_pairs": results.pairs,
        "reliability": pd.concat([before.assign(calibrated=False), after.assign(calibrated=True)]),
    }
    for name, table in tables.items():
        csv = table.to_csv(index=False, lineterminator="\n", float_format="%.4f")
        write_text(REPORTS / f"figures/{name}.csv", csv)
    training = describe_training(
        MODELS / "model.json", read_table(MODELS / "summary.csv"), results.history
    )
    intervals = read_table(REPORTS / "intervals.csv")
    page = render_report(results, drawn, intervals, training, REPORTS)
    write_text(REPORTS / "index.html", page)
    print(f"render: {REPORTS / 'index.html'}")


if __name__ == "__main__":
    run_stage("render", main)
