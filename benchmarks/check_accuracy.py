"""Scores models/ on the test images with PyTorch alone: is the top-1 in reports/ true?

`.venv-bench/bin/python -m benchmarks.check_accuracy`, after `make repro`. Nothing of the pipeline's
own code takes part: neither its network, nor its reader of weights, nor its scores.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.runner import BLOCKS_PER_GROUP, BOTTLENECK_DEPTHS
from benchmarks.torch_resnet import torch_resnet

MODELS = Path("models")
TEST = Path("data/processed/test.npz")
METRICS = Path("reports/metrics.json")
PARAMS = Path("params.yaml")
MAX_DIFFERENCE = 0.0002
BATCH = 250

NAMES = (
    (r"^stem\.", ""),
    (r"shortcut", "downsample"),
    (r"\._mean$", ".running_mean"),
    (r"\._variance$", ".running_var"),
)


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays in a safetensors file: a length, a header in JSON, then the bytes."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        array = np.frombuffer(content[start + first : start + last], "<f4")
        arrays[name] = array.reshape(entry["shape"])
    return arrays


def load_network(description: dict[str, Any], tensors: dict[str, Any]) -> torch.nn.Module:
    """The network in PyTorch, with the weights under PyTorch's names."""
    depth = description["depth"]
    if depth not in BLOCKS_PER_GROUP or description["stem"] != "cifar":
        known = ", ".join(map(str, BLOCKS_PER_GROUP))
        sys.exit(
            f"error: check-accuracy: {MODELS}: the PyTorch network has the depths {known} and "
            "stem: cifar only"
        )
    network = torch_resnet(depth, description["width"])
    blocks: dict[str, int] = {}
    state = {}
    for name in sorted(tensors, key=lambda name: [int(n) for n in re.findall(r"\d+", name)[:2]]):
        renamed, values = name, torch.from_numpy(tensors[name].copy())
        block = re.match(r"groups\.(\d+\.\d+)", name)
        if block:
            number = 3 + blocks.setdefault(block[1], len(blocks))
            renamed = renamed.replace(block[0], str(number))
        renamed = renamed.replace("last_norm", "norm3" if depth in BOTTLENECK_DEPTHS else "norm2")
        for pattern, replacement in NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        if name.startswith("classifier"):
            renamed = renamed.replace("classifier", str(len(network) - 1))
            values = values.T if values.ndim == 2 else values
        state[renamed] = values
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [*(name for name in missing if "num_batches" not in name), *unexpected]
    if wrong:
        sys.exit(f"error: check-accuracy: {MODELS}: does not fit the PyTorch network: {wrong[0]}")
    return network.eval()


def main() -> None:
    """Print both accuracies; exit with 1 if they differ by more than 0.0002."""
    missing = [path for path in (MODELS / "model.json", TEST, METRICS) if not path.is_file()]
    if missing:
        sys.exit(f"error: check-accuracy: {missing[0]}: not found; run `make repro`")
    description = json.loads((MODELS / "model.json").read_text(encoding="utf-8"))
    tensors = read_safetensors(MODELS / "model.safetensors")
    mean, std = (
        torch.from_numpy(tensors.pop(name).copy()).reshape(1, 3, 1, 1) for name in ("mean", "std")
    )
    network = load_network(description["network"], tensors)
    with np.load(TEST, allow_pickle=False) as stored:
        images, labels = torch.from_numpy(stored["images"]), torch.from_numpy(stored["fine"])
    flip = re.search(r"(?m)^eval_flip: true", PARAMS.read_text(encoding="utf-8")) is not None
    right = 0
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            inputs = (images[start : start + BATCH] / 255 - mean) / std
            logits = network(inputs)
            if flip:
                logits = logits + network(inputs.flip(3))
            right += int((logits.argmax(1) == labels[start : start + BATCH]).sum())
    found = right / len(images)
    expected = json.loads(METRICS.read_text(encoding="utf-8"))["top1"]
    print(f"check-accuracy: top-1 {found:.4f} by PyTorch, {expected:.4f} in {METRICS}")
    if abs(found - expected) > MAX_DIFFERENCE:
        sys.exit(f"error: check-accuracy: they differ by more than {MAX_DIFFERENCE}")


if __name__ == "__main__":
    main()
