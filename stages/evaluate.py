"""Stage 4: score the trained network on the test split."""

import json
from pathlib import Path

import numpy as np

from stages.dataset.splits import load_classes, load_split
from stages.evaluation.metrics import expected_calibration_error, score, softmax
from stages.evaluation.predictions import class_table, save_predictions
from stages.hardware import cpu
from stages.parameters.evaluate import EvaluateParameters
from stages.parameters.loading import load
from stages.running.entry import run_stage
from stages.running.outputs import write_text

MODELS = Path("models")
PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions/test.npz")
REPORTS = Path("reports")


def main() -> None:
    """Write data/predictions/test.npz, reports/metrics.json and per_class.csv."""
    params = load(EvaluateParameters)
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from stages.evaluation.inference import predict_logits
    from stages.hardware.device import choose_device, make_reproducible

    make_reproducible()
    test = load_split(PROCESSED / "test.npz")
    classes = load_classes(PROCESSED / "classes.json")
    logits = predict_logits(
        MODELS / "model.safetensors",
        MODELS / "model.json",
        test.images,
        params.eval_batch_size,
        params.eval_flip,
        choose_device("auto"),
    )
    metrics = score(logits, test.fine, np.array(classes.coarse_of_fine))
    metrics["calibration_error"] = expected_calibration_error(
        softmax(logits), test.fine, params.calibration_bins
    )
    table = class_table(logits, test.fine, classes)
    save_predictions(PREDICTIONS, logits, test.fine)
    csv = table.to_csv(index=False, lineterminator="\n", float_format="%.4f")
    write_text(REPORTS / "per_class.csv", csv)
    rounded = {name: round(value, 5) for name, value in metrics.items()}
    write_text(REPORTS / "metrics.json", json.dumps(rounded, indent=1) + "\n")
    print("evaluate: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    run_stage("evaluate", main)
