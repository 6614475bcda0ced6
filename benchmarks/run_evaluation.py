"""Scoring speed of this project: `python -m benchmarks.run_evaluation --network resnet18-w32`."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import CLASSES, random_images, report, runner_options
from stages.hardware import cpu
from stages.parameters.evaluate import EvaluateParameters
from stages.parameters.loading import load


def main() -> None:
    """Time what the stage evaluate calls, with the params of params.yaml.

    The start of its processes counts; each of them gets `steps` batches. There is no warm-up, as
    the processes of one call end with it.
    """
    options = runner_options(__doc__).parse_args()
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from stages.evaluation.inference import MOST_WORKERS, predict_logits
    from stages.network.resnet import ResNetConfig, build_resnet
    from stages.network.storage import save_description, save_weights

    params = load(EvaluateParameters)
    batch, flip = params.eval_batch_size, params.eval_flip
    processes = min(len(cpu.available_cores()), MOST_WORKERS)
    images, _ = random_images(options.steps * batch * processes)
    half = np.full(3, 0.5, np.float32)
    names: list[Any] = [f"class {i}" for i in range(CLASSES)]
    classes = {"fine": names, "coarse": names[:1], "coarse_of_fine": [0 for _ in names]}
    config = ResNetConfig(*options.network)
    with tempfile.TemporaryDirectory() as folder:
        weights, description = Path(folder) / "model.safetensors", Path(folder) / "model.json"
        save_weights(weights, build_resnet(config, seed=0))
        save_description(description, config, half, half, 1.0, classes, {})
        started = time.perf_counter()
        predict_logits(weights, description, images, batch, flip, "cpu")
        seconds = time.perf_counter() - started
    report(images_per_second=len(images) / seconds, precision="float32", threads=processes)


if __name__ == "__main__":
    main()
