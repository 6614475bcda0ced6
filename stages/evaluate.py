"""Stage 4: score the trained network on the test split."""

import json
import shutil
from pathlib import Path

import numpy as np

from stages.dataset.splits import load_classes, load_split
from stages.evaluation.intervals import interval_table
from stages.evaluation.metrics import (
    errors_in_superclass,
    expected_calibration_error,
    scores_per_image,
    softmax,
)
from stages.evaluation.predictions import Predictions, class_table, save_predictions
from stages.hardware import cpu
from stages.parameters.evaluate import EvaluateParameters
from stages.parameters.loading import load
from stages.running.entry import run_stage
from stages.running.outputs import check_writable, write_text

MODELS = Path("models")
PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions/test.npz")
REPORTS = Path("reports")
FINISHED = Path(".checkpoints/finished")  # last states of trainings


def main() -> None:
    """Write data/predictions/test.npz, reports/metrics.json, per_class.csv and intervals.csv."""
    params = load(EvaluateParameters)
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from stages.evaluation.inference import predict_logits
    from stages.hardware.device import choose_device, make_reproducible
    from stages.network.storage import load_model

    shutil.rmtree(FINISHED, ignore_errors=True)  # DVC has recorded what they gave
    check_writable([PREDICTIONS, REPORTS / "metrics.json"])
    make_reproducible()
    test = load_split(PROCESSED / "test.npz")
    classes = load_classes(PROCESSED / "classes.json")
    weights, description = MODELS / "model.safetensors", MODELS / "model.json"
    paddle.set_device(choose_device(params.device))
    model = load_model(weights, description)
    temperature = model.temperature
    logits = predict_logits(model, test.images, params.eval_batch_size, params.eval_flip)
    scores = scores_per_image(logits, test.fine, np.array(classes.coarse_of_fine))
    metrics = {name: values.mean() for name, values in scores.items()}
    metrics["errors_in_superclass"] = errors_in_superclass(scores)
    for name, divisor in (("calibration_error", 1.0), ("calibrated_error", temperature)):
        metrics[name] = expected_calibration_error(
            softmax(logits / divisor), test.fine, params.calibration_bins
        )
    save_predictions(PREDICTIONS, Predictions(logits, test.fine, temperature))
    tables = {
        "per_class.csv": class_table(logits, test.fine, classes),
        "intervals.csv": interval_table(scores),
    }
    for name, table in tables.items():
        csv = table.to_csv(index=False, lineterminator="\n", float_format="%.4f")
        write_text(REPORTS / name, csv)
    rounded = {name: round(float(value), 5) for name, value in metrics.items()}
    write_text(REPORTS / "metrics.json", json.dumps(rounded, indent=1) + "\n")
    print("evaluate: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    run_stage("evaluate", main)
