"""Table of a network's layers: `python -m tools.summary --depth 50 --width 64`."""

from typing import Any

import numpy as np
import paddle
import pandas as pd
from paddle import nn

from cifar100.network.resnet import ResNet, plain_layers, weights_of


def summarise(network: ResNet, size: int = 32) -> pd.DataFrame:
    """One row per layer with weights, in order of execution, and a last row with the sums.

    Columns: layer, output_shape (without the batch axis), parameters (trained values),
    multiply_adds (for one size×size image; convolutions and the classifier).
    """
    rows: list[dict[str, Any]] = []

    def record(name: str, layer: nn.Layer) -> Any:
        def hook(_layer: nn.Layer, _inputs: Any, output: paddle.Tensor) -> None:
            *sides, channels = output.shape[1:]
            shape = [channels, *sides]
            per_output = 0
            if isinstance(layer, nn.Conv2D):
                per_output = int(np.prod(layer.weight.shape[1:]))
            elif isinstance(layer, nn.Linear):
                per_output = layer.weight.shape[0]
            rows.append(
                {
                    "layer": name,
                    "output_shape": "×".join(map(str, shape)),
                    "parameters": sum(int(np.prod(p.shape)) for p in weights_of(layer)),
                    "multiply_adds": per_output * int(np.prod(shape)),
                }
            )

        return hook

    hooks = [
        layer.register_forward_post_hook(record(name, layer))
        for name, layer in network.named_sublayers()
        if isinstance(layer, nn.Conv2D | nn.BatchNorm2D | nn.Linear)
    ]
    training = network.training
    network.eval()
    with paddle.no_grad(), plain_layers(network):  # hooks see layers that run themselves
        network(paddle.zeros([1, size, size, 3]))
    network.train() if training else network.eval()
    for hook in hooks:
        hook.remove()
    table = pd.DataFrame(rows)
    total = {
        "layer": "total",
        "output_shape": "",
        "parameters": table["parameters"].sum(),
        "multiply_adds": table["multiply_adds"].sum(),
    }
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)
