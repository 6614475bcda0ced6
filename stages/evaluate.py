"""Stage 4: score the trained network on the test split."""

import shutil
from pathlib import Path

from stages.dataset.splits import load_classes, load_split
from stages.evaluation.predictions import Predictions, save_predictions
from stages.evaluation.scores import write_scores
from stages.evaluation.scoring import score
from stages.hardware import cpu
from stages.parameters.evaluate import EvaluateParameters
from stages.parameters.loading import load
from stages.running.entry import run_stage
from stages.running.outputs import check_writable

MODELS = Path("models")
PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions/test.npz")
REPORTS = Path("reports")
FINISHED = Path(".checkpoints/finished")  # last states of trainings


def main() -> None:
    """Write data/predictions/test.npz, and metrics.json and the tables of scores to reports/."""
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
    logits = predict_logits(model, test.images, params.eval_batch_size, params.eval_flip)
    predictions = Predictions(logits, test.fine, model.temperature)
    scores = score(predictions, classes, params.calibration_bins)
    save_predictions(PREDICTIONS, predictions)
    write_scores(scores, REPORTS)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.metrics.items())
    print(f"evaluate: {shown}")


if __name__ == "__main__":
    run_stage("evaluate", main)
