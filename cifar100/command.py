"""Prepares the process of a command that people type: `cifar100.predict`, or one of tools/."""

from __future__ import annotations  # for a Python that is too old: see running/restore.py

import contextlib
import signal
import sys
from types import TracebackType

from cifar100.running.environment import clear_environment
from cifar100.running.guard import run_command


def prepare_command(name: str) -> None:
    """Call this before NumPy, Paddle or matplotlib are imported, which read the environment.

    A package that is missing then gives one line that begins with `name`, as in a stage.
    """
    clear_environment()
    _end_with_the_reader()

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        def raise_again() -> None:
            raise error

        if isinstance(error, ImportError):
            with contextlib.suppress(ImportError):  # of a module of this project
                run_command(name, raise_again)
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell


def _end_with_the_reader() -> None:
    """End without a word before `| head`, as other programs do."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
