"""What the tests of the engine share, and what they run in a process of its own.

`python -m tests.engine NAME ARGUMENTS` calls the function of this name and prints what it returns.
"""

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cifar100.running import cpu

if __name__ == "__main__":
    cpu.prepare(int(sys.argv[2]))  # threads

import numpy as np
import paddle
import paddle.nn.functional as F

from cifar100.network import onednn
from cifar100.network.memory import ALIGNMENT, Memory
from cifar100.network.onednn import batch_norm, convolution, elementwise
from cifar100.network.onednn.binding import BF16, F32, Activation
from cifar100.network.onednn.elementwise import from_tensor
from cifar100.network.resnet import ResNet, ResNetConfig, build_resnet, statistics_of, weights_of

HAS_BF16 = "bfloat16" in onednn.instruction_set()
PRECISIONS = ["float32", *(["bfloat16"] if HAS_BF16 else [])]

# Maps (N, H, W, C) and filters. Sides of up to 8 are computed side by side, in 4, 2 or 1 rows;
# 1×1 convolutions take 256 pixels, the images of the batch or one pixel at a time.
SHAPES = [
    ((1, 1, 1, 8), 36),
    ((5, 1, 1, 20), 3),
    ((3, 2, 2, 5), 20),
    ((4, 3, 3, 36), 8),
    ((7, 7, 7, 1), 5),
    ((2, 8, 8, 20), 36),
    ((6, 4, 7, 3), 1),
    ((5, 9, 9, 3), 8),
    ((4, 16, 16, 8), 20),
    ((3, 15, 31, 5), 36),
    ((1, 31, 31, 8), 5),
    ((5, 32, 32, 8), 16),  # where the library's own strided 1×1 convolution overruns its memory
]

# With kernel and stride: every convolution that the networks have.
KINDS = [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)]
CASES = [
    (shape, filters, kernel, stride)
    for shape, filters in SHAPES
    for kernel, stride in KINDS
    if kernel < 7 or shape[1] > 1
]

ROOT = Path(__file__).parent.parent
STATM = Path("/proc/self/statm")
GUARD = 4096  # bytes on each side of memory
CANARY = 0xA5


def run_apart(name: str, *arguments: object, **environment: str) -> str:
    """What a function of this file returns in a process of its own, which has to end well."""
    command = [sys.executable, "-m", "tests.engine", name, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def rounded(values: paddle.Tensor, type: int) -> paddle.Tensor:
    """The values as they are in this type, in float32."""
    return values.astype("bfloat16").astype("float32") if type == BF16 else values


def error(found: Any, expected: Any) -> float:
    """The norm of the difference, relative to the norm of what is expected."""
    found, expected = (np.asarray(values, np.float64) for values in (found, expected))
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def some_network(config: ResNetConfig, seed: int = 0) -> ResNet:
    """With scales, shifts and running statistics as after some training."""
    network = build_resnet(config, seed, np.float32([0.5, 0.45, 0.4]), np.float32([0.2, 0.25, 0.3]))
    for tensor in statistics_of(network):
        tensor.set_value(paddle.uniform(tensor.shape, min=0.5, max=1.5))
    for tensor in (weight for weight in weights_of(network) if weight.ndim == 1):
        tensor.set_value(paddle.uniform(tensor.shape, min=0.2, max=1.2))
    return network


def bytes_in_use() -> int:
    """The memory of this process, from STATM."""
    return int(STATM.read_text().split()[1]) * 4096


def some_images(*shape: int, seed: int = 0) -> paddle.Tensor:
    """uint8 images (N, H, W, 3) of noise."""
    rng = np.random.default_rng(seed)
    return paddle.to_tensor(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))


def train(network: ResNet, images: paddle.Tensor, labels: paddle.Tensor, steps: int) -> list[float]:
    """Train with batches of 32; the loss of each step."""
    network.train()
    optimizer = paddle.optimizer.Momentum(0.05, 0.9, parameters=weights_of(network))
    losses = []
    for step in range(steps):
        rows = [(32 * step + i) % len(images) for i in range(32)]
        loss = F.cross_entropy(network(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    return losses


def digests() -> str:
    """Of what short trainings and an inference compute; then what threads there are and where."""
    network = some_network(ResNetConfig(20, 8))
    network.eval()
    with paddle.no_grad():
        found = {"logits": sha256([network(some_images(67, 32, 32))])}
    for precision in PRECISIONS:
        network = build_resnet(ResNetConfig(20, 8), 0)
        network.set_precision(precision)
        losses = train(network, some_images(64, 16, 16), paddle.arange(64), 5)
        found[precision] = sha256([paddle.to_tensor(losses), *network.parameters()])
    openmp = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libiomp5.so"))
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    cores = {tuple(sorted(os.sched_getaffinity(thread))) for thread in threads}
    return json.dumps(found | {"threads": openmp.omp_get_max_threads(), "cores": sorted(cores)})


def sha256(tensors: list[paddle.Tensor]) -> str:
    """Of the bytes of all values."""
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def guarded_memory() -> str:
    """Run all primitives on memory between guards; how much was allocated, and what is damaged."""
    owners: list[tuple[Any, int, Any]] = []

    def guarded(memory: Memory, size: int) -> None:
        owner = np.full(size + ALIGNMENT + 2 * GUARD, CANARY, np.uint8)
        start = GUARD + -(owner.ctypes.data + GUARD) % ALIGNMENT
        memory.size, memory.address = size, owner.ctypes.data + start
        memory.bytes = owner[start : start + size]
        owners.append((owner, start, size))

    def guarded_tensor(shape: tuple[int, ...]) -> paddle.Tensor:
        size = int(np.prod(shape))
        owner = paddle.full([size + 2 * GUARD], CANARY, "float32")
        owners.append((np.from_dlpack(owner), GUARD, size))
        return owner[GUARD : GUARD + size].reshape(shape)

    Memory.__init__ = guarded
    convolution.new_tensor = batch_norm.new_tensor = elementwise.new_tensor = guarded_tensor
    for type in (F32, BF16) if HAS_BF16 else (F32,):
        for case in CASES:
            run_convolution(*case, type)
        for shape, _ in SHAPES:
            run_elementwise(shape, type)
    damaged = sum(
        bool((owner[:start] != CANARY).any() or (owner[start + size :] != CANARY).any())
        for owner, start, size in owners
    )
    return f"{len(owners)} allocated, {damaged} damaged"


def run_convolution(
    shape: tuple[int, ...], filters: int, kernel: int, stride: int, type: int
) -> None:
    """Forward, backward and folded."""
    x, weight = paddle.randn(shape), paddle.randn([filters, shape[-1], kernel, kernel])
    layer = convolution.Convolution(shape, filters, kernel, stride, type)
    y, saved = layer.forward(from_tensor(x, type), weight)
    layer.backward(saved, weight, y, True)
    bias = np.ones(filters, np.float32)
    for add in (False, True):
        folded = convolution.FoldedConvolution(shape, filters, kernel, stride, add, True, type)
        blocked = folded.blocked(weight.numpy())
        folded.forward(from_tensor(x, type), blocked, bias, y if add else None)


def run_elementwise(shape: tuple[int, ...], type: int) -> None:
    """Batch norm, sum and pooling, forward and backward."""
    x, channels = from_tensor(paddle.randn(shape), type), [shape[-1]]
    for relu in (False, True):
        norm = batch_norm.BatchNorm(shape, relu, 1e-5, type)
        y, statistics, mask = norm.forward(x, paddle.ones(channels), paddle.zeros(channels))
        norm.backward(x, paddle.ones(channels), statistics, mask, y)
    add = elementwise.Sum(shape, type)
    add.backward(add.rectified(y, x), add.plain(x, y))
    pooling = elementwise.MaxPooling(shape, type)
    elementwise.to_tensor(pooling.backward(*reversed(pooling.forward(x))))


def refusals() -> str:
    """Give the engine what it cannot take; how often it raised `ValueError`."""
    x, weight = Activation((2, 8, 8, 3), F32), paddle.randn([4, 3, 3, 3])
    bias, scale = np.zeros(4, np.float32), paddle.ones([4])
    layer = convolution.Convolution((2, 8, 8, 3), 4, 3, 1, F32)
    folded = convolution.FoldedConvolution((2, 8, 8, 3), 4, 3, 1, True, True, F32)
    blocked = folded.blocked(weight.numpy())
    y, saved = layer.forward(x, weight)
    norm = batch_norm.BatchNorm((2, 8, 8, 4), True, 1e-5, F32)
    _, statistics, mask = norm.forward(y, scale, scale)
    add, pooling = elementwise.Sum((2, 8, 8, 4), F32), elementwise.MaxPooling((2, 8, 8, 4), F32)
    pooled, largest = pooling.forward(y)
    other, half = Activation((2, 8, 8, 5), F32), Activation((2, 8, 8, 4), BF16)
    network = build_resnet(ResNetConfig(20, 2), 0)
    wrong = [
        lambda: convolution.Convolution((2, 8, 8), 4, 3, 1, F32),
        lambda: convolution.Convolution((0, 8, 8, 3), 4, 3, 1, F32),
        lambda: convolution.Convolution((2, 8, 8, 3), 0, 3, 1, F32),
        lambda: convolution.Convolution((2, 8, 8, 3), 4, 2, 1, F32),
        lambda: convolution.Convolution((2, 8, 8, 3), 4, 3, 3, F32),
        lambda: convolution.Convolution((2, 8, 8, 3), 4, 3, 1, 99),
        lambda: convolution.Convolution((2, 1, 1, 3), 4, 7, 2, F32),
        lambda: convolution.FoldedConvolution((2, 8, 0, 3), 4, 3, 1, False, False, F32),
        lambda: layer.forward(other, weight),
        lambda: layer.forward(Activation((2, 8, 8, 3), BF16), weight),
        lambda: layer.forward(x, paddle.randn([4, 3, 1, 1])),
        lambda: layer.forward(x, weight.astype("float64")),
        lambda: layer.forward(x, weight.transpose([0, 1, 3, 2])),
        lambda: layer.forward(x, weight.numpy()[..., ::-1]),
        lambda: layer.backward(saved, weight, other, True),
        lambda: layer.backward(saved, weight, half, True),
        lambda: layer.backward(x, weight, y, True),
        lambda: layer.backward(saved, weight[:3], y, True),
        lambda: folded.blocked(weight.numpy()[:3]),
        lambda: folded.forward(x, blocked, bias[:3], y),
        lambda: folded.forward(x, blocked, bias.astype(np.float64), y),
        lambda: folded.forward(x, blocked, bias, other),
        lambda: folded.forward(x, blocked, bias, None),
        lambda: folded.forward(x, Memory(4), bias, y),
        lambda: batch_norm.BatchNorm((2, 8, 4), True, 1e-5, F32),
        lambda: norm.forward(other, scale, scale),
        lambda: norm.forward(half, scale, scale),
        lambda: norm.forward(y, scale[:3], scale),
        lambda: norm.forward(y, scale, paddle.ones([8])[::2]),
        lambda: norm.backward(y, scale, Memory(statistics.size // 2), mask, y),
        lambda: norm.backward(y, scale, statistics, mask, other),
        lambda: norm.backward(y, scale, statistics, None, y),
        lambda: norm.backward(y, scale, statistics, Memory(1), y),
        lambda: add.rectified(y, other),
        lambda: add.plain(half, y),
        lambda: add.backward(y, other),
        lambda: pooling.forward(half),
        lambda: pooling.backward(largest, y),
        lambda: pooling.backward(Memory(1), pooled),
        lambda: elementwise.MaxPooling((2, 0, 8, 4), F32),
        lambda: from_tensor(paddle.ones([2, 3]), F32),
        lambda: from_tensor(paddle.ones([2, 8, 8, 3], "float64"), F32),
        lambda: from_tensor(paddle.ones([2, 3, 8, 8]).transpose([0, 2, 3, 1]), F32),
        lambda: network(paddle.zeros([2, 3, 32, 32])),
        lambda: network(paddle.zeros([2, 32, 32, 5])),
        lambda: network(paddle.zeros([0, 32, 32, 3])),
        lambda: network.set_precision("float8"),
    ]
    raised = 0
    for index, call in enumerate(wrong):
        try:
            call()
            print(index, "raised nothing", file=sys.stderr)
        except ValueError:
            raised += 1
        except Exception as found:
            print(index, repr(found)[:300], file=sys.stderr)
    return f"{raised} of {len(wrong)}"


if __name__ == "__main__":
    print(globals()[sys.argv[1]](*sys.argv[3:]), flush=True)
