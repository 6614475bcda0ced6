"""Starts programs that end with this one, however it ends, and leave nothing running.

The same for a stage below DVC is in `cifar100.running.guard`, which needs no package, and for the
processes of a training on several machines in `stages.train.launch`.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cifar100.running.errors import PipelineError, ending_in_words

SECONDS_TO_END = 12.0  # a stage gives itself 10
PR_SET_PDEATHSIG = 1  # of linux/prctl.h

_libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


@contextmanager
def child(
    command: list[str], request: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator["subprocess.Popen[str]"]:
    """Start a program in a process group of its own; the options are those of `Popen`.

    When the block ends early, as by Ctrl-C, the program and all that it started are asked to end,
    by the signal `request`, and killed if they do not. On Linux the program also gets a SIGTERM
    when this process is killed; what it started is then left to it.
    """
    with subprocess.Popen(
        command,
        text=True,
        start_new_session=True,
        preexec_fn=_end_with_parent if _libc else None,
        **options,
    ) as process:
        try:
            yield process
            process.wait()
        except BaseException:
            _end_group(process, request)
            raise


def run(command: list[str], **options: Any) -> None:
    """Run a program that prints for itself; `PipelineError` if it fails."""
    with child(command, **options) as process:
        pass
    check(command, process.returncode)


def output(command: list[str], **options: Any) -> str:
    """Run a program and return what it printed; `PipelineError` with its last line if it fails."""
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        printed, errors = process.communicate()
    check(command, process.returncode, errors or printed)
    return printed


def check(command: list[str], code: int, printed: str | None = None) -> None:
    """Raise `PipelineError` for another exit code than 0, with the last line of what it printed."""
    if code:
        lines = [line.strip() for line in (printed or "").splitlines() if line.strip()]
        reason = (
            "its reason stands above" if printed is None else (lines or ["it said nothing"])[-1]
        )
        raise PipelineError(f"`{shlex.join(command)}` {ending_in_words(code)}; {reason}")


def _end_with_parent() -> None:
    """Between fork and exec: have Linux send SIGTERM when the process that forked is gone.

    Not SIGINT, which DVC leaves to its stages while these run.
    """
    assert _libc is not None
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(process: "subprocess.Popen[str]", request: signal.Signals) -> None:
    """Ask the process and all that it started to end, wait, and kill what is left."""
    if os.name != "posix":
        process.terminate()
        return
    deadline = time.monotonic() + SECONDS_TO_END
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, request)
        while time.monotonic() < deadline:
            process.poll()  # one that nobody has waited for is still of the group
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
