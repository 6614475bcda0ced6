"""Stage 5: draw the figures and the report page from what the earlier stages wrote."""

from pathlib import Path

import numpy as np

from stages.dataset.samples import SUPERCLASSES
from stages.dataset.splits import load_classes, load_split
from stages.evaluation.metrics import confusion_matrix, score, softmax
from stages.evaluation.predictions import load_predictions
from stages.figures.confusion import class_confusion, superclass_confusion, superclass_pairs
from stages.figures.curves import learning_curves
from stages.figures.gallery import confident_mistakes
from stages.figures.report import render_report
from stages.figures.style import save_figure
from stages.figures.tables import read_table
from stages.parameters.loading import load
from stages.parameters.render import RenderParameters
from stages.running.entry import run_stage
from stages.running.outputs import write_text

PROCESSED = Path("data/processed")
REPORTS = Path("reports")
FIGURES = REPORTS / "figures"
GALLERY = REPORTS / "gallery"


def main() -> None:
    """Write reports/figures/, reports/gallery/ and reports/index.html."""
    params = load(RenderParameters)
    classes = load_classes(PROCESSED / "classes.json")
    images = load_split(PROCESSED / "test.npz").images
    logits, labels = load_predictions(Path("data/predictions/test.npz"))
    history = read_table(REPORTS / "history.csv")
    per_class = read_table(REPORTS / "per_class.csv")

    coarse_of_fine = np.array(classes.coarse_of_fine)
    predicted, probabilities = logits.argmax(axis=1), softmax(logits)
    fine_counts = confusion_matrix(labels, predicted, len(classes.fine))
    coarse_counts = confusion_matrix(
        coarse_of_fine[labels], coarse_of_fine[predicted], SUPERCLASSES
    )
    charts = [
        (
            "Learning curves",
            "Shaded epochs train and validate on smaller images, so a step at their end is no "
            "error. Training images are also cropped and flipped, validation images are not.",
            FIGURES / "learning_curves.png",
            learning_curves(history),
        ),
        (
            "Superclass confusion",
            "Each row shows where the images of one superclass went. The diagonal is right.",
            FIGURES / "superclass_confusion.png",
            superclass_confusion(coarse_counts, classes.coarse),
        ),
        (
            "Class confusion",
            "Classes stand in the order of their superclass. Dark cells beside the diagonal, "
            "inside a square, are confusions of related classes.",
            FIGURES / "class_confusion.png",
            class_confusion(fine_counts, classes),
        ),
        (
            "Most confident mistakes",
            "Wrong answers that the network was most sure of: often two names fit the image.",
            GALLERY / "confident_mistakes.png",
            confident_mistakes(images, labels, probabilities, classes.fine, params.gallery_images),
        ),
    ]
    for _, _, path, figure in charts:
        save_figure(figure, path, params.figure_dpi)
    pairs = superclass_pairs(labels, predicted, classes)
    csv = pairs.to_csv(index=False, lineterminator="\n")
    write_text(FIGURES / "superclass_confusion.csv", csv)
    page = render_report(
        score(logits, labels, coarse_of_fine),
        [(title, hint, path) for title, hint, path, _ in charts],
        per_class,
        history,
    )
    write_text(REPORTS / "index.html", page)
    print(f"render: {REPORTS / 'index.html'}")


if __name__ == "__main__":
    run_stage("render", main)
