"""How Numba compiles the loops of layers, and how these see Paddle's tensors.

Numba does not look whether a function that another file calls has changed since it was compiled: a
compiled function calls those of its own file only.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    import paddle

Array = NDArray[np.float32]

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


def view(tensor: "paddle.Tensor") -> Array:
    """The memory of a float32 tensor on the CPU as an array, uncopied if it is contiguous."""
    return cast(Array, np.from_dlpack(tensor.detach().contiguous()))
