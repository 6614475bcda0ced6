"""One training: the network, its optimizer and its averaged weights, epoch by epoch."""

import copy
import math
import sys
from collections.abc import Callable
from itertools import islice

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from stages.network.inputs import channel_statistics, normalise, resize
from stages.network.resnet import ResNet, ResNetConfig, build_resnet, statistics_of, weights_of
from stages.network.whitening import whiten_stem
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from stages.training.batches import Augmentation, Batch, epoch_batches
from stages.training.schedule import image_size, learning_rate
from stages.training.workers import average_over_workers, total, worker_count, worker_rank

CHECK_EVERY = 20  # steps between looks at the loss; each look waits for the device


class Trainer:
    """The state of a training: network, optimizer, averaged weights, and how far it has come.

    epoch: epochs done · step: steps done in the epoch under way · sums: of the loss and the right
    answers over these steps, (2,) and this worker's own.
    """

    def __init__(
        self,
        params: TrainParameters,
        network: ResNet,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        images: int,
    ) -> None:
        self.params = params
        self.network = network
        self.mean, self.std = mean, std
        self.steps = images // params.batch_size
        self.optimizer = make_optimizer(network, params)
        self.averaged = copy.deepcopy(network) if params.ema_decay else None
        # On GPUs DataParallel averages the gradients, on CPU cores run_step does, which is faster.
        self.data_parallel = worker_count() > 1 and paddle.get_device() != "cpu"
        self.forward = paddle.DataParallel(network) if self.data_parallel else network
        half = params.precision in ("auto", "float16")
        self.mixed_precision = half and paddle.get_device() != "cpu"
        self.scaler = paddle.amp.GradScaler(enable=self.mixed_precision)
        self.epoch = self.step = 0
        self.sums = paddle.zeros([2])

    def run_epoch(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        at_check: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Train on the batches of the epoch that are left; return its row of the history.

        `at_check` is called every 20 steps, when the loss has been found finite. Raises
        `PipelineError` if it is not.
        """
        params, epoch = self.params, self.epoch
        augmentation = Augmentation(params.crop_padding, params.flip, params.mixup, params.cutmix)
        batches = epoch_batches(
            images,
            labels,
            params.batch_size,
            augmentation,
            params.seed,
            epoch,
            worker_rank(),
            worker_count(),
        )
        size = image_size(
            epoch, params.epochs, params.progressive_sizes, params.progressive_fraction
        )
        self.network.train()
        visible = worker_rank() == 0 and sys.stderr.isatty()
        with tqdm(
            initial=self.step * params.batch_size,
            total=self.steps * params.batch_size,
            desc=f"epoch {epoch + 1}/{params.epochs}",
            unit=" images",
            disable=not visible,
            leave=False,
        ) as bar:
            for batch in islice(batches, self.step, None):
                rate = self.learning_rate(epoch * self.steps + self.step)
                loss, hits = self.run_step(batch, size, rate)
                self.sums = self.sums + paddle.stack([loss, hits.astype("float32")])
                self.step += 1
                bar.update(params.batch_size)
                if self.step % CHECK_EVERY == 0 or self.step == self.steps:
                    loss_sum, hits_sum = self.sums.tolist()
                    if not math.isfinite(loss_sum):
                        raise PipelineError(
                            f"the mean loss is {loss_sum / self.step} in epoch {epoch + 1}, "
                            f"step {self.step}, at lr {rate:.3g}; "
                            "try a smaller lr or a longer warmup"
                        )
                    top1 = hits_sum / (self.step * len(batch.labels))
                    bar.set_postfix_str(f"loss {loss_sum / self.step:.3f}, top-1 {top1:.1%}")
                    if at_check is not None and self.step < self.steps:
                        at_check()
        average_over_workers(statistics_of(self.network))
        if self.averaged is not None:
            copy_tensors(statistics_of(self.network), statistics_of(self.averaged))
        loss_sum, hits_sum = total(self.sums.tolist())
        self.epoch, self.step, self.sums = epoch + 1, 0, paddle.zeros([2])
        return {
            "epoch": epoch + 1,
            "lr": rate,
            "image_size": size,
            "train_loss": loss_sum / (self.steps * worker_count()),
            "train_top1": hits_sum / (self.steps * params.batch_size),
        }

    def run_step(self, batch: Batch, size: int, rate: float) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Update the weights once; return the loss and the number of right answers."""
        images = resize(normalise(paddle.to_tensor(batch.images), self.mean, self.std), size)
        labels = paddle.to_tensor(batch.labels)
        with paddle.amp.auto_cast(enable=self.mixed_precision):
            logits = self.forward(images)
            loss = self.loss(logits, labels)
            if batch.weight < 1:
                mixed = self.loss(logits, paddle.to_tensor(batch.mixed_labels))
                loss = batch.weight * loss + (1 - batch.weight) * mixed
        self.optimizer.set_lr(rate)
        self.scaler.scale(loss).backward()
        if not self.data_parallel:
            average_over_workers([weight.grad for weight in weights_of(self.network)])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad()
        self.update_average()
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    def loss(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        """Mean cross-entropy of (N, classes) logits and (N,) labels, with label smoothing."""
        return F.cross_entropy(
            logits.astype("float32"), labels, label_smoothing=self.params.label_smoothing
        )

    def learning_rate(self, step: int) -> float:
        """The learning rate of the step with this number, counted over all epochs."""
        params = self.params
        return learning_rate(
            step / (params.epochs * self.steps),
            params.lr,
            params.schedule,
            params.warmup,
            params.lr_steps,
            params.lr_gamma,
        )

    def update_average(self) -> None:
        """Move the averaged weights, if there are any, towards the current ones."""
        if self.averaged is None:
            return
        decay = self.params.ema_decay
        with paddle.no_grad():
            pairs = zip(weights_of(self.averaged), weights_of(self.network), strict=True)
            for average, current in pairs:
                average.set_value(decay * average + (1 - decay) * current)

    def result(self) -> ResNet:
        """The network to validate and to save: the averaged one if there is one."""
        return self.network if self.averaged is None else self.averaged


def initial_network(
    params: TrainParameters, images: NDArray[np.uint8]
) -> tuple[ResNet, NDArray[np.float32], NDArray[np.float32]]:
    """The network before training, and mean and std (3,) of the training images (N, 3, H, W)."""
    mean, std = channel_statistics(images)
    config = ResNetConfig(params.depth, params.width, params.stem)
    network = build_resnet(config, params.seed, params.zero_init_residual, params.dirac_init)
    if params.whiten_stem:
        whiten_stem(network, images, mean, std)
    return network, mean, std


def make_optimizer(network: ResNet, params: TrainParameters) -> paddle.optimizer.Momentum:
    """SGD with momentum; weight decay on convolution and linear weights only."""
    weights = [p for p in weights_of(network) if p.ndim > 1]
    others = [p for p in weights_of(network) if p.ndim <= 1]
    return paddle.optimizer.Momentum(
        params.lr,
        params.momentum,
        parameters=[
            {"params": weights, "weight_decay": params.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        use_nesterov=params.nesterov,
    )


def copy_tensors(sources: list[paddle.Tensor], targets: list[paddle.Tensor]) -> None:
    """Give each target the value of its source."""
    for source, target in zip(sources, targets, strict=True):
        target.set_value(source)
