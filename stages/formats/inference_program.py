"""Writes a network as a program for Paddle Inference, and runs it."""

from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle.static import InputSpec

from stages.network.batch_norm import BatchNorm
from stages.network.convolution import Convolution
from stages.network.inputs import normalise
from stages.network.storage import TrainedModel


class NormalisedNetwork(paddle.nn.Layer):
    """uint8 images (N, 3, 32, 32) to logits: the network with the normalisation before it."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.network = model.network
        self.mean, self.std = model.mean, model.std

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Normalise and classify."""
        return self.network(normalise(images, self.mean, self.std))


def save_program(model: TrainedModel, folder: Path) -> None:
    """Write model.json and model.pdiparams into `folder`; of plain operators, for any device."""
    for layer in model.network.sublayers():
        if isinstance(layer, BatchNorm | Convolution):
            layer.compiled = False
    spec = InputSpec([None, 3, 32, 32], "uint8", "images")
    paddle.jit.save(NormalisedNetwork(model), str(folder / "model"), input_spec=[spec])


def program_logits(folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (N, classes) of images (N, 3, 32, 32) by the program in `folder`."""
    program = paddle.jit.load(str(folder / "model"))
    program.eval()
    with paddle.no_grad():
        return np.asarray(program(paddle.to_tensor(images)).numpy())
