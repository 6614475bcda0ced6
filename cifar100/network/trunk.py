"""A ResNet without its classifier on oneDNN: one operator for Paddle's autograd, and inference.

It is one operator because Paddle cannot add bfloat16 gradients on a CPU, and the input of a block
has two. The parameters stay in the layers of `cifar100.network.resnet`, in float32.
"""

from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from cifar100.network.memory import Memory, View, keep_memory_for
from cifar100.network.onednn.batch_norm import BatchNorm
from cifar100.network.onednn.binding import TYPES, Activation
from cifar100.network.onednn.convolution import Convolution, FoldedConvolution
from cifar100.network.onednn.elementwise import MaxPooling, Sum, from_tensor, to_tensor

MAX_BLOCKED = 2  # copies of a folded weight: for whole batches and the last, partial one

Gradients = list[paddle.Tensor]


class Unit:
    """A convolution, its batch norm, and ReLU if wanted."""

    def __init__(
        self, layers: tuple[nn.Conv2D, nn.BatchNorm2D], relu: bool, wants_input: bool = True
    ) -> None:
        convolution, self.norm = layers
        self.weight, self.relu, self.wants_input = convolution.weight, relu, wants_input
        self.filters, _, self.kernel, _ = self.weight.shape
        self.stride = int(np.max(convolution._stride))
        self.scale, self.shift = self.norm.weight, self.norm.bias
        self.parameters, self.units = [self.weight, self.scale, self.shift], [self]
        self.operators: dict[Any, tuple[Convolution, BatchNorm]] = {}
        self.running = [View(self.norm._mean), View(self.norm._variance)]
        self.keep = np.float32(self.norm._momentum)
        self.folded: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self.blocked: dict[FoldedConvolution, Memory] = {}

    def forward(self, x: Activation) -> tuple[Activation, Any]:
        """The result, and what `backward` needs; moves the running statistics of batch norm."""
        convolution, batch_norm = self.operators.get((x.shape, x.type)) or self.prepare(x)
        z, x = convolution.forward(x, self.weight)
        y, statistics, mask = batch_norm.forward(z, self.scale, self.shift)
        new = statistics.bytes.view(np.float32).reshape(2, -1) * (1 - self.keep)
        for running, share in zip(self.running, new, strict=True):
            values = running.array()
            values *= self.keep
            values += share
        return y, (convolution, batch_norm, x, z, statistics, mask)

    def prepare(self, x: Activation) -> tuple[Convolution, BatchNorm]:
        """The operators for activations like this; own ones, so that they know their addresses."""
        convolution = Convolution(x.shape, self.filters, self.kernel, self.stride, x.type)
        shape = convolution.layout.output.shape
        batch_norm = BatchNorm(shape, self.relu, self.norm._epsilon, x.type)
        self.operators[x.shape, x.type] = convolution, batch_norm
        return convolution, batch_norm

    def backward(
        self, saved: Any, grad: Activation, to: Activation | None = None
    ) -> tuple[Any, Gradients]:
        """The gradients of the input, if it is wanted, and of the parameters.

        That of the input is added to what `to` holds, where it is given.
        """
        convolution, batch_norm, x, z, statistics, mask = saved
        grad, scale, shift = batch_norm.backward(z, self.scale, statistics, mask, grad)
        x_grad, weight = convolution.backward(x, self.weight, grad, self.wants_input, to)
        return x_grad, [weight, scale, shift]

    def fold(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The weight and the bias that do what batch norm does with its running statistics."""
        norm = self.norm
        scale = norm.weight.numpy() / np.sqrt(norm._variance.numpy() + np.float32(norm._epsilon))
        weight = np.ascontiguousarray(self.weight.numpy() * scale[:, None, None, None])
        self.blocked = {}
        return weight, norm.bias.numpy() - scale * norm._mean.numpy()

    def infer(
        self, x: Activation, added: Activation | None = None, relu: bool = False
    ) -> Activation:
        """The result by the folded weight; `added` is added to it before ReLU."""
        self.folded = self.folded or self.fold()
        options = added is not None, relu or self.relu
        convolution = FoldedConvolution(
            x.shape, self.filters, self.kernel, self.stride, *options, x.type
        )
        weight, bias = self.folded
        blocked = self.blocked.get(convolution)
        if blocked is None:
            if len(self.blocked) == MAX_BLOCKED:
                self.blocked.clear()  # another thread may do so at any time
            blocked = self.blocked[convolution] = convolution.blocked(weight)
        return convolution.forward(x, blocked, bias, added)


class Block:
    """Units in a row, the sum with a shortcut, and ReLU."""

    def __init__(self, residual: list[Unit], shortcut: Unit | None) -> None:
        self.residual, self.shortcut = residual, shortcut
        self.units = [*residual, *([shortcut] if shortcut else [])]
        self.parameters = [p for unit in self.units for p in unit.parameters]

    def forward(self, x: Activation) -> tuple[Activation, Any]:
        """The result, and what `backward` needs."""
        saved, y, other = [], x, x
        for unit in self.residual:
            y, of_unit = unit.forward(y)
            saved.append(of_unit)
        if self.shortcut:
            other, of_unit = self.shortcut.forward(x)
            saved.append(of_unit)
        y = Sum(y.shape, y.type).rectified(y, other)
        return y, (saved, y)

    def backward(self, saved: Any, grad: Activation) -> tuple[Activation, Gradients]:
        """The gradients of the input and of the parameters."""
        of_units, y = saved
        through = grad = Sum(y.shape, y.type).backward(y, grad)
        of_shortcut = of_units.pop() if self.shortcut else None
        grads: Gradients = []
        for unit in reversed(self.residual):
            through, of_parameters = unit.backward(of_units.pop(), through)
            grads = of_parameters + grads
        if self.shortcut is None:
            return Sum(through.shape, through.type).plain(through, grad), grads
        through, of_parameters = self.shortcut.backward(of_shortcut, grad, to=through)
        return through, grads + of_parameters

    def infer(self, x: Activation) -> Activation:
        """The result by folded weights; `x` may be lost."""
        other = self.shortcut.infer(x) if self.shortcut else x
        for unit in self.residual[:-1]:
            x = unit.infer(x)
        return self.residual[-1].infer(x, other, relu=True)


class Pooling:
    """The max pooling of the ImageNet stem; it has the methods of a unit, and no parameters."""

    parameters = units = ()

    def forward(self, x: Activation) -> tuple[Activation, Any]:
        """The result, and what `backward` needs."""
        pooling = MaxPooling(x.shape, x.type)
        y, largest = pooling.forward(x)
        return y, (pooling, largest)

    def backward(self, saved: Any, grad: Activation) -> tuple[Activation, Gradients]:
        """The gradient of the input, and none of parameters."""
        pooling, largest = saved
        return pooling.backward(largest, grad), []

    def infer(self, x: Activation) -> Activation:
        """The result."""
        return self.forward(x)[0]


class Trunk:
    """The parts of a network, in the order of execution; a copy of it belongs to no network yet."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.parameters: list[paddle.Tensor] = []

    def __deepcopy__(self, _memo: Any) -> "Trunk":
        return Trunk()

    def attach(self, network: nn.Layer) -> None:
        """Take the parameters of the stem and the blocks of a `ResNet`."""
        convolution, norm, *pooling = network.stem
        self.parts = [Unit((convolution, norm), relu=True, wants_input=False)]
        self.parts += [Pooling() for _ in pooling]
        for block in (block for group in network.groups for block in group):
            *first, last = block.units()
            units = [*(Unit(layers, relu=True) for layers in first), Unit(last, relu=False)]
            projects = isinstance(block.shortcut, nn.Sequential)
            self.parts.append(Block(units, Unit(block.shortcut, relu=False) if projects else None))
        self.parameters = [p for part in self.parts for p in part.parameters]

    def refold(self) -> None:
        """Have the next inference fold batch norm again, because parameters have changed."""
        for unit in (unit for part in self.parts for unit in part.units):
            unit.folded = None

    def forward(self, x: paddle.Tensor, precision: str) -> paddle.Tensor:
        """Maps (N, H', W', C) of normalised images (N, H, W, 3), with gradients."""
        keep_memory_for((x.shape, precision))
        return _TrunkFunction.apply(x, self.parts, TYPES[precision], *self.parameters)

    def infer(self, x: paddle.Tensor, precision: str) -> paddle.Tensor:
        """The same in evaluation mode, without gradients."""
        keep_memory_for((x.shape, precision, "folded"))
        y = from_tensor(x, TYPES[precision])
        for part in self.parts:
            y = part.infer(y)
        return to_tensor(y)


class _TrunkFunction(paddle.autograd.PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: paddle.Tensor, parts: list[Any], type: int, *_parameters: paddle.Tensor
    ) -> paddle.Tensor:
        y = from_tensor(x, type)
        ctx.parts, ctx.type, ctx.saved = parts, type, []
        for part in parts:
            y, saved = part.forward(y)
            ctx.saved.append(saved)
        return to_tensor(y)

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[Any, ...]:
        through = from_tensor(grad.contiguous(), ctx.type)
        grads: Gradients = []
        for part in reversed(ctx.parts):
            # popped, so that its memory serves the parts before it
            through, of_part = part.backward(ctx.saved.pop(), through)
            grads = of_part + grads
        return None, *grads
