"""Starts the training on this machine as one of several, with Paddle's launcher.

CIFAR100_MACHINES, the addresses of all machines, asks for it: the first has rank 0. The launcher
starts launched.py once per GPU, or once on a CPU.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from stages.train.links import own_interface
from stages.train.params import TrainParameters
from stages.train.rendezvous import AGAIN, TOLD

LAUNCHED = Path(__file__).with_name("launched.py")
PORT = 6070  # of rank 0, and the following ones for more processes
SECONDS_TO_END = 40.0  # more than the launcher gives its processes
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run Paddle's launcher to its end; exit as it does if it fails.

    Raises `PipelineError` for params and variables that are wrong, and for a process that was
    killed.
    """
    if not sys.platform.startswith("linux"):
        raise PipelineError("CIFAR100_MACHINES: this needs Linux, as gloo and NCCL do")
    params = load(TrainParameters)  # a wrong one is told before others come and wait
    names = [name.strip() for name in os.environ["CIFAR100_MACHINES"].split(",")]
    addresses = [address_of(name) for name in names]
    own = [address for address in addresses if address.startswith("127.")]  # only of this machine
    if len(set(addresses)) < len(addresses) or (own and len(own) < len(addresses)):
        raise PipelineError(
            f"CIFAR100_MACHINES: {', '.join(names)} stand for {', '.join(addresses)}; give each "
            "machine one address that all others can reach"
        )
    processes = number_of("CIFAR100_PROCESSES", 1 if params.device == "cpu" else None)
    arguments = ["--ips", ",".join(addresses), "--host", own_address(names, addresses)]
    arguments += ["--start_port", str(number_of("CIFAR100_PORT", PORT))]
    number_of("CIFAR100_WAIT", None)  # read by each process
    if processes is not None:
        arguments += ["--nproc_per_node", str(processes)]
    # The launcher writes the whole environment into its folder for logs. So that is one that only
    # this user can read, and that goes at the end. With "" for its name, and empty files where the
    # launcher looks for logs, the processes write to this terminal instead.
    arguments += ["--log_dir", "", "--log_level", "CRITICAL", "--enable_gpu_log", "False"]
    with tempfile.TemporaryDirectory(prefix="cifar100-launch-") as folder:
        for i in range(processes or 64):
            (Path(folder) / f"workerlog.{i}").touch()
        code = run([sys.executable, "-m", "paddle.distributed.launch", *arguments], folder)
        told = (Path(folder) / TOLD).exists()
    if code == 0:
        return
    if not told:
        number = 256 - code if code > 192 else -code  # of a process of the launcher, or its own
        killed = f" (signal {number})" if number > 0 else ""
        raise PipelineError(f"a process on this machine was ended{killed}; {AGAIN}")
    raise SystemExit(code)


def run(launcher: list[str], folder: str) -> int:
    """The exit code of the launcher, which is run in the folder and ends if this process does."""
    with subprocess.Popen(
        [*launcher, str(LAUNCHED)], cwd=folder, start_new_session=True, preexec_fn=end_with_parent
    ) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            running.terminate()
            try:
                running.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                running.kill()  # its processes end with it
            if not (Path(folder) / TOLD).exists():
                raise
            return 130


def end_with_parent() -> None:
    """Have Linux end this process when the one that started it is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def address_of(name: str) -> str:
    """The address of a machine; `PipelineError` if its name stands for none."""
    try:
        if name:
            return socket.gethostbyname(name)
        reason = "an empty name"
    except OSError as error:
        reason = f"{name}: {error.strerror or error}"
    raise PipelineError(
        f"CIFAR100_MACHINES: {reason}; give the addresses of all machines, with commas between them"
    )


def own_address(names: list[str], addresses: list[str]) -> str:
    """Which of the addresses this machine has; `PipelineError` if none."""
    for address in addresses:
        if own_interface(address) is not None:
            return address
    raise PipelineError(
        f"CIFAR100_MACHINES: {', '.join(names)}: none of them is this machine; name it as the "
        "others see it"
    )


def number_of(variable: str, default: int | None) -> int | None:
    """The whole number above zero that a variable holds; `default` if it is not set."""
    text = os.environ.get(variable)
    if text is None:
        return default
    if not text.isdecimal() or int(text) == 0:
        raise PipelineError(f"{variable}: {text!r} is not a whole number above 0")
    return int(text)
