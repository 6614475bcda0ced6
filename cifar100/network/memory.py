"""Memory that oneDNN computes in, and where the values of tensors are.

A training step wants the same memory and the same tensors again and again, so both are kept: free
memory for the next object of its size, and the address of a tensor until it moves.
"""

from heapq import heappop, heappush
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

Shape = tuple[int, ...]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
_PLACE = paddle.CPUPlace()

_free: dict[int, list[tuple[int, NDArray[np.uint8]]]] = {}  # by size, heaps of addresses
_kept_for: list[Any] = []


class Memory:
    """`size` bytes, aligned, that live as long as this object, and then serve another of this size.

    The free one with the lowest address is taken, so that each step takes the same ones.
    """

    __slots__ = ("address", "bytes", "size")

    def __init__(self, size: int) -> None:
        try:
            self.address, self.bytes = heappop(_free[size])
        except (KeyError, IndexError):
            owner = np.empty(size + ALIGNMENT, np.uint8)
            address = owner.ctypes.data
            start = -address % ALIGNMENT
            self.address, self.bytes = address + start, owner[start : start + size]
        self.size = size

    def __del__(self, free: dict[int, list[Any]] = _free, push: Any = heappush) -> None:
        if hasattr(self, "size"):
            push(free.setdefault(self.size, []), (self.address, self.bytes))

    def of_size(self, size: int) -> int:
        """The address; `ValueError` if there are fewer or more bytes than this."""
        if self.size != size:
            raise ValueError(f"expected memory of {size} bytes, not {self.size}")
        return self.address

    def clear(self) -> None:
        """Set all bytes to zero."""
        self.bytes.fill(0)


def keep_memory_for(use: Any) -> None:
    """Give back the free memory that was kept for another use, which wants other sizes."""
    if _kept_for != [use]:
        _kept_for[:] = [use]
        _free.clear()


def address_of(values: Any, shape: Shape) -> int:
    """The address of a tensor or array; `ValueError` if it is not float32 (shape) in C order."""
    is_array = isinstance(values, np.ndarray)
    if is_array:
        usable = values.dtype == np.float32 and values.flags.c_contiguous
    else:
        on_cpu = values.dtype is paddle.float32 and values.place.is_cpu_place()
        usable = on_cpu and values.is_contiguous()
    if not usable or tuple(values.shape) != shape:
        raise ValueError(
            f"expected float32 values of shape {shape} on the CPU, not {values.dtype} "
            f"of shape {tuple(values.shape)}"
        )
    return int(values.ctypes.data if is_array else values.data_ptr())


def new_tensor(shape: Shape) -> paddle.Tensor:
    """A float32 tensor on the CPU, not initialised; the public function takes twice as long."""
    return paddle._C_ops.empty(shape, paddle.float32, _PLACE)


class Checked:
    """Addresses of tensors of one shape, each checked when it is another one or has moved."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self._address = shape, 0
        self._tensor: Any = None

    def address(self, tensor: paddle.Tensor) -> int:
        """As `address_of` gives it, with its `ValueError`."""
        if tensor is not self._tensor or tensor.data_ptr() != self._address:
            self._address = address_of(tensor, self.shape)
            self._tensor = tensor
        return self._address


class View:
    """The values of a float32 tensor for NumPy, which may change them; found again if they move."""

    def __init__(self, tensor: paddle.Tensor) -> None:
        self.tensor, self.address = tensor, 0

    def array(self) -> Any:
        """The tensor's own memory."""
        address = self.tensor.data_ptr()
        if address != self.address:
            self.address, self.values = address, np.from_dlpack(self.tensor)
        return self.values
