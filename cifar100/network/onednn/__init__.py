"""Kernels for a CPU from oneDNN, the library that Paddle's wheels for Linux and Windows contain."""

from cifar100.network.onednn.binding import available, description, instruction_set

__all__ = ["available", "description", "instruction_set"]
