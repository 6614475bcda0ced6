"""The one error type for whatever a user can cause and mend: bad params, files, or machines."""

import textwrap

MAX_REASON = 200  # characters


class PipelineError(Exception):
    """A problem to be told in one line: what, where, what was expected, what to do."""


def reason_of(error: Exception) -> str:
    """What a library says about an error, as a part of a line; its type if it says nothing."""
    return textwrap.shorten(str(error), MAX_REASON, placeholder=" …") or type(error).__name__
