"""Stage 6: write the trained network in other formats, and a card about it."""

from pathlib import Path

from cifar100.dataset.splits import load_split
from cifar100.running import cpu
from cifar100.running.outputs import write_text

MODELS = Path("models")
REPORTS = Path("reports")
TEST = Path("data/processed/test.npz")
CHECKED_IMAGES = 256


def main() -> None:
    """Write to models/: model.onnx, inference/, two files of weights, and README.md."""
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.trained.inference import predict_logits
    from cifar100.trained.loading import load_model
    from stages.export.float16_weights import write_float16
    from stages.export.inference_program import write_program
    from stages.export.model_card import model_card
    from stages.export.onnx_graph import write_onnx
    from stages.export.paddle_weights import write_weights

    paddle.set_device("cpu")  # so that no free GPU is needed
    model = load_model(MODELS / "model.safetensors", MODELS / "model.json")
    images = load_split(TEST).images[:CHECKED_IMAGES]
    expected = predict_logits(model, images, len(images), flip=False)

    onnx = write_onnx(MODELS / "model.onnx", model, images, expected)
    program = write_program(MODELS / "inference", model, images, expected)
    write_weights(MODELS / "model.pdparams", model.network)
    write_float16(MODELS / "model.float16.safetensors", model.network)
    write_text(MODELS / "README.md", model_card(MODELS, REPORTS, onnx))
    print(
        f"export: largest difference of the logits of {len(images)} images: "
        f"ONNX {onnx:.1g}, Paddle Inference {program:.1g}"
    )
