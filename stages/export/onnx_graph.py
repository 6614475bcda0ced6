"""Writes a network as an ONNX graph.

The graph is built node by node, along the layers of the network, with each batch norm folded into
the convolution before it. So no converter is needed, which would have to suit each version of
Paddle.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from paddle import nn

from cifar100.network.resnet import BasicBlock, BottleneckBlock, ResNet
from cifar100.running.outputs import replacing
from cifar100.trained.loading import TrainedModel
from stages.export.onnx_check import largest_difference, onnx_logits

OPSET, IR_VERSION = 17, 8  # of 2021, which any runtime of today reads


class Graph:
    """The nodes and constants of a graph so far; values are known by their names."""

    def __init__(self, network: ResNet) -> None:
        self.names = {layer: name for name, layer in network.named_sublayers()}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add an operation; return the name of its output."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """Add a constant of 32-bit floats; return its name."""
        array = np.ascontiguousarray(values, np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def convolution(self, x: str, layer: nn.Conv2D, norm: nn.BatchNorm2D) -> str:
        """A convolution with its padding, and the batch norm after it."""
        weight, gain, shift, mean, variance = (
            tensor.numpy().astype(np.float64)
            for tensor in (layer.weight, norm.weight, norm.bias, norm._mean, norm._variance)
        )
        scale = gain / np.sqrt(variance + norm._epsilon)
        name = self.names[layer]
        return self.node(
            "Conv",
            x,
            self.constant(f"{name}.weight", weight * scale[:, None, None, None]),
            self.constant(f"{name}.bias", shift - scale * mean),
            kernel_shape=list(weight.shape[2:]),
            strides=list(layer._stride),
            pads=[weight.shape[-1] // 2] * 4,
        )

    def block(self, x: str, block: BasicBlock | BottleneckBlock) -> str:
        """A residual block."""
        projects = isinstance(block.shortcut, nn.Sequential)
        shortcut = self.convolution(x, *block.shortcut) if projects else x
        *first, last = block.units()
        for layers in first:
            x = self.node("Relu", self.convolution(x, *layers))
        return self.node("Relu", self.node("Add", self.convolution(x, *last), shortcut))


def write_onnx(
    path: Path, model: TrainedModel, images: NDArray[np.uint8], expected: NDArray[np.float32]
) -> float:
    """Write the ONNX model; return how far its logits of `images` are from `expected`.

    Raises `PipelineError` if they are too far; nothing is written then.
    """
    content = onnx_model(model).SerializeToString(deterministic=True)
    difference = largest_difference(onnx_logits(content, images), expected, path.name)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return difference


def onnx_model(model: TrainedModel) -> onnx.ModelProto:
    """The network with its normalisation as a checked ONNX model.

    Input: `images`, uint8 (N, 3, 32, 32), red, green, blue. Outputs: `logits` and, calibrated,
    `probabilities`, both float32 (N, classes). The class names are in its metadata.
    """
    network, classes = model.network, model.network.config.classes
    graph = Graph(network)
    mean, std = (tensor.numpy().reshape(1, 3, 1, 1) for tensor in (network.mean, network.std))
    scale, shift = graph.constant("scale", 1 / (255 * std)), graph.constant("shift", mean / std)
    x = graph.node("Cast", "images", to=TensorProto.FLOAT)
    x = graph.node("Sub", graph.node("Mul", x, scale), shift)
    convolution, norm, *pooling = network.stem
    x = graph.node("Relu", graph.convolution(x, convolution, norm))
    for _ in pooling:
        x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block in (block for group in network.groups for block in group):
        x = graph.block(x, block)
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    weight, bias = (
        graph.constant(f"classifier.{name}", getattr(network.classifier, name).numpy())
        for name in ("weight", "bias")
    )
    graph.node("Gemm", x, weight, bias, name="logits")
    divisor = graph.constant("temperature", model.temperature)
    graph.node("Softmax", graph.node("Div", "logits", divisor), name="probabilities", axis=1)
    exported = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"resnet{network.config.depth}",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, 32, 32])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", classes])
                for name in ("logits", "probabilities")
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cifar100-pipeline",
    )
    helper.set_model_props(exported, {"classes": json.dumps(model.class_names)})
    onnx.checker.check_model(exported, full_check=True)
    return exported
