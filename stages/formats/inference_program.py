"""Writes a network as a program for Paddle Inference, and runs it."""

from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle.static import InputSpec

from stages.network.resnet import ResNet, plain_layers
from stages.network.storage import TrainedModel


class ChannelsFirst(paddle.nn.Layer):
    """uint8 images (N, 3, 32, 32) to logits, as users of other formats expect them."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Classify."""
        return self.network(images.transpose([0, 2, 3, 1]))


def save_program(model: TrainedModel, folder: Path) -> None:
    """Write model.json and model.pdiparams into `folder`; of plain operators, for any device."""
    spec = InputSpec([None, 3, 32, 32], "uint8", "images")
    with plain_layers(model.network):
        paddle.jit.save(ChannelsFirst(model.network), str(folder / "model"), input_spec=[spec])


def program_logits(folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (N, classes) of images (N, 3, 32, 32) by the program in `folder`."""
    program = paddle.jit.load(str(folder / "model"))
    program.eval()
    with paddle.no_grad():
        return np.asarray(program(paddle.to_tensor(images)).numpy())
