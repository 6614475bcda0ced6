"""How Numba compiles the loops of the convolutions.

Numba does not look whether a function that another file calls has changed since it was compiled: a
compiled function calls those of its own file only.
"""

from collections.abc import Callable
from typing import Any

from numba import njit

# Sums may be reordered, but a value that is not finite has to come through: training looks for it.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the result for the next start where that is allowed."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither the folder of this file nor the user's cache can be written
        return njit(**_OPTIONS)(function)
