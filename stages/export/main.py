"""Stage 6: write the trained network as ONNX and for Paddle Inference, and a card about it."""

import json
import shutil
import tempfile
from pathlib import Path

from cifar100.dataset.splits import load_split
from cifar100.results.scores import read_metrics
from cifar100.results.tables import HISTORY, INTERVALS, PER_CLASS, SUMMARY, read_table
from cifar100.running import cpu
from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import replacing, write_text

MODELS = Path("models")
INFERENCE = MODELS / "inference"
REPORTS = Path("reports")
TEST = Path("data/processed/test.npz")
CHECKED_IMAGES = 256
# What Paddle raises for a file that it cannot write, read or understand
PADDLE_ERRORS = RuntimeError, ValueError, IndexError, OSError, SystemError


def main() -> None:
    """Write models/model.onnx, models/inference/ and models/README.md."""
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.network.inference import predict_logits
    from cifar100.network.storage import load_model
    from stages.export.inference_program import program_logits, save_program
    from stages.export.model_card import model_card
    from stages.export.onnx_check import largest_difference, onnx_logits
    from stages.export.onnx_graph import onnx_model

    paddle.set_device("cpu")  # GPUs round products of float32 by default, which ONNX does not
    weights, description = MODELS / "model.safetensors", MODELS / "model.json"
    model = load_model(weights, description)
    images = load_split(TEST).images[:CHECKED_IMAGES]
    expected = predict_logits(model, images, len(images), flip=False)

    exported = onnx_model(model).SerializeToString(deterministic=True)
    difference = largest_difference(onnx_logits(exported, images), expected, "model.onnx")
    with replacing(MODELS / "model.onnx") as temporary:
        temporary.write_bytes(exported)

    with tempfile.TemporaryDirectory(dir=MODELS) as name:
        program, old = Path(name) / "new", Path(name) / "old"
        program.mkdir()
        try:
            save_program(model, program)
            found = program_logits(program, images)
        except PADDLE_ERRORS as error:  # Paddle does not notice that a disk is full when it writes
            raise PipelineError(
                f"{INFERENCE}: Paddle cannot read what it wrote ({reason_of(error)}); "
                f"the disk has {shutil.disk_usage(MODELS).free:,} bytes free"
            ) from None
        program_difference = largest_difference(found, expected, "inference/")
        if INFERENCE.exists():  # renamed, not deleted: what has this name is whole at any moment
            INFERENCE.rename(old)
        program.rename(INFERENCE)

    card = model_card(
        json.loads(description.read_text(encoding="utf-8")),
        int(read_table(SUMMARY, MODELS)["parameters"].iloc[-1]),
        read_table(HISTORY, REPORTS),
        read_metrics(REPORTS),
        read_table(INTERVALS, REPORTS),
        read_table(PER_CLASS, REPORTS),
        difference,
    )
    write_text(MODELS / "README.md", card)
    print(
        f"export: largest difference of the logits of {len(images)} images: "
        f"ONNX {difference:.1g}, Paddle Inference {program_difference:.1g}"
    )
