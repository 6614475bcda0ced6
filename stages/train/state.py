"""All that a training is in the middle of: what has to be saved for it to be resumed."""

import math
import time
from dataclasses import dataclass, field

import paddle

from cifar100.dataset.samples import Samples
from cifar100.network.resnet import ResNet, statistics_of, weights_of
from cifar100.running.errors import PipelineError
from stages.train.cuda_graph import Graphs, record
from stages.train.group import Group
from stages.train.initialisation import copy_of, initial_network, make_optimizer
from stages.train.params import TrainParameters
from stages.train.schedule import image_size

FLOAT16_SCALE = 128  # of the loss: keeps small gradients above what float16 rounds to zero

Row = dict[str, float]


@dataclass
class TrainingState:
    """A network in training, and how far it has come.

    averaged: the moving average of weights and batch-norm statistics, if wanted · graphs: what
    replays steps on a GPU, if wanted · loss_scale: by which the loss is multiplied before the
    backward pass, and the learning rate divided · steps: of an epoch · epoch: epochs done · step:
    steps done in the epoch under way · sums: (2,), of the loss and of the correct predictions over
    these steps and this process · history and epoch_seconds: of the epochs done, a row of scores,
    and the seconds from the start of the training to the epoch's end · earlier: the seconds until
    it was resumed.
    """

    params: TrainParameters
    network: ResNet
    optimizer: paddle.optimizer.Momentum
    averaged: ResNet | None
    graphs: Graphs | None
    loss_scale: int
    steps: int
    epoch: int = 0
    step: int = 0
    sums: paddle.Tensor = field(default_factory=lambda: paddle.zeros([2]))
    history: list[Row] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    earlier: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.weights = weights_of(self.network)

    @classmethod
    def initial(
        cls, params: TrainParameters, data: Samples, device: str, precision: str, group: Group
    ) -> "TrainingState":
        """The state before the first step on these training images.

        Raises `PipelineError` if a batch is larger than the data, or cannot be shared equally.
        """
        if params.batch_size > len(data):
            raise PipelineError(
                f"params.yaml: batch_size: {params.batch_size} exceeds the {len(data)} training "
                "images"
            )
        if params.batch_size % group.size:
            raise PipelineError(
                f"params.yaml: batch_size: {params.batch_size} cannot be shared equally by "
                f"{group.size} processes; give a multiple"
            )
        paddle.set_device("cpu")  # where one seed gives the same first weights for all devices
        network = initial_network(params, data)
        averaged = copy_of(network) if params.ema_decay else None
        paddle.set_device(device)
        for each in (network, averaged):
            if each is not None:
                if device != "cpu":
                    each.to(device)
                each.set_precision(precision)
        graphs = None
        if params.cuda_graph:
            graphs = Graphs(record)
            network.fuse_batch_norm()
        loss_scale = FLOAT16_SCALE if precision == "float16" else 1
        optimizer = make_optimizer(network, params, loss_scale)
        steps = len(data) // params.batch_size
        return cls(params, network, optimizer, averaged, graphs, loss_scale, steps)

    @property
    def progress(self) -> float:
        """The share of all steps that is done, 0 to 1."""
        return (self.epoch * self.steps + self.step) / (self.params.epochs * self.steps)

    @property
    def result(self) -> ResNet:
        """The network to validate and to save: the averaged one if there is one."""
        return self.network if self.averaged is None else self.averaged

    @property
    def seconds(self) -> float:
        """How long the training has taken, without what was lost when it was killed."""
        return self.earlier + time.perf_counter() - self.started

    def add(self, loss: paddle.Tensor, correct: paddle.Tensor) -> None:
        """Count a step, its mean loss and its correct predictions; both stay on the device."""
        self.sums = self.sums + paddle.stack([loss, correct.astype("float32")])
        self.step += 1

    def running_loss(self, lr: float) -> float:
        """The mean loss of the epoch's steps so far; waits for the device.

        Raises `PipelineError` if the loss or a weight is not finite; `lr` is that of the last step.
        """
        # oneDNN's ReLU turns NaN into 0: the loss alone would not tell that weights are infinite
        sums = paddle.stack([weight.sum() for weight in self.weights])
        loss = float(self.sums[0]) / self.step if bool(sums.isfinite().all()) else math.nan
        check_finite("mean", loss, self.epoch + 1, self.step, lr)
        return loss

    def finish_epoch(self, lr: float, group: Group) -> Row:
        """Turn to the next epoch; return the row of the one that ends, without validation."""
        group.mean(statistics_of(self.network))
        if self.averaged is not None:
            group.mean(statistics_of(self.averaged))
        loss, correct = group.total(self.sums.tolist())
        self.epoch, self.step, self.sums = self.epoch + 1, 0, paddle.zeros([2])
        return {
            "epoch": self.epoch,
            "lr": lr,
            "image_size": image_size(self.params, self.epoch - 1),
            "train_loss": loss / (self.steps * group.size),
            "train_top1": correct / (self.steps * self.params.batch_size),
        }


def check_finite(which: str, loss: float, epoch: int, step: int, lr: float) -> None:
    """Raise `PipelineError` if the loss, `mean` or `validation`, says that training diverged."""
    if not math.isfinite(loss):
        raise PipelineError(
            f"the {which} loss is {loss} in epoch {epoch}, step {step}, at lr {lr:.3g}; "
            "try a smaller lr or a longer warmup"
        )
