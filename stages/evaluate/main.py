"""Stage 4: score the trained network on the test split."""

import os
import shutil
from pathlib import Path

import numpy as np

from cifar100.dataset.splits import load_classes, load_split
from cifar100.results.class_maps import mapped_errors, save_class_maps
from cifar100.results.predictions import Predictions, save_predictions
from cifar100.results.scores import write_scores
from cifar100.running import cpu
from cifar100.running.outputs import FINISHED_CHECKPOINTS, check_writable
from cifar100.running.params import load
from stages.evaluate.params import EvaluateParameters
from stages.evaluate.scoring import score

MODELS = Path("models")
PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions/test.npz")
CLASS_MAPS = Path("data/predictions/class_maps.npz")
REPORTS = Path("reports")


def main() -> None:
    """Write data/predictions/, and metrics.json and the tables of scores to reports/."""
    params = load(EvaluateParameters)
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.class_activation.maps import class_maps
    from cifar100.network.device import choose_device, make_reproducible
    from cifar100.trained.inference import predict_logits
    from cifar100.trained.loading import load_model

    if "DVC_ROOT" in os.environ:  # DVC has recorded what they gave; who started it by hand, has not
        shutil.rmtree(FINISHED_CHECKPOINTS, ignore_errors=True)
    check_writable([PREDICTIONS, CLASS_MAPS, REPORTS / "metrics.json"])
    make_reproducible()
    test = load_split(PROCESSED / "test.npz")
    classes = load_classes(PROCESSED / "classes.json")
    weights, description = MODELS / "model.safetensors", MODELS / "model.json"
    paddle.set_device(choose_device(params.device))
    model = load_model(weights, description)
    logits = predict_logits(model, test.images, params.eval_batch_size, params.eval_flip)
    predictions = Predictions(logits, test.fine, model.temperature)
    scores = score(predictions, classes, params.calibration_bins)
    errors = mapped_errors(predictions)
    predicted_and_actual = np.stack([predictions.predicted[errors], test.fine[errors]], axis=1)
    maps = class_maps(model, test.images[errors], predicted_and_actual, params.eval_flip)
    save_predictions(PREDICTIONS, predictions)
    save_class_maps(CLASS_MAPS, maps, predictions)
    write_scores(scores, REPORTS)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.metrics.items())
    print(f"evaluate: {shown}")
