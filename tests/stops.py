"""Finds calls that wait for the device, or copy between it and the host, on a CPU.

On a GPU such a call in a step leaves the device idle. Seen from Python it is the same call on a
CPU. What happens inside of Paddle's operators is not seen.
"""

import sys
from collections.abc import Callable
from typing import Any

import paddle

# Functions and methods of Python, and those of Paddle's C extension.
PYTHON = {
    *("to_tensor", "item", "tolist", "cpu", "cuda", "pin_memory", "__array__", "__bool__"),
    *("__float__", "__int__", "__index__", "nonzero", "masked_select", "unique", "synchronize"),
}
EXTENSION = {"numpy", "_getitem_from_offset", "_copy_to", "get_tensor", "nonzero", "masked_select"}
CAPSULE = "set"  # of what `get_tensor` gives: how an array gets into a tensor
INDICES = int | slice | tuple | type(None) | type(Ellipsis)


def stops(function: Callable[[], Any]) -> list[str]:
    """The calls within `function` that wait or copy, by name."""
    found = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_name in PYTHON:
            found.append(frame.f_code.co_name)
        elif event == "c_call":
            owner = type(getattr(argument, "__self__", None)).__name__
            name = argument.__name__
            if name in EXTENSION or (name == CAPSULE and owner == "PyCapsule"):
                found.append(f"{owner}.{name}")

    def index(self: paddle.Tensor, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, INDICES) for part in parts):
            found.append(f"Tensor[{type(key).__name__}]")  # lists and arrays are uploaded
        return get_item(self, key)

    get_item = paddle.Tensor.__getitem__
    paddle.Tensor.__getitem__ = index
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        paddle.Tensor.__getitem__ = get_item
    return found
