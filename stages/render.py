"""Stage 5: draw the figures and the report page from what the earlier stages wrote."""

from pathlib import Path

from stages.dataset.splits import load_classes, load_split
from stages.evaluation.predictions import load_predictions
from stages.evaluation.scores import read_scores
from stages.evaluation.tables import HISTORY, SUMMARY, read_table
from stages.figures.charts import charts
from stages.figures.report import render_report
from stages.figures.results import Results
from stages.figures.style import save_figure
from stages.figures.training import describe_training, first_filters
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
        read_scores(REPORTS),
        read_table(HISTORY, REPORTS),
        first_filters(MODELS / "model.safetensors"),
        params.gallery_images,
    )
    training = describe_training(
        MODELS / "model.json", read_table(SUMMARY, MODELS), results.history
    )
    drawn = list(charts(results))
    for chart in drawn:
        save_figure(chart.figure, REPORTS / chart.file, params.figure_dpi)
    write_text(REPORTS / "index.html", render_report(results, drawn, training, REPORTS))
    print(f"render: {REPORTS / 'index.html'}")


if __name__ == "__main__":
    run_stage("render", main)
