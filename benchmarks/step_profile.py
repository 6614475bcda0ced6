"""Where the time of a step goes: `python -m benchmarks.step_profile --network resnet18-w64`.

Each call of a oneDNN primitive is timed, which costs little; the rest of the step is what Paddle,
NumPy and Python take.
"""

import time
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.run_project import DEVICE, benchmark_params
from benchmarks.runner import random_images, runner_options
from cifar100.dataset.samples import Samples
from cifar100.running import cpu

IMAGES = 4000
KINDS = {  # of primitives, by the beginning of their names, in the order of the table
    "convolution_backward_weights": "convolution, gradient of the weights",
    "convolution_backward_data": "convolution, gradient of the input",
    "convolution_forward": "convolution, forward",
    "batch_normalization_backward": "batch norm, backward",
    "batch_normalization_forward": "batch norm, forward",
    "reorder": "copies into another order or type, side by side among them",
    "binary": "sums and ReLU",
    "eltwise": "sums and ReLU",
    "pooling": "pooling",
}
REST = "optimizer, loss, augmentation, memory, Python"


def main() -> None:
    """Print the milliseconds of a step by kind, with their shares; means over the timed steps."""
    options = runner_options(__doc__).parse_args()
    cpu.prepare(cpu.choose_threads("auto"))
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    from cifar100.network.device import choose_precision
    from cifar100.network.onednn.binding import Primitive
    from stages.train.batches import DeviceImages, EpochPlan
    from stages.train.group import Alone
    from stages.train.state import TrainingState
    from stages.train.step import train_step

    seconds: dict[str, float] = defaultdict(float)
    create, execute = Primitive.__init__, Primitive.__call__

    def named(self: Any, name: str, *arguments: Any) -> None:
        create(self, name, *arguments)
        self.kind = next(kind for prefix, kind in KINDS.items() if name.startswith(prefix))

    def timed(self: Any, *addresses: int) -> None:
        started = time.perf_counter()
        execute(self, *addresses)
        seconds[self.kind] += time.perf_counter() - started

    Primitive.__init__, Primitive.__call__ = named, timed  # type: ignore[method-assign]
    params = benchmark_params(*options.network)
    images, labels = random_images(IMAGES)
    names = np.array([b""] * IMAGES)
    data = Samples(images, labels, np.zeros(IMAGES, np.int64), names)
    precision = choose_precision("auto", DEVICE)
    state = TrainingState.initial(params, data, DEVICE, precision, Alone())
    plan = EpochPlan(DeviceImages(data), params, 0, Alone())
    state.network.train()
    for step in range(options.warmup + options.steps):
        if step == options.warmup:
            seconds.clear()
            started = time.perf_counter()
        state.add(*train_step(state, plan.batch(step % state.steps), params.lr, Alone()))
    seconds[REST] = time.perf_counter() - started - sum(seconds.values())
    rows = [(kind, seconds[kind]) for kind in dict.fromkeys([*KINDS.values(), REST])]
    table = pd.DataFrame(rows, columns=["what", "ms"])
    table["ms"] *= 1000 / options.steps
    table["share"] = (table["ms"] / table["ms"].sum()).map("{:.0%}".format)
    print(f"ResNet-{params.depth}, width {params.width}, {precision}, batch {params.batch_size}")
    print(table[table["ms"] > 0].to_string(index=False, float_format="{:.1f}".format))


if __name__ == "__main__":
    main()
