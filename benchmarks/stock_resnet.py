"""The project's ResNet as Paddle users write it: the blocks of `paddle.vision`, the CIFAR stem."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from benchmarks.runner import BLOCKS_PER_GROUP, BOTTLENECK_DEPTHS, CLASSES


class Block(nn.Layer):
    """Two 3×3 convolutions and a shortcut: (N, C, H, W) to (N, K, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, channels, 3, stride, padding=1, bias_attr=False)
        self.norm1 = nn.BatchNorm2D(channels)
        self.conv2 = nn.Conv2D(channels, channels, 3, padding=1, bias_attr=False)
        self.norm2 = nn.BatchNorm2D(channels)
        self.downsample = downsample(in_channels, channels, stride)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Add the residual to the shortcut."""
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)) + identity)


class Bottleneck(nn.Layer):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the output has 4 × `channels` channels."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, channels, 1, bias_attr=False)
        self.norm1 = nn.BatchNorm2D(channels)
        self.conv2 = nn.Conv2D(channels, channels, 3, stride, padding=1, bias_attr=False)
        self.norm2 = nn.BatchNorm2D(channels)
        self.conv3 = nn.Conv2D(channels, 4 * channels, 1, bias_attr=False)
        self.norm3 = nn.BatchNorm2D(4 * channels)
        self.downsample = downsample(in_channels, 4 * channels, stride)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Add the residual to the shortcut."""
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.relu(self.norm3(self.conv3(x)) + identity)


def downsample(in_channels: int, out_channels: int, stride: int) -> nn.Layer | None:
    """A 1×1 projection for the shortcut where shapes need one, else None."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2D(in_channels, out_channels, 1, stride, bias_attr=False),
        nn.BatchNorm2D(out_channels),
    )


def stock_resnet(depth: int, width: int) -> nn.Layer:
    """Images (N, 3, H, W) to logits (N, 100)."""
    block = Bottleneck if depth in BOTTLENECK_DEPTHS else Block
    layers = [
        nn.Conv2D(3, width, 3, padding=1, bias_attr=False),
        nn.BatchNorm2D(width),
        nn.ReLU(),
    ]
    channels = width
    for group, blocks in enumerate(BLOCKS_PER_GROUP[depth]):
        for index in range(blocks):
            stride = 2 if group > 0 and index == 0 else 1
            layers.append(block(channels, width * 2**group, stride))
            channels = width * 2**group * block.expansion
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )
