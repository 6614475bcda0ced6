"""Puts the network of the last run into pretrained/, for Git: `python -m tools.publish`.

What goes there is model.float16.safetensors and model.json as dvc.lock has them, so that
`python -m tools.check_lock` can prove that they are the locked network's, and a card that says what
rounding changes.
"""

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import Any

from cifar100.dataset.splits import load_classes, load_split
from cifar100.model_folder import MODELS, PRETRAINED
from cifar100.results.predictions import Predictions
from cifar100.results.scores import read_metrics
from cifar100.results.tables import HISTORY, INTERVALS, PER_CLASS, SUMMARY, read_table
from cifar100.running import cpu
from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.outputs import replacing, write_text
from cifar100.running.params import load, read_mapping
from stages.evaluate.params import EvaluateParameters
from stages.export.model_card import model_card

REPORTS = Path("reports")
PROCESSED = Path("data/processed")
METRICS_FILE = REPORTS / "metrics.json"
READ_BY_CARD = [
    METRICS_FILE,
    MODELS / SUMMARY.name,
    *(REPORTS / schema.name for schema in (HISTORY, INTERVALS, PER_CLASS)),
]
# The files of pretrained/ that are copies, and what of
COPIES = {
    PRETRAINED / "model.safetensors": MODELS / "model.float16.safetensors",
    PRETRAINED / "model.json": MODELS / "model.json",
}
CARD = PRETRAINED / "README.md"
MAX_BYTES = 25 * 10**6
MAX_IMAGES = 5  # fewer or more that are predicted correctly after rounding


def main() -> None:
    """Write pretrained/, or refuse: for another network than that of dvc.lock, or a worse one."""
    argparse.ArgumentParser(prog="python -m tools.publish", description=__doc__).parse_args()
    weights, description = COPIES.values()
    check_locked([weights, description, PROCESSED / "test.npz", *READ_BY_CARD])
    size = weights.stat().st_size
    if size > MAX_BYTES:
        raise PipelineError(
            f"{weights}: {size / 1e6:.1f} MB; expected at most {MAX_BYTES / 1e6:.0f}, for Git"
        )
    before, after = read_metrics(REPORTS)["top1"], measure(weights, description)
    if round(abs(after - before), 5) > largest_change():
        raise PipelineError(
            f"{weights}: rounding changes top-1 from {before:.4f} to {after:.4f}; "
            f"expected at most {MAX_IMAGES} images more or less"
        )
    card = model_card(MODELS, REPORTS, float16_top1=after)
    for target, source in COPIES.items():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    write_text(CARD, card)
    print(
        f"publish: {PRETRAINED}/: {size / 1e6:.1f} MB of weights; top-1 {before:.4f}, "
        f"rounded to float16 {after:.4f}; commit it together with dvc.lock"
    )


def largest_change() -> float:
    """By how much rounding may change top-1 on the test images. Raises `PipelineError`."""
    return round(MAX_IMAGES / int(read_table(PER_CLASS, REPORTS)["images"].sum()), 5)


def check_locked(paths: list[Path]) -> None:
    """Raise `PipelineError` unless dvc.lock records these files as they are."""
    locked = locked_hashes(read_mapping(Path("dvc.lock")))
    for path in paths:
        if not path.exists() or md5_of(path.read_bytes()) != locked.get(path.as_posix()):
            raise PipelineError(
                f"{path}: not there, or not the one that dvc.lock has; run `dvc repro`"
            )


def locked_hashes(lock: dict[str, Any]) -> dict[str, str]:
    """The md5 of each output in a dvc.lock; of a user's stage it may have another kind of hash."""
    outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def md5_of(content: bytes) -> str:
    """The hash by which DVC knows a file with this content."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def measure(weights: Path, description: Path) -> float:
    """Top-1 on the test images by these weights, computed as the stage evaluate does."""
    params = load(EvaluateParameters)
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.network.device import choose_device, make_reproducible
    from cifar100.trained.inference import predict_logits
    from cifar100.trained.loading import load_model
    from stages.evaluate.scoring import score

    make_reproducible()
    paddle.set_device(choose_device(params.device))
    model = load_model(weights, description)
    test, classes = load_split(PROCESSED / "test.npz"), load_classes(PROCESSED / "classes.json")
    logits = predict_logits(model, test.images, params.eval_batch_size, params.eval_flip)
    predictions = Predictions(logits, test.fine, model.temperature)
    return round(score(predictions, classes, params.calibration_bins).metrics["top1"], 5)


if __name__ == "__main__":
    run_command("publish", main)
