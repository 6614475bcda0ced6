"""The one error type for whatever a user can cause and mend: bad params, files, or machines."""


class PipelineError(Exception):
    """A problem to be told in one line: what, where, what was expected, what to do."""
