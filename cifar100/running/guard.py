"""Runs a stage for the terminal: one line per failure, an exit code, and no earlier result lost."""

from __future__ import annotations  # for a Python that is too old: see restore.py

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cifar100.running.errors import PipelineError, ending_in_words
from cifar100.running.restore import restore_outputs

ENDINGS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
SHELLS = ("sh", "dash", "ash", "busybox", "bash", "ksh", "mksh", "zsh", "fish")
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_REQUESTS = 1.0  # to end: one of them may come from several senders
SECONDS_TO_END = 10.0  # that a stage may take from the request to end until it is killed
MIN_PYTHON = (3, 10)
OWN_PACKAGES = ("cifar100", "stages", "tools", "benchmarks")
FOLDERS = (Path("data"), Path("models"), Path("reports"))
INTERRUPTED = 130  # the exit code, as of a shell


def run_stage(name: str, module: str, seconds_to_end: float = SECONDS_TO_END) -> None:
    """Call `main` of this module, which is imported under the guard too.

    DVC deletes the outputs of a stage before it starts the command. Therefore the stage runs in a
    process of its own below DVC, and this one waits for it: however that ends, this one says why
    in one line and puts back the last results. It stays small, so if memory runs out, it is the
    other one that is killed. It also kills one that takes longer than `seconds_to_end` to end
    after it was asked to.
    """

    def main() -> None:
        if sys.version_info < MIN_PYTHON:
            raise PipelineError(f"Python 3.10 to 3.13 is needed, this is {_this_python()}")
        _refuse_links()
        from cifar100.running.environment import clear_environment

        clear_environment()  # before NumPy is imported
        importlib.import_module(module).main()

    if "DVC_ROOT" not in os.environ:  # started by hand: nothing was removed
        run_command(name, main)
    elif not hasattr(os, "fork"):
        _end_with(_starters())
        try:
            run_command(name, main)
        except BaseException:
            _put_back(name)
            raise
    else:
        starters, this = _starters(), os.getpid()
        reader, writer = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)  # until both have their handlers
        child = os.fork()
        if child == 0:
            os.close(reader)  # the writer closes when this process ends
            _end_with((this,))
            run_command(name, main)
        else:
            os.close(writer)
            code = _supervise(name, child, reader, starters, seconds_to_end)
            if code:
                _put_back(name)
                sys.exit(code)


def _refuse_links() -> None:
    """Raise `PipelineError` for a folder of outputs that DVC would refuse, after all the work."""
    if "DVC_ROOT" not in os.environ:
        return
    for folder in FOLDERS:
        for place in [folder, *folder.glob("*")]:
            if place.is_symlink() and place.is_dir():
                raise PipelineError(
                    f"{place} is a link to {os.readlink(place)}, and DVC refuses outputs outside "
                    "of the repository; make it a folder, and move DVC's cache, which needs the "
                    "room: `dvc cache dir --local /other/disk/cache`"
                )


def run_command(name: str, main: Callable[[], None]) -> None:
    """Call `main`; on a failure print one line and exit with 1, or 130 for a request to end."""
    requests: list[float] = []

    def interrupt(_number: int, _frame: Any) -> None:
        """Have a request to end do what Ctrl-C does, once."""
        requests.append(time.monotonic())
        if len(requests) == 1 or requests[-1] - requests[-2] > SECONDS_BETWEEN_REQUESTS:
            raise KeyboardInterrupt

    _handle_endings(interrupt)
    try:
        main()
        return
    except BaseException as error:
        # Paddle turns the KeyboardInterrupt of a backward pass into an error of its own
        interrupted = bool(requests) or isinstance(error, KeyboardInterrupt)
        if isinstance(error, (PipelineError, SystemExit)):  # the reason is known, or was told
            interrupted = False
        message = "interrupted" if interrupted else _message(error)
        if message is None:
            raise
        _say(name, message)
    sys.exit(INTERRUPTED if interrupted else 1)


def _supervise(
    name: str, child: int, reader: int, starters: tuple[int, ...], seconds_to_end: float
) -> int:
    """Wait for the process of the stage; return its exit code after a line about a violent end.

    It is asked to end when this process is, or when DVC is gone, and killed if it does not.
    """
    asked: list[float] = []

    def ask(number: int, _frame: Any = None) -> None:
        asked.append(time.monotonic())
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    _handle_endings(ask)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if asked and time.monotonic() - asked[0] > seconds_to_end:
            os.kill(child, signal.SIGKILL)
        elif not asked and _starters() != starters:
            ask(signal.SIGTERM)
        if select.select([reader], [], [], SECONDS_BETWEEN_LOOKS)[0]:
            time.sleep(0.01)  # it has ended, or will at once
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        _say(name, "interrupted" if asked else ending_in_words(code))
        return INTERRUPTED if asked else 128 - code
    return code


def _handle_endings(handler: Callable[[int, Any], None]) -> None:
    for ending in ENDINGS:
        if signal.getsignal(ending) != signal.SIG_IGN:  # as `nohup` and background jobs have it
            signal.signal(ending, handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def end_now(name: str, message: str | None) -> NoReturn:
    """End the process as a failure of `main` would, from any thread: for when `main` hangs."""
    if message is not None:
        _say(name, message)
    os._exit(1)


def _message(error: BaseException) -> str | None:
    """What a user is told of an error; None for a mistake of this program."""
    if isinstance(error, PipelineError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    if isinstance(error, MemoryError):
        return "not enough memory; try a smaller width, batch_size or eval_batch_size"
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] not in OWN_PACKAGES:
        return f"{error}, in Python {_this_python()}"
    return None


def _this_python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{version} ({sys.executable}); activate the environment, as with "
        "`source .venv/bin/activate`; `make setup` makes it"
    )


def _put_back(name: str) -> None:
    """Put back what DVC removed, whatever else asks this process to end meanwhile."""
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    failed = {path: reason for path, reason in restore_outputs(name).items() if reason}
    if failed:
        path, reason = next(iter(failed.items()))
        _say(
            name,
            f"{len(failed)} of the last results could not be put back ({path}: {reason}); "
            "when that is fixed, `python -m tools.restore` puts them back",
        )


def _say(name: str, message: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it may be gone
        print(f"error: {name}: {message}", file=sys.stderr, flush=True)


def _end_with(starters: tuple[int, ...]) -> None:
    """Have a thread interrupt this process when those that started it are gone, however they ended.

    Without it a killed `dvc repro` leaves a training that nobody waits for.
    """

    def watch() -> None:
        while _starters() == starters:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_TO_END)
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def _starters() -> tuple[int, ...]:
    """What started this process, and if that is the shell of DVC, what started the shell."""
    starter = os.getppid()
    try:
        import psutil
    except ImportError:  # what is needed is not installed here, as the stage is about to say
        return (starter,)
    try:
        process = psutil.Process(starter)
        return (starter, process.ppid()) if process.name() in SHELLS else (starter,)
    except psutil.Error:  # the starter ended just now
        return (starter,)
