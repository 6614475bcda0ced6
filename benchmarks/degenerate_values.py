"""Time of a training step whose values are degenerate: `python -m benchmarks.degenerate_values`.

Processors may take a slow path for denormal numbers, which are too small for full precision. One
thread; the cases take turns.
"""

import argparse
import time

import numpy as np
import pandas as pd

from benchmarks.runner import depth_and_width, positive, random_images
from cifar100.running import cpu

IMAGES = 96
DENORMAL = 1e-39  # float32 has full precision from 1.2e-38
LOSS_SCALE = 1e-38  # makes the gradients of the network denormal, and few of them zero
CASES = ("ordinary", "zero variance", "denormal maps", "denormal gradients")


class Step:
    """A training step of a network in one of the cases."""

    def __init__(self, case: str, depth: int, width: int) -> None:
        import paddle

        from cifar100.network.layers import BatchNorm, Convolution
        from cifar100.network.resnet import ResNetConfig, build_resnet, weights_of

        self.network = build_resnet(ResNetConfig(depth, width), seed=0)
        self.network.train()
        for layer in self.network.sublayers():
            if case == "zero variance" and isinstance(layer, Convolution):
                layer.weight.set_value(paddle.zeros_like(layer.weight))
            if case == "denormal maps" and isinstance(layer, BatchNorm):
                layer.weight.set_value(paddle.zeros_like(layer.weight))
                layer.bias.set_value(paddle.full_like(layer.bias, DENORMAL))
        self.scale = LOSS_SCALE if case == "denormal gradients" else 1.0
        self.optimizer = paddle.optimizer.Momentum(0.0, parameters=weights_of(self.network))
        images, labels = random_images(IMAGES)
        self.images = paddle.to_tensor(images.transpose(0, 2, 3, 1))
        self.labels = paddle.to_tensor(labels)

    def backward(self) -> None:
        """Compute the gradients."""
        import paddle.nn.functional as F

        (F.cross_entropy(self.network(self.images), self.labels) * self.scale).backward()

    def run(self) -> float:
        """Take the step, which changes nothing at a learning rate of 0; return its seconds."""
        started = time.perf_counter()
        self.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        return time.perf_counter() - started


def main() -> None:
    """Print minimum, median and maximum of the milliseconds per step of each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=depth_and_width, default="resnet18-w32")
    parser.add_argument("--steps", type=positive, default=20)
    options = parser.parse_args()
    cpu.prepare(threads=1)
    steps = {case: Step(case, *options.network) for case in CASES}
    for step in steps.values():
        step.run()
    seconds = np.array([[step.run() for step in steps.values()] for _ in range(options.steps)])
    table = pd.DataFrame(seconds * 1000, columns=pd.Index(CASES)).agg(["min", "median", "max"]).T
    print(table.round(1).to_string())


if __name__ == "__main__":
    main()
