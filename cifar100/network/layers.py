"""The layers of the network as Paddle has them, for maps (N, H, W, C): channels are the last axis.

On a CPU `cifar100.network.onednn` computes what they stand for; on a GPU, in a saved program and
where oneDNN is missing they run themselves. Tests compare the two.
"""

import paddle
import paddle.nn.functional as F


class Convolution(paddle.nn.Conv2D):
    """Convolution with padding kernel // 2 and without a bias.

    (N, H, W, C) to (N, H/stride, W/stride, K); the weight is (K, C, kernel, kernel).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            stride,
            kernel // 2,
            bias_attr=False,
            data_format="NHWC",
        )


class BatchNorm(paddle.nn.BatchNorm2D):
    """Batch norm (https://arxiv.org/abs/1502.03167), plus a shortcut if there is one, then ReLU."""

    def __init__(self, channels: int, relu: bool = True) -> None:
        super().__init__(channels, data_format="NHWC")
        self.relu = relu

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor | None = None) -> paddle.Tensor:
        """Normalise `x` over all but its last axis, in training by the statistics of the batch."""
        y = super().forward(x)
        y = y if shortcut is None else y + shortcut
        return F.relu(y) if self.relu else y
