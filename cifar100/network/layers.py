"""The layers of the network as Paddle has them, for maps (N, H, W, C): channels are the last axis.

On a CPU `cifar100.network.onednn` computes what they stand for; on a GPU, in a saved program and
where oneDNN is missing they run themselves. Tests compare the two.
"""

import paddle
import paddle.nn.functional as F
from paddle import _C_ops

TENSOR_CORE_CHANNELS = 8  # of float16 at a time


class Convolution(paddle.nn.Conv2D):
    """Convolution with padding kernel // 2 and without a bias.

    (N, H, W, C) to (N, ⌈H/stride⌉, ⌈W/stride⌉, K); the weight is (K, C, kernel, kernel).
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

    def forward_padded(self, x: paddle.Tensor) -> paddle.Tensor:
        """The same, computed with channels of zeros that make their number a multiple of 8.

        For images of 3 channels on tensor cores: NVIDIA, "Convolutional Layers User's Guide"
        (https://docs.nvidia.com/deeplearning/performance/dl-performance-convolutional/).
        """
        zeros = -x.shape[3] % TENSOR_CORE_CHANNELS
        x = F.pad(x, [0, 0, 0, 0, 0, 0, 0, zeros])
        weight = F.pad(self.weight, [0, 0, 0, zeros, 0, 0, 0, 0])
        return F.conv2d(
            x, weight, stride=self._stride, padding=self._padding, data_format=self._data_format
        )


class BatchNorm(paddle.nn.BatchNorm2D):
    """Batch norm (https://arxiv.org/abs/1502.03167), plus a shortcut if there is one, then ReLU.

    fused: compute all three by one operator in training, which GPUs have for float16 alone.
    """

    def __init__(self, channels: int, relu: bool = True) -> None:
        super().__init__(channels, data_format="NHWC")
        self.relu, self.fused = relu, False

    def forward(self, x: paddle.Tensor, shortcut: paddle.Tensor | None = None) -> paddle.Tensor:
        """Normalise `x` over all but its last axis, in training by the statistics of the batch."""
        if self.fused and self.training and shortcut is not None:
            return self._forward_fused(x, shortcut)
        y = super().forward(x)
        y = y if shortcut is None else y + shortcut
        return F.relu(y) if self.relu else y

    def _forward_fused(self, x: paddle.Tensor, shortcut: paddle.Tensor) -> paddle.Tensor:
        """The same, with ReLU, by cuDNN's operator for it. Written after Paddle's source, not run.

        auto_cast would make all inputs float32, as the scale is, and the operator has no float32.
        """
        with paddle.amp.auto_cast(False):
            y, *_ = _C_ops.fused_bn_add_activation(
                x,
                shortcut,
                self.weight,
                self.bias,
                self._mean,
                self._variance,
                self._momentum,
                self._epsilon,
                "relu",
            )
        return y
