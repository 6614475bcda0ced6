"""Writes a network as a program for Paddle Inference, and runs it there."""

import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from paddle import inference, nn
from paddle.static import InputSpec

from cifar100.network.inputs import normalise
from cifar100.network.resnet import ResNet
from cifar100.running.errors import PipelineError, reason_of
from cifar100.trained.loading import TrainedModel
from stages.export.onnx_check import largest_difference

# What Paddle raises for a file that it cannot write, read or understand
PADDLE_ERRORS = RuntimeError, ValueError, IndexError, OSError, SystemError


class ChannelsFirst(nn.Layer):
    """uint8 images (N, 3, 32, 32) to logits: a copy of a network, of plain operators on NCHW maps.

    Paddle Inference takes the channels of a convolution for the second axis when it optimises a
    program for a CPU.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for layer in self.network.sublayers():
            if isinstance(layer, nn.Conv2D | nn.BatchNorm2D):
                layer._data_format = "NCHW"
            elif isinstance(layer, nn.MaxPool2D):
                layer.data_format = "NCHW"

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Classify."""
        network = self.network
        x = normalise(images.transpose([0, 2, 3, 1]), network.mean, network.std)
        x = network.groups(network.stem(x.transpose([0, 3, 1, 2])))
        return network.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def write_program(
    folder: Path, model: TrainedModel, images: NDArray[np.uint8], expected: NDArray[np.float32]
) -> float:
    """Write `folder`, whole or not at all; return how far its logits are from `expected`.

    Raises `PipelineError` if they are too far, or if Paddle cannot read what it wrote.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        program, old = Path(name) / "new", Path(name) / "old"
        program.mkdir()
        try:
            save_program(model, program)
            found = program_logits(program, images)
        except PADDLE_ERRORS as error:  # Paddle does not notice that a disk is full when it writes
            raise PipelineError(
                f"{folder}: Paddle cannot read what it wrote ({reason_of(error)}); "
                f"the disk has {shutil.disk_usage(folder.parent).free:,} bytes free"
            ) from None
        difference = largest_difference(found, expected, f"{folder.name}/")
        if folder.exists():  # renamed, not deleted: what has this name is whole at any moment
            folder.rename(old)
        program.rename(folder)
    return difference


def save_program(model: TrainedModel, folder: Path) -> None:
    """Write model.json and model.pdiparams into `folder`, for any device."""
    spec = InputSpec([None, 3, 32, 32], "uint8", "images")
    network = ChannelsFirst(model.network)
    network.eval()
    paddle.jit.save(network, str(folder / "model"), input_spec=[spec])


def program_logits(folder: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits (N, classes) of images (N, 3, 32, 32) by the program in `folder`, on the CPU."""
    config = inference.Config(str(folder / "model.json"), str(folder / "model.pdiparams"))
    config.disable_glog_info()
    (logits,) = inference.create_predictor(config).run([paddle.to_tensor(images)])
    return np.asarray(logits.numpy())
