"""Prepares a process for Paddle on the CPU: environment, threads, BLAS code path, memory, signals.

Call `prepare` before all that imports Paddle: its libraries read the environment once.
"""

import contextlib
import ctypes
import io
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

from cifar100.running.errors import PipelineError

# Settings of threads, kernels and arithmetic that a shell may hold; the params decide these here.
# The last lines: what a cluster's job leaves in a shell, which Paddle would take for its own.
OVERRIDDEN = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "NPY_", "FLAGS_"),
    *("ONEDNN_DEFAULT_FPMATH", "DNNL_DEFAULT_FPMATH", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS"),
    *("PADDLE_", "DISTRIBUTED_TRAINER_ENDPOINTS", "TRAINER_", "TRAINING_ROLE", "POD_IP"),
    *("MASTER_ADDR", "MASTER_PORT", "COLLECTIVE_MASTER_IP"),
)

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use, no more than a container's quota pays for."""
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    quota = core_quota(Path("/sys/fs/cgroup/cpu.max"))
    return cores if quota is None else cores[: max(1, int(quota))]


def core_quota(cpu_max: Path) -> float | None:
    """How many cores' worth of time a container may use (cgroup v2), None for no limit."""
    try:
        allowed, period = cpu_max.read_text(encoding="ascii").split()
        return None if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        return None


def choose_threads(wanted: int | str) -> int:
    """The number of threads: `wanted`, or for `auto` one per core that this process may use.

    Raises `PipelineError` if more are wanted than there are cores.
    """
    cores = len(available_cores())
    if isinstance(wanted, int) and wanted > cores:
        raise PipelineError(
            f"params.yaml: threads: {wanted} was asked for, but this machine has {cores} cores; "
            "give at most that, or auto"
        )
    return wanted if isinstance(wanted, int) else cores


def clear_environment() -> None:
    """Forget the settings of the caller; NumPy reads some of them when it is imported."""
    for name in [name for name in os.environ if name.startswith(OVERRIDDEN)]:
        del os.environ[name]


def prepare(threads: int) -> None:
    """Import Paddle for `threads` threads, whatever the environment of the caller holds."""
    clear_environment()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    # NVIDIA's libraries read these when they are loaded: sums in one order, and float32 as it is
    # in the place of TF32. On a CPU nothing reads them.
    os.environ["CUBLAS_WORKSPACE_CONFIG"], os.environ["NVIDIA_TF32_OVERRIDE"] = ":4096:8", "0"
    os.environ.setdefault("GLOG_minloglevel", "2")
    # Paddle warns of a missing ccache and the like: nothing that a user of this pipeline can act
    # on. The variable is for child processes.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"paddle\.")
    code_path = blas_code_path(Path("/proc/cpuinfo"))
    if code_path is not None:
        os.environ["MKL_DEBUG_CPU_TYPE"] = code_path
    keep_memory()
    with contextlib.redirect_stderr(io.StringIO()):  # it warns of more than one OpenMP thread
        import paddle  # noqa: F401

    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        # Paddle has put its own handler, which prints a page, in the place of what Python knows.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def blas_code_path(cpuinfo: Path) -> str | None:
    """The value of MKL_DEBUG_CPU_TYPE for this processor, or None where it must not be set.

    Paddle's wheel brings MKL of 2019, which takes its slowest code path on processors that are not
    Intel's. "7" selects AVX-512, "5" selects AVX2.
    """
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    fields = {key.strip(): value for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    if fields.get("vendor_id", "").strip() != "AuthenticAMD":
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "7"
    return "5" if {"avx2", "fma"} <= flags else None


def keep_memory() -> None:
    """Have glibc keep freed memory: handing back and faulting in each large tensor costs time."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 * 2**20)
