"""ResNet for 32×32 images, from `depth`, `width` and `stem`.

He et al., "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385):
four groups of blocks for ImageNet depths (table 1), three for CIFAR depths (section 4.2).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn

from cifar100.network import onednn
from cifar100.network.inputs import normalise, resize
from cifar100.network.layers import BatchNorm, Convolution
from cifar100.network.trunk import Trunk

BASIC_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CIFAR_DEPTHS = {depth: ((depth - 2) // 6,) * 3 for depth in (20, 32, 44, 56, 110)}
HALF = np.full(3, 0.5, np.float32)  # the mean and deviation where none are given
BLOCKS_PER_GROUP = BASIC_DEPTHS | BOTTLENECK_DEPTHS | CIFAR_DEPTHS


@dataclass(frozen=True)
class ResNetConfig:
    """What determines the layers: depth, channels of the first group, and the stem."""

    depth: int
    width: int
    stem: str = "cifar"  # cifar: 3×3, stride 1 · imagenet: 7×7, stride 2, then 3×3 max pooling
    classes: int = 100


class BasicBlock(nn.Layer):
    """Two 3×3 convolutions and a shortcut: (N, H, W, C) to (N, ⌈H/stride⌉, ⌈W/stride⌉, K)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, channels, 3, stride)
        self.norm1 = BatchNorm(channels)
        self.conv2 = Convolution(channels, channels, 3)
        self.last_norm = BatchNorm(channels)
        self.shortcut = _shortcut(in_channels, channels, stride)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Add the residual to the shortcut."""
        residual = self.norm1(self.conv1(x))
        return self.last_norm(self.conv2(residual), self.shortcut(x))

    def units(self) -> list[tuple[nn.Layer, nn.Layer]]:
        """The convolutions of the residual, each with its batch norm."""
        return [(self.conv1, self.norm1), (self.conv2, self.last_norm)]


class BottleneckBlock(nn.Layer):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the output has 4 × `channels` channels."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(in_channels, channels, 1)
        self.norm1 = BatchNorm(channels)
        self.conv2 = Convolution(channels, channels, 3, stride)
        self.norm2 = BatchNorm(channels)
        self.conv3 = Convolution(channels, 4 * channels, 1)
        self.last_norm = BatchNorm(4 * channels)
        self.shortcut = _shortcut(in_channels, 4 * channels, stride)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Add the residual to the shortcut."""
        residual = self.norm1(self.conv1(x))
        residual = self.norm2(self.conv2(residual))
        return self.last_norm(self.conv3(residual), self.shortcut(x))

    def units(self) -> list[tuple[nn.Layer, nn.Layer]]:
        """The convolutions of the residual, each with its batch norm."""
        return [
            (self.conv1, self.norm1),
            (self.conv2, self.norm2),
            (self.conv3, self.last_norm),
        ]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Layer:
    """The identity where shapes allow it, else a 1×1 projection (option B of the paper)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        Convolution(in_channels, out_channels, 1, stride), BatchNorm(out_channels, relu=False)
    )


class ResNet(nn.Layer):
    """Images (N, H, W, 3), uint8 or float32 on the scale 0 to 255, to logits (N, classes).

    mean, std: buffers (3,) of float32, by which the channels red, green and blue are normalised, on
    the scale 0 to 1 · precision: float32, bfloat16 or float16, in which the convolutions compute;
    parameters, statistics and logits are float32 · engine: oneDNN's, for the CPU, or None for
    Paddle's own layers.
    """

    def __init__(
        self,
        config: ResNetConfig,
        mean: NDArray[np.float32] | None = None,
        std: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.precision = "float32"
        self.register_buffer("mean", paddle.to_tensor(HALF if mean is None else mean))
        self.register_buffer("std", paddle.to_tensor(HALF if std is None else std))
        block = BottleneckBlock if config.depth in BOTTLENECK_DEPTHS else BasicBlock
        if config.stem == "cifar":
            self.stem = nn.Sequential(Convolution(3, config.width, 3), BatchNorm(config.width))
        else:
            self.stem = nn.Sequential(
                Convolution(3, config.width, 7, 2),
                BatchNorm(config.width),
                nn.MaxPool2D(3, 2, 1, data_format="NHWC"),
            )
        channels = config.width
        groups = []
        for group, blocks in enumerate(BLOCKS_PER_GROUP[config.depth]):
            layers = []
            for index in range(blocks):
                stride = 2 if group > 0 and index == 0 else 1
                layers.append(block(channels, config.width * 2**group, stride))
                channels = config.width * 2**group * block.expansion
            groups.append(nn.Sequential(*layers))
        self.groups = nn.Sequential(*groups)
        self.classifier = nn.Linear(channels, config.classes)
        self.engine = Trunk() if onednn.available() else None

    def forward(self, images: paddle.Tensor, size: int | None = None) -> paddle.Tensor:
        """Logits of a batch, whose images are scaled to `size` × `size` first if that is given.

        In evaluation mode the engine gives no gradients. It folds batch norm into the convolutions
        at the first batch after each call of `eval()`.
        """
        x = resize(normalise(images, self.mean, self.std), size)
        return self.classifier(self.features(x).mean([1, 2]))

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """The maps (N, H', W', C) of the last block, from normalised images (N, H, W, 3)."""
        on_cpu, half = x.place.is_cpu_place(), self.precision != "float32"
        if self.engine is None or not on_cpu:
            with paddle.amp.auto_cast(half, dtype=self.precision if half else "float16"):
                return self.plain_features(x, padded=half and not on_cpu)
        if not self.engine.parts:
            self.engine.attach(self)
        if self.training:
            return self.engine.forward(x, self.precision)
        return self.engine.infer(x, self.precision)

    def plain_features(self, x: paddle.Tensor, padded: bool) -> paddle.Tensor:
        """The same by Paddle's own layers; `padded`: as tensor cores take the images."""
        convolution, *others = self.stem
        x = convolution.forward_padded(x) if padded else convolution(x)
        for layer in others:
            x = layer(x)
        return self.groups(x).astype("float32")

    def eval(self) -> None:
        """Switch to evaluation mode, with the parameters as they are now."""
        super().eval()
        if self.engine is not None:
            self.engine.refold()

    def set_precision(self, precision: str) -> None:
        """Compute the convolutions in float32, bfloat16 or float16 from now on.

        Raises `ValueError` for any other, and for float16 while the network is on a CPU.
        """
        if precision not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"there is no precision {precision}")
        if precision == "float16" and self.mean.place.is_cpu_place():
            raise ValueError("float16 is for GPUs, and this network is on a CPU")
        self.precision = precision

    def fuse_batch_norm(self) -> None:
        """Have the ends of the blocks trained by a fused operator from now on: see `BatchNorm`."""
        for layer in self.sublayers():
            if isinstance(layer, BasicBlock | BottleneckBlock):
                layer.last_norm.fused = True


@contextmanager
def plain_layers(network: ResNet) -> Iterator[None]:
    """Within, the network runs by Paddle's own layers alone, for hooks and comparisons."""
    engine, network.engine = network.engine, None
    try:
        yield
    finally:
        network.engine = engine


def weights_of(network: nn.Layer) -> list[paddle.Tensor]:
    """The tensors that training changes by their gradients."""
    return [p for p in network.parameters() if not p.stop_gradient]


def statistics_of(network: nn.Layer) -> list[paddle.Tensor]:
    """The running means and variances of batch norm, which Paddle counts among the parameters."""
    return [p for p in network.parameters() if p.stop_gradient]


def build_resnet(
    config: ResNetConfig,
    seed: int,
    mean: NDArray[np.float32] | None = None,
    std: NDArray[np.float32] | None = None,
    zero_init_residual: bool = False,
    dirac_init: bool = False,
) -> ResNet:
    """A ResNet with He initialisation (https://arxiv.org/abs/1502.01852), the same for one `seed`.

    With `zero_init_residual` each block starts as its shortcut: the scale of its last batch norm is
    zero (Goyal et al., https://arxiv.org/abs/1706.02677, section 5.1). With `dirac_init` the 3×3
    convolutions of the blocks start by passing on their input, in as many of their output channels
    as there are input channels (Jordan, https://arxiv.org/abs/2404.00498, section 3.3).
    """
    paddle.seed(seed)
    network = ResNet(config, mean, std)
    he_normal = nn.initializer.KaimingNormal()
    for layer in network.sublayers():
        if isinstance(layer, nn.Conv2D):
            he_normal(layer.weight)
        elif zero_init_residual and isinstance(layer, BasicBlock | BottleneckBlock):
            nn.initializer.Constant(0.0)(layer.last_norm.weight)
    for layer in network.groups.sublayers() if dirac_init else ():
        if isinstance(layer, Convolution) and layer.weight.shape[-1] == 3:
            _pass_input_on(layer.weight)
    return network


def _pass_input_on(weight: paddle.Tensor) -> None:
    """Make the filters (K, C, 3, 3) the identity of the input channels, as far as both go."""
    values = weight.numpy()
    channels = range(min(values.shape[:2]))
    values[channels] = 0
    values[channels, channels, 1, 1] = 1
    weight.set_value(values)
