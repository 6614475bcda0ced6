"""Prepares a process for Paddle on the CPU: cores, threads, BLAS code path, signals.

Call `prepare` before all that imports Paddle: its libraries read the environment once.
"""

import contextlib
import io
import os
import platform
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from cifar100.running.environment import WARNINGS, clear_engine_variables
from cifar100.running.errors import PipelineError

CPUINFO = Path("/proc/cpuinfo")
AMD = "AuthenticAMD"  # as its processors call their vendor


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use, no more than a container's quota pays for."""
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    quota = core_quota()
    return cores if quota is None else cores[: max(1, int(quota))]


def core_quota(root: Path = Path("/")) -> float | None:
    """How many cores' worth of time this process may use, None for no limit.

    It lies in a control group, which lies in others; each may have a limit, and the least counts.
    `root` is the folder that holds proc and sys.
    """
    quotas = [_quota(folder) for folder in _control_groups(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that this process lies in and that may limit its cores.

    In version 1 the controller `cpu` has a tree of its own, in version 2 all have one. A container
    sees a part of the tree, while the names in proc may begin above that.
    """
    mounts = []
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if len(fields) < 5 or len(more) < 3:
            continue
        (top, place), (kind, options) = fields[3:5], (more[0], more[2])
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            mounts.append((kind, top, root / place.lstrip("/")))
    for line in _lines(root / "proc/self/cgroup"):
        if line.count(":") < 2:
            continue
        _, controllers, name = line.split(":", 2)
        for kind, top, mounted in mounts:
            belongs = not controllers if kind == "cgroup2" else "cpu" in controllers.split(",")
            if belongs:
                parts = Path(name.removeprefix(top.rstrip("/"))).parts[1:]
                yield from (mounted.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _quota(folder: Path) -> float | None:
    """The limit of one control group in cores, None if it has none."""
    try:
        if (folder / "cpu.max").is_file():
            allowed, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            files = (folder / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            allowed, period = (file.read_text(encoding="ascii") for file in files)
        quota = int(allowed) / int(period)
    except (OSError, ValueError, ArithmeticError):  # no limit, or not a control group at all
        return None
    return quota if quota > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def choose_threads(wanted: int | str, name: str = "params.yaml: threads") -> int:
    """The number of threads: `wanted`, or for `auto` one per core that this process may use.

    Raises `PipelineError`, which begins with `name`, if more are wanted than there are cores.
    """
    cores = len(available_cores())
    if isinstance(wanted, int) and wanted > cores:
        raise PipelineError(
            f"{name}: {wanted} was asked for, but there are {cores} cores that this process may "
            "use; give at most that, or auto"
        )
    return wanted if isinstance(wanted, int) else cores


def prepare(threads: int) -> None:
    """Import Paddle for `threads` threads, whatever the environment of the caller holds."""
    clear_engine_variables()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    # NVIDIA's libraries read these when they are loaded: sums in one order, and float32 as it is
    # in the place of TF32. On a CPU nothing reads them.
    os.environ["CUBLAS_WORKSPACE_CONFIG"], os.environ["NVIDIA_TF32_OVERRIDE"] = ":4096:8", "0"
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("PYTHONWARNINGS", WARNINGS)  # for child processes
    warnings.filterwarnings("ignore", category=UserWarning, module=r"paddle\.")
    code_path = blas_code_path(CPUINFO)
    if code_path is not None:
        os.environ["MKL_DEBUG_CPU_TYPE"] = code_path
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
    fields = _fields(cpuinfo)
    flags = set(fields.get("flags", "").split())
    if fields.get("vendor_id") != AMD:
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "7"
    return "5" if {"avx2", "fma"} <= flags else None


def vendor(cpuinfo: Path = CPUINFO) -> str:
    """Who made the processor, as it says itself: `AMD`, or another name; empty if it is not known.

    Without the file, as on Windows, its name ends with it: "AMD64 Family 25 …, AuthenticAMD".
    """
    fields = _fields(cpuinfo)
    if fields:
        return fields.get("vendor_id", "")
    return platform.processor().rpartition(", ")[2]


def _fields(cpuinfo: Path) -> dict[str, str]:
    """What the file says of one core, by its own names; {} where there is no such file."""
    pairs = (line.partition(":") for line in _lines(cpuinfo))
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}
