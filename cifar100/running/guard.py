"""Runs a stage for the terminal: one line per failure, an exit code, and no earlier result lost."""

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cifar100.running.environment import clear_environment
from cifar100.running.errors import PipelineError

ENDINGS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
SHELLS = ("sh", "dash", "bash", "zsh", "fish")
SECONDS_BETWEEN_LOOKS = 1.0


def run_stage(name: str, module: str) -> None:
    """Call `main` of this module under the guard, which the import of it is also under."""
    clear_environment()  # before NumPy is imported
    run_command(name, lambda: importlib.import_module(module).main())


def run_command(name: str, main: Callable[[], None]) -> None:
    """Call `main`; on a failure print one line, put back what DVC removed, and exit with 1.

    DVC deletes the outputs of a stage before it starts the command. A stage that then refuses its
    input, or is interrupted, would leave the user without the previous results.
    """
    received: list[int] = []

    def interrupt(number: int, _frame: Any) -> None:
        """Have a request to end do what Ctrl-C does."""
        received.append(number)
        raise KeyboardInterrupt

    for ending in ENDINGS:
        if signal.getsignal(ending) != signal.SIG_IGN:  # as `nohup` and background jobs have it
            signal.signal(ending, interrupt)
    if "DVC_ROOT" in os.environ:
        threading.Thread(target=_end_with_dvc, daemon=True).start()
    try:
        main()
        return
    except BaseException as error:
        # Paddle turns the KeyboardInterrupt of a backward pass into an error of its own
        interrupted = bool(received) or isinstance(error, KeyboardInterrupt)
        message = "interrupted" if interrupted else _message(error)
        if message is not None:
            print(f"error: {name}: {message}", file=sys.stderr)
        _restore(name)
        if message is None:
            raise
    sys.exit(130 if interrupted else 1)


def _message(error: BaseException) -> str | None:
    """What a user is told of an error; None for a mistake of this program."""
    if isinstance(error, PipelineError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory; try a smaller batch_size or width"
    return None


def _restore(name: str) -> None:
    """Put back what DVC removed, whatever else asks this process to end meanwhile."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    from cifar100.running.outputs import restore_outputs

    restore_outputs(name)


def _end_with_dvc() -> None:
    """Interrupt this process when the DVC that started it is gone, however that ended.

    Without it a killed `dvc repro` leaves a training that nobody waits for.
    """
    first = _starters()
    while _starters() == first:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def _starters() -> tuple[int, ...]:
    """What started this process, and if that is the shell of DVC, what started the shell."""
    import psutil

    try:
        starter = psutil.Process(os.getppid())
        return (starter.pid, starter.ppid()) if starter.name() in SHELLS else (starter.pid,)
    except psutil.Error:
        return ()  # it ended just now
