"""The project's ResNet as Paddle users write it: the blocks of `paddle.vision`, the CIFAR stem."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from benchmarks.runner import BLOCKS_PER_GROUP, CLASSES


class Block(nn.Layer):
    """Two 3×3 convolutions and a shortcut: (N, C, H, W) to (N, K, H/stride, W/stride)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2D(in_channels, channels, 3, stride, padding=1, bias_attr=False)
        self.norm1 = nn.BatchNorm2D(channels)
        self.conv2 = nn.Conv2D(channels, channels, 3, padding=1, bias_attr=False)
        self.norm2 = nn.BatchNorm2D(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2D(in_channels, channels, 1, stride, bias_attr=False),
                nn.BatchNorm2D(channels),
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Add the residual to the shortcut."""
        identity = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(x)) + identity)


def stock_resnet(depth: int, width: int) -> nn.Layer:
    """Images (N, 3, H, W) to logits (N, 100)."""
    layers = [
        nn.Conv2D(3, width, 3, padding=1, bias_attr=False),
        nn.BatchNorm2D(width),
        nn.ReLU(),
    ]
    channels = width
    for group, blocks in enumerate(BLOCKS_PER_GROUP[depth]):
        for index in range(blocks):
            stride = 2 if group > 0 and index == 0 else 1
            layers.append(Block(channels, width * 2**group, stride))
            channels = width * 2**group
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )
