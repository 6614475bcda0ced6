"""Runs one training function in several processes, one per GPU or per share of the CPU cores."""

import contextlib
import ctypes
import io
import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from numpy.typing import NDArray

from stages.hardware import cpu
from stages.hardware.device import gpu_count
from stages.running.errors import PipelineError
from stages.training import exchange

SMALLEST_SHARE = 32  # images: batch norm takes its statistics from a worker's share of the batch

_exchange: exchange.Exchange | None = None  # of this process, if it is one of several on a CPU


def count_workers(wanted: int | str, device: str, batch_size: int) -> int:
    """The number of processes: `wanted`, or for `auto` what the machine and the batch allow.

    `auto` is the largest number of GPUs or cores that shares the batch equally, with at least 32
    images for each. Raises `PipelineError` if more are wanted than the machine has.
    """
    units = gpu_count() if device == "gpu" else len(cpu.available_cores())
    unit = "GPUs" if device == "gpu" else "cores"
    if isinstance(wanted, int):
        if wanted > units:
            raise PipelineError(
                f"params.yaml: workers: {wanted} was asked for, but this machine has {units} "
                f"{unit}; give at most that, or auto"
            )
        return wanted
    if device == "cpu" and not sys.platform.startswith("linux"):
        return 1  # the CPU wheels for other systems have no gloo
    most = max(1, min(units, batch_size // SMALLEST_SHARE))
    return next(n for n in range(most, 0, -1) if batch_size % n == 0)


def threads_of(workers: int) -> int:
    """The number of BLAS threads in each of so many processes."""
    return max(1, len(cpu.available_cores()) // workers)


def run_workers(function: Callable[..., None], job: Any, workers: int, device: str) -> None:
    """Call `function(job)` in `workers` processes and wait; with one, call it in this process.

    If a worker fails the others are ended, and its reason is raised here as `PipelineError`.
    """
    threads = threads_of(workers)
    if workers == 1:
        paddle.base.core.set_num_threads(threads)
        function(job)
        return
    cpu.set_threads(threads)  # the new processes read it from the environment
    backend = "nccl" if device == "gpu" else "gloo"
    logging.getLogger("root").setLevel(logging.WARNING)  # Paddle's, which announces free ports
    memory = exchange.create(workers) if device == "cpu" else None
    try:
        dist.spawn(
            _start,
            args=(function, job, memory and memory.name),
            nprocs=workers,
            daemon=True,
            backend=backend,
        )
    except Exception as error:  # spawn raises bare `Exception` with the traceback of the worker
        raise PipelineError(_reason(str(error))) from None
    finally:
        for worker in multiprocessing.active_children():
            worker.terminate()  # some are left if this process was interrupted
        if memory is not None:
            memory.close()
            memory.unlink()


def _start(function: Callable[..., None], job: Any, memory: str | None) -> None:
    global _exchange
    _end_with_parent()
    if memory is not None:
        cpu.keep_memory()
        cpu.pin(worker_rank(), worker_count())
        _exchange = exchange.Exchange(memory, worker_rank(), worker_count())
    paddle.disable_signal_handler()  # which prints a page when this worker is told to end
    with contextlib.redirect_stderr(io.StringIO()):  # it lists flags that Paddle itself has set
        dist.init_parallel_env()
    function(job)


def _end_with_parent() -> None:
    """Have the system kill this process when the one that started it is gone, however that ended.

    Several workers there are on Linux alone; see `prctl(2)`.
    """
    kill_at_death, parent = 1, multiprocessing.parent_process()
    ctypes.CDLL(None).prctl(kill_at_death, signal.SIGKILL)
    if parent is not None and os.getppid() != parent.pid:  # it was gone before
        os._exit(1)


def worker_rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("PADDLE_TRAINER_ID", 0))


def worker_count() -> int:
    """The number of processes in this training."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


def total(values: list[float]) -> list[float]:
    """The sums of each value over all workers, the same in each worker."""
    if worker_count() == 1:
        return values
    tensor = paddle.to_tensor(values, dtype="float64")
    dist.all_reduce(tensor)
    return [float(value) for value in tensor.numpy()]


def gather(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The arrays (N,) of all workers, (workers, N), the same in each worker."""
    if worker_count() == 1:
        return values[None]
    tensors: list[paddle.Tensor] = []
    dist.all_gather(tensors, paddle.to_tensor(values))
    return np.stack([tensor.numpy() for tensor in tensors])


def average_over_workers(tensors: list[paddle.Tensor]) -> None:
    """Replace each tensor by its mean over all workers, in place."""
    if _exchange is not None:
        arrays: list[Any] = [np.from_dlpack(tensor.detach()) for tensor in tensors]
        _exchange.average(arrays)
    elif worker_count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor.set_value(tensor / worker_count())


def _reason(traceback: str) -> str:
    """The last line of a worker's traceback, as far as it says something to users."""
    lines = [line.strip() for line in traceback.splitlines() if line.strip()]
    last = lines[-1] if lines else "no reason given"
    marker = f"{PipelineError.__module__}.{PipelineError.__qualname__}: "
    if last.startswith(marker):
        return last.removeprefix(marker)
    killed = re.search(r"Process (\d+) terminated with signal (\w+)", last)
    if killed:
        return (
            f"worker {killed[1]} was ended by {killed[2]}, perhaps for lack of memory; "
            "start the same command again to go on"
        )
    return f"a worker failed: {last}"
