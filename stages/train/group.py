"""The processes that train one network together: one alone, or several through Paddle's groups."""

import os

import numpy as np
import paddle
import paddle.distributed as dist
from numpy.typing import NDArray


class Alone:
    """A training in one process: there is nobody to share with."""

    rank, size = 0, 1

    def mean(self, tensors: list[paddle.Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in place."""

    def total(self, values: list[float]) -> list[float]:
        """The sum of each value over all processes, the same in each process."""
        return values

    def gather(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The arrays (N,) of all processes, (size, N), the same in each process."""
        return values[None]

    def broadcast(self, tensors: list[paddle.Tensor]) -> None:
        """Replace each tensor by that of the process with rank 0, in place."""


class Distributed:
    """One of several processes, each with its own GPU, or on CPUs with its own cores.

    All of them must call the same methods in the same order.
    """

    def __init__(self) -> None:
        dist.init_parallel_env()
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def mean(self, tensors: list[paddle.Tensor]) -> None:
        """See `Alone`; one exchange for all tensors, which have to be of one number format."""
        flat = paddle.concat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([tensor.size for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.set_value(part.reshape(tensor.shape))

    def total(self, values: list[float]) -> list[float]:
        """See `Alone`."""
        tensor = paddle.to_tensor(values, dtype="float64")
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.numpy()]

    def gather(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Alone`."""
        tensors: list[paddle.Tensor] = []
        dist.all_gather(tensors, paddle.to_tensor(values))
        return np.stack([tensor.numpy() for tensor in tensors])

    def broadcast(self, tensors: list[paddle.Tensor]) -> None:
        """See `Alone`."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


Group = Alone | Distributed


def join() -> Group:
    """The group of this process: `Alone`, or what `python -m paddle.distributed.launch` started.

    The only place that reads from the environment how many processes there are. Tests run several
    on one machine's CPU; several GPUs or machines were not at hand.
    """
    return Distributed() if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1 else Alone()
