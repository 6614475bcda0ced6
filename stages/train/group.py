"""The processes that train one network together: one alone, or several through Paddle's groups."""

import contextlib
import io
import os
from collections import Counter

import numpy as np
import paddle
import paddle.distributed as dist
from numpy.typing import NDArray

from stages.train.links import check_interfaces, own_interface
from stages.train.rendezvous import Facts, Watch


class Alone:
    """A training in one process: there is nobody to share with."""

    rank, size = 0, 1
    description: dict[str, str | int] = {}  # noqa: RUF012

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

    All of them must call the same methods in the same order. description: how many there are, and
    on which processors: a result depends on both.
    """

    def __init__(self, rank: int, size: int, description: dict[str, str | int]) -> None:
        self.rank, self.size, self.description = rank, size, description

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


def join(watch: Watch | None, facts: Facts, machine: dict[str, str | int]) -> Group:
    """`Alone`, or with a watch the group of all processes of the launch, once all are there.

    facts: what has to be the same in all processes, by name · machine: what computes here; device,
    precision and library have to be the same. Sets what Paddle's groups read from the environment.
    Raises `PipelineError` if a process does not come, or differs, or a network interface that the
    user names is not there.
    """
    if watch is None or watch.place.size == 1:
        return Alone()
    check_interfaces()
    place = watch.place
    host = place.endpoints[0].rpartition(":")[0]
    same = {key: str(machine[key]) for key in ("device", "precision", "library")}
    port, machines = watch.barrier(facts | same, machine)
    on_cpu = machine["device"] == "cpu"
    interface = own_interface(place.endpoints[place.rank].rpartition(":")[0])
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if interface is not None:  # gloo would take what the name of the host stands for
            os.environ.setdefault(variable, interface)
    os.environ |= {
        "PADDLE_TRAINER_ID": str(place.rank),
        "PADDLE_TRAINERS_NUM": str(place.size),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(place.endpoints),
        "PADDLE_CURRENT_ENDPOINT": place.endpoints[place.rank],
        "PADDLE_MASTER": f"{host}:{port}",
        "PADDLE_DISTRI_BACKEND": "gloo" if on_cpu else "nccl",
        "FLAGS_selected_gpus": str(place.gpu),
    }
    with contextlib.redirect_stderr(io.StringIO()):  # it lists the flags that Paddle itself sets
        dist.init_parallel_env()
    kinds = Counter(f"{each['instruction_set']}, {each['threads']} threads" for each in machines)
    described = "; ".join(f"{count} × {kind}" for kind, count in kinds.items())
    return Distributed(place.rank, place.size, {"processes": place.size, "machines": described})
