"""The one error type for whatever a user can cause and mend: bad params, files, or machines."""

from __future__ import annotations  # for a Python that is too old: see restore.py

import signal
import textwrap
import unicodedata

MAX_REASON = 200  # characters


class PipelineError(Exception):
    """A problem to be told in one line: what, where, what was expected, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Text that stays on one line of a terminal and does nothing to it, whatever a name holds."""
    return "".join(
        letter
        if letter.isprintable() or unicodedata.category(letter) == "Zs"  # spaces of all kinds
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def reason_of(error: Exception) -> str:
    """What a library says about an error, as a part of a line; its type if it says nothing."""
    return textwrap.shorten(str(error), MAX_REASON, placeholder=" …") or type(error).__name__


def ending_in_words(code: int) -> str:
    """How a process ended that failed, from its exit code as `subprocess` gives it."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return (
            "was killed (SIGKILL), as Linux does when memory runs out; close other programs, or "
            "choose a smaller width, batch_size or eval_batch_size, and run the same command again"
        )
    return f"crashed ({name}); if the same command does so again, please report it"
