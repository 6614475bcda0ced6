"""Training speed of Paddle as installed: `python -m benchmarks.run_paddle_stock --network …`.

`paddle.Model.fit` in the dynamic graph, one process, no setting of threads, BLAS or allocator.
Paddle's flags can come from the environment: `FLAGS_use_onednn=True python -m …`.
"""

import os
import time

import numpy as np
import paddle
from numpy.typing import NDArray

from benchmarks.runner import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    random_inputs,
    report,
    runner_options,
)
from benchmarks.stock_resnet import stock_resnet


class ReadyImages(paddle.io.Dataset):
    """Images (3, 32, 32) with their labels, normalised and in memory."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.images, self.labels = random_inputs(count)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One image and its label."""
        return self.images[index], self.labels[index : index + 1]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)


class Clock(paddle.callbacks.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, step: int, logs: dict[str, float] | None = None) -> None:
        """Called by `fit`, which has read the loss by then."""
        self.ends.append(time.perf_counter())


def main() -> None:
    """Time the steps of one epoch of `fit`, without the first ones."""
    options = runner_options(__doc__).parse_args()
    paddle.set_device("cpu")
    model = paddle.Model(stock_resnet(*options.network))
    optimizer = paddle.optimizer.Momentum(
        LEARNING_RATE,
        MOMENTUM,
        parameters=model.parameters(),
        use_nesterov=True,
        weight_decay=WEIGHT_DECAY,
    )
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    clock = Clock()
    images = ReadyImages((options.warmup + options.steps) * BATCH_SIZE)
    model.fit(images, batch_size=BATCH_SIZE, epochs=1, verbose=0, callbacks=[clock])
    seconds = clock.ends[-1] - clock.ends[options.warmup - 1]
    report(
        images_per_second=options.steps * BATCH_SIZE / seconds,
        precision="float32",
        threads=int(os.environ["OMP_NUM_THREADS"]),  # Paddle sets it to 1 when it is imported
        onednn=paddle.get_flags("FLAGS_use_onednn")["FLAGS_use_onednn"],
        paddle=paddle.__version__,
    )


if __name__ == "__main__":
    main()
