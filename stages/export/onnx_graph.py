"""Writes a stored network as an ONNX graph, from its weights and its description.

paddle2onnx does not read the programs of this version of Paddle. The network is regular, so its
graph is built here node by node, with each batch norm folded into the convolution before it.
"""

import json
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cifar100.network.resnet import BLOCKS_PER_GROUP, BOTTLENECK_DEPTHS
from cifar100.network.storage import TrainedModel

OPSET, IR_VERSION = 17, 8  # of 2021, which any runtime of today reads
EPSILON = 1e-5  # of Paddle's batch norm

Tensors = dict[str, NDArray[np.float32]]


class Graph:
    """The nodes and constants of a graph so far; values are known by their names."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
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

    def convolution(self, x: str, layer: str, norm: str, stride: int = 1) -> str:
        """The convolution `layer` with its padding, and the batch norm after it."""
        tensors = {
            name: values.astype(np.float64)
            for name, values in self.tensors.items()
            if name.startswith((f"{layer}.", f"{norm}."))
        }
        weight = tensors[f"{layer}.weight"]
        scale = tensors[f"{norm}.weight"] / np.sqrt(tensors[f"{norm}._variance"] + EPSILON)
        bias = tensors[f"{norm}.bias"] - scale * tensors[f"{norm}._mean"]
        padding = weight.shape[-1] // 2
        return self.node(
            "Conv",
            x,
            self.constant(f"{layer}.weight", weight * scale[:, None, None, None]),
            self.constant(f"{layer}.bias", bias),
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
        )

    def block(self, x: str, block: str, stride: int, bottleneck: bool) -> str:
        """A residual block."""
        shortcut = x
        if f"{block}.shortcut.0.weight" in self.tensors:
            shortcut = self.convolution(x, f"{block}.shortcut.0", f"{block}.shortcut.1", stride)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        for number, step in enumerate(strides[:-1], start=1):
            x = self.convolution(x, f"{block}.conv{number}", f"{block}.norm{number}", step)
            x = self.node("Relu", x)
        x = self.convolution(x, f"{block}.conv{len(strides)}", f"{block}.last_norm", strides[-1])
        return self.node("Relu", self.node("Add", x, shortcut))


def onnx_model(model: TrainedModel) -> onnx.ModelProto:
    """The network with its normalisation as a checked ONNX model.

    Input: `images`, uint8 (N, 3, 32, 32), red, green, blue. Outputs: `logits` and, calibrated,
    `probabilities`, both float32 (N, classes). The class names are in its metadata.
    """
    config = model.network.config
    tensors = {name: tensor.numpy() for name, tensor in model.network.state_dict().items()}
    graph = Graph(tensors)
    mean, std = (tensors[name].reshape(1, 3, 1, 1) for name in ("mean", "std"))
    scale, shift = graph.constant("scale", 1 / (255 * std)), graph.constant("shift", mean / std)
    x = graph.node("Cast", "images", to=TensorProto.FLOAT)
    x = graph.node("Sub", graph.node("Mul", x, scale), shift)
    x = graph.node(
        "Relu", graph.convolution(x, "stem.0", "stem.1", 1 if config.stem == "cifar" else 2)
    )
    if config.stem == "imagenet":
        x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for group, blocks in enumerate(BLOCKS_PER_GROUP[config.depth]):
        for index in range(blocks):
            stride = 2 if group > 0 and index == 0 else 1
            bottleneck = config.depth in BOTTLENECK_DEPTHS
            x = graph.block(x, f"groups.{group}.{index}", stride, bottleneck)
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    weight, bias = (
        graph.constant(name, tensors[name]) for name in ("classifier.weight", "classifier.bias")
    )
    graph.node("Gemm", x, weight, bias, name="logits")
    divisor = graph.constant("temperature", model.temperature)
    graph.node("Softmax", graph.node("Div", "logits", divisor), name="probabilities", axis=1)
    exported = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"resnet{config.depth}",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 3, 32, 32])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", config.classes])
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
