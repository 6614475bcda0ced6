"""oneDNN, the library of CPU kernels in Paddle's wheel, through its C interface; all of ctypes.

Activations are (N, H, W, C) in plain memory, parameters are Paddle's float32 tensors. Whatever
reaches the library was checked in Python, since it ends the process where Python would raise.
Reference: https://uxlfoundation.github.io/oneDNN/ (the C API of version 3).
"""

import ctypes
import threading
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import paddle
from numpy.typing import NDArray

from cifar100.network.memory import Memory, Shape

Descriptor = c_void_p  # of the shape, type and order in memory of an array

MAJOR_VERSION = 3
FILES = ("libdnnl.so.3", "mkldnn.dll")  # of the wheels for Linux and Windows

# dnnl_types.h
F32, BF16 = 3, 2
TRAINING, INFERENCE, BACKWARD = 64, 96, 128
DIRECT, ADD, RELU, RELU_FROM_RESULT, MAX_POOLING = 1, 0x1FFF0, 0x20, 0x100, 0x1FF
SCALE_AND_SHIFT, FUSE_RELU = 2 | 4, 8
SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, SCALE, SHIFT = 1, 2, 17, 33, 41, 49, 50, 51, 52
WORKSPACE, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_SCALE, DIFF_SHIFT = 64, 129, 145, 161, 255, 256
_CPU, _IN_ORDER, _ANY_LAYOUT, _OPENMP = 1, 1, 1, 2
_QUERIES = {WEIGHTS: 131, DIFF_WEIGHTS: 132, WORKSPACE: 135}
_BYTES = {F32: 4, BF16: 2}
TYPES = {"float32": F32, "bfloat16": BF16}
_INSTRUCTION_SETS = {  # dnnl_cpu_isa_t, best first: each has the bits of those that it includes
    0xFEF: "AMX bfloat16",
    0xE7: "AVX-512 bfloat16",
    0x27: "AVX-512",
    0x07: "AVX2",
    0x01: "SSE4.1",
}

_Dims = c_int64 * 12
_lock = threading.Lock()  # a primitive is told its addresses before it is executed


class _Version(ctypes.Structure):
    _fields_ = (
        *((name, c_int) for name in ("major", "minor", "patch")),
        ("hash", c_char_p),
        ("cpu_runtime", c_uint),
    )


class _Argument(ctypes.Structure):
    _fields_ = (("index", c_int), ("memory", c_void_p))


def load(folder: Path) -> tuple[Any, str]:
    """The library in `folder` and its version; or None, and why it cannot be used."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None, "this build of Paddle has no oneDNN for its CPU"
    try:
        library = ctypes.CDLL(str(path))
        library.dnnl_version.restype = POINTER(_Version)
        version = library.dnnl_version().contents
        number = f"{version.major}.{version.minor}.{version.patch}"
        if version.major != MAJOR_VERSION or version.cpu_runtime != _OPENMP:
            return None, f"{path.name} is oneDNN {number}; {MAJOR_VERSION}.x with OpenMP is needed"
        library.dnnl_primitive_desc_query_md.restype = c_void_p
        library.dnnl_memory_desc_get_size.restype = c_size_t
        library.dnnl_memory_set_data_handle.argtypes = (c_void_p, c_void_p)
        library.dnnl_primitive_execute.argtypes = (c_void_p, c_void_p, c_int, POINTER(_Argument))
    except (OSError, AttributeError) as error:
        return None, f"{path.name} cannot be loaded ({error})"
    return library, number


# After Paddle, so that both share one OpenMP runtime and its threads.
_library, _found = load(Path(paddle.__file__).parent / "libs")


def available() -> bool:
    """Whether the library was found and can be used."""
    return _library is not None


def description() -> str:
    """What computes on the CPU, with its version, and why if that is not oneDNN."""
    return f"oneDNN {_found}" if available() else f"Paddle's own layers, because {_found}"


def instruction_set() -> str:
    """The best instruction set that the library uses, such as `AVX2`; empty without the library."""
    found = _library.dnnl_get_effective_cpu_isa() if available() else 0
    return next((name for bits, name in _INSTRUCTION_SETS.items() if found & bits == bits), "")


def make(function: str, *arguments: Any) -> c_void_p:
    """What a function of the library creates and returns through its first argument."""
    result = c_void_p()
    given = (c_float(value) if isinstance(value, float) else value for value in arguments)
    status = getattr(_library, f"dnnl_{function}")(byref(result), *given)
    if status:
        raise RuntimeError(f"oneDNN: {function} returned status {status}")
    return result


@cache
def _engine() -> c_void_p:
    return make("engine_create", _CPU, c_size_t(0))


@cache
def _stream() -> c_void_p:
    return make("stream_create", _engine(), _IN_ORDER)


class Activation(Memory):
    """An array (N, H, W, C) of float32 or bfloat16."""

    __slots__ = ("shape", "type")

    def __init__(self, shape: Shape, type: int) -> None:
        super().__init__(prod(shape) * _BYTES[type])
        self.shape, self.type = shape, type

    @property
    def array(self) -> NDArray[Any]:
        """The same memory for NumPy, which copies the bits of the values and does not compute."""
        return self.bytes.view(f"u{_BYTES[self.type]}").reshape(self.shape)

    def expect(self, shape: Shape, type: int) -> int:
        """The address; `ValueError` if the array has another shape or type than these."""
        if self.shape != shape or self.type != type:
            raise ValueError(f"expected an activation of shape {shape}, not {self.shape}")
        return self.address


def dims(*values: int) -> Any:
    """Sizes as the library takes them."""
    return _Dims(*values)


@cache
def strided(shape: Shape, strides: Shape, type: int) -> Descriptor:
    """Descriptor of an array with these strides, in elements."""
    sizes = len(shape), _Dims(*shape), type
    return make("memory_desc_create_with_strides", *sizes, _Dims(*strides))


@cache
def dense(shape: Shape) -> Descriptor:
    """Descriptor of a float32 array in C order."""
    return strided(shape, tuple(prod(shape[i + 1 :]) for i in range(len(shape))), F32)


@cache
def any_layout(shape: Shape, type: int) -> Descriptor:
    """Descriptor of an array whose order in memory the library chooses."""
    return make("memory_desc_create_with_tag", len(shape), _Dims(*shape), type, _ANY_LAYOUT)


@cache
def nhwc(shape: Shape, type: int) -> Descriptor:
    """Descriptor of an activation (N, H, W, C), whose axes the library always calls NCHW."""
    if len(shape) != 4 or min(shape) < 1 or type not in _BYTES:
        raise ValueError(f"no activation has shape {shape} and type {type}")
    n, h, w, c = shape
    return strided((n, c, h, w), (h * w * c, 1, w * c, c), type)


def size_of(descriptor: Descriptor) -> int:
    """How many bytes an array takes."""
    return int(_library.dnnl_memory_desc_get_size(descriptor))


class Primitive:
    """An operation on memory, such as `convolution_forward` with the arguments of its descriptor.

    `bind` gives its roles: the library's numbers of arguments, with their descriptors. It is then
    called with one address for each role, in the same order.
    """

    def __init__(self, name: str, *arguments: Any) -> None:
        engine = () if name == "reorder" else (_engine(),)  # which has two among its arguments
        self.descriptor = make(f"{name}_primitive_desc_create", *engine, *arguments)
        self._made = [(_library.dnnl_primitive_desc_destroy, self.descriptor)]

    def __del__(self) -> None:
        for destroy, made in getattr(self, "_made", ()):
            destroy(made)

    def chosen(self, role: int) -> Descriptor:
        """The descriptor that the library has chosen for weights, their gradient or a workspace.

        It is that of the primitive and goes with it.
        """
        query = _QUERIES[role]
        return c_void_p(_library.dnnl_primitive_desc_query_md(self.descriptor, query, 0))

    def bind(self, roles: dict[int, Descriptor]) -> "Primitive":
        """Get ready for calls."""
        self._primitive = make("primitive_create", self.descriptor)
        empty = c_void_p(0)
        self._memories = [make("memory_create", md, _engine(), empty) for md in roles.values()]
        self._made.append((_library.dnnl_primitive_destroy, self._primitive))
        self._made += [(_library.dnnl_memory_destroy, memory) for memory in self._memories]
        pairs = zip(roles, self._memories, strict=True)
        arguments = (_Argument * len(roles))(*(_Argument(*pair) for pair in pairs))
        execute = _library.dnnl_primitive_execute
        self._execute = partial(execute, self._primitive, _stream(), len(roles), arguments)
        self._addresses: tuple[int, ...] = ()
        return self

    def __call__(self, *addresses: int) -> None:
        """Execute; raises `RuntimeError` if the library reports a failure."""
        with _lock:
            if addresses != self._addresses:
                self._addresses = ()
                for memory, address in zip(self._memories, addresses, strict=True):
                    _library.dnnl_memory_set_data_handle(memory, address)
                self._addresses = addresses
            status = self._execute()
        if status:
            raise RuntimeError(f"oneDNN: a primitive returned status {status}")


def reorder(source: Descriptor, target: Descriptor, add: bool = False) -> Primitive:
    """The primitive that copies an array into another order or type, or adds it there."""
    post = attributes(add_to_result=True) if add else None
    primitive = Primitive("reorder", source, _engine(), target, _engine(), post)
    return primitive.bind({SRC: source, DST: target})


def attributes(*, add_to_result: bool = False, relu: bool = False) -> c_void_p:
    """Attributes of a primitive that adds to what its result holds, then applies ReLU, as asked."""
    operations = make("post_ops_create")
    if add_to_result:
        _library.dnnl_post_ops_append_sum(operations, c_float(1), 0, 0)
    if relu:
        _library.dnnl_post_ops_append_eltwise(operations, RELU, c_float(0), c_float(0))
    result = make("primitive_attr_create")
    _library.dnnl_primitive_attr_set_post_ops(result, operations)
    return result
