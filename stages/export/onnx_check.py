"""Runs an ONNX model, to compare it with the network that it was made from."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cifar100.running.errors import PipelineError

MAX_DIFFERENCE = 1e-3  # between logits


def onnx_logits(model: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (N, classes) of images (N, 3, 32, 32) by onnxruntime on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images})
    return np.asarray(logits)


def largest_difference(
    found: NDArray[np.float32], expected: NDArray[np.float32], name: str
) -> float:
    """The largest difference between two arrays of logits; `PipelineError` if it is over 0.001."""
    difference = float(np.abs(found - expected).max())
    if not difference <= MAX_DIFFERENCE:
        raise PipelineError(
            f"{name}: its logits differ by up to {difference:.2g} from those of the network; "
            f"expected at most {MAX_DIFFERENCE:g}"
        )
    return difference
