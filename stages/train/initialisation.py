"""The network and its optimizer before the first step."""

import paddle

from cifar100.dataset.samples import Samples
from cifar100.network.inputs import channel_statistics
from cifar100.network.resnet import ResNet, ResNetConfig, build_resnet, weights_of
from stages.train.params import TrainParameters
from stages.train.whitening import whiten_stem


def initial_network(params: TrainParameters, data: Samples) -> ResNet:
    """The network of the params, for images like those of the training data."""
    mean, std = channel_statistics(data.images)
    network = build_resnet(
        ResNetConfig(params.depth, params.width, params.stem),
        params.seed,
        mean,
        std,
        zero_init_residual=params.zero_init_residual,
        dirac_init=params.dirac_init,
    )
    if params.whiten_stem:
        whiten_stem(network, data.images)
    return network


def copy_of(network: ResNet) -> ResNet:
    """Another network with the same layers and values."""
    copy = ResNet(network.config)
    copy.set_state_dict(network.state_dict())
    return copy


def make_optimizer(
    network: ResNet, params: TrainParameters, loss_scale: int = 1
) -> paddle.optimizer.Momentum:
    """SGD with momentum; weight decay on convolution and linear weights only.

    For a loss that is multiplied by `loss_scale`, a power of two, the steps are the same if weight
    decay is multiplied and the learning rate divided by it: no bit but of rounding in float16
    changes.
    """
    weights = [p for p in weights_of(network) if p.ndim > 1]
    others = [p for p in weights_of(network) if p.ndim <= 1]
    return paddle.optimizer.Momentum(
        learning_rate=0.0,  # each step sets its own
        momentum=params.momentum,
        parameters=[
            {"params": weights, "weight_decay": params.weight_decay * loss_scale},
            {"params": others, "weight_decay": 0.0},
        ],
        use_nesterov=params.nesterov,
        use_multi_tensor=True,  # one operator for all weights; the same bits
    )
