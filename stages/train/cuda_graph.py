"""Replays the operators of a training step as one CUDA graph: the param `cuda_graph`.

Written after Paddle's source and its tests, and not run by us: we had no GPU. A graph repeats the
kernels that were launched while it was recorded, on the same memory. So each kind of batch gets a
graph of its own, and each batch is copied to where the recorded one was.
"""

from collections import Counter
from collections.abc import Callable

import paddle

from cifar100.running.errors import PipelineError
from stages.train.batches import Batch

WARM_UP = 3  # steps of a kind before its graph: what they set up once must not be recorded

Results = tuple[paddle.Tensor, paddle.Tensor]
Replay = Callable[[], None]


def check_possible(device: str, precision: str, processes: int) -> None:
    """Raise `PipelineError` where a step cannot be recorded."""
    if device != "gpu":
        reason = "this training runs on a CPU"
    elif processes > 1:
        reason = f"it is for one GPU, and these are {processes} processes"
    elif precision != "float16":
        reason = f"its batch norm is for float16, and this training is in {precision}"
    else:
        return
    raise PipelineError(f"params.yaml: cuda_graph: true was asked for, but {reason}; give false")


def record(update: Callable[[], Results]) -> tuple[Replay, Results]:
    """What repeats the kernels of `update`, and the tensors that they then fill."""
    from paddle.device.cuda.graphs import CUDAGraph

    graph = CUDAGraph()
    graph.capture_begin()
    results = update()  # launches are noted, nothing is computed
    graph.capture_end()
    return graph.replay, results


class Graphs:
    """The graphs of a training: one for each kind of batch at the present size of the images."""

    def __init__(self, record: Callable[[Callable[[], Results]], tuple[Replay, Results]]) -> None:
        self.record = record
        self.size = 0
        self.steps: Counter[tuple[paddle.dtype, bool]] = Counter()
        self.graphs: dict[tuple[paddle.dtype, bool], tuple[Batch, Replay, Results]] = {}

    def run(self, update: Callable[[Batch], Results], batch: Batch, size: int) -> Results:
        """Do what `update(batch)` does; its results hold until the next call."""
        if size != self.size:  # the graphs of another size go, and their memory
            self.size, self.steps, self.graphs = size, Counter(), {}
        kind = batch.images.dtype, batch.mixed_labels is not None
        self.steps[kind] += 1
        if self.steps[kind] <= WARM_UP:
            return update(batch)
        if kind not in self.graphs:
            given = Batch(*(tensor.clone() for tensor in _tensors(batch)))
            self.graphs[kind] = given, *self.record(lambda: update(given))
        given, replay, results = self.graphs[kind]
        for old, new in zip(_tensors(given), _tensors(batch), strict=True):
            old.copy_(new, False)  # without waiting for the device
        replay()
        return results


def _tensors(batch: Batch) -> list[paddle.Tensor]:
    """All that differs between two batches of a kind, in the order of `Batch`."""
    if batch.mixed_labels is None:
        return [batch.images, batch.labels]
    ratio = batch.ratio
    if not isinstance(ratio, paddle.Tensor):
        ratio = paddle.full([], ratio)  # filled on the device, not copied to it
    return [batch.images, batch.labels, batch.mixed_labels, ratio]
