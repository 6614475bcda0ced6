"""The training loop: epochs of SGD with validation after each, the same code on CPU and GPU."""

import copy
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from stages.dataset.splits import load_classes, load_split
from stages.hardware.device import make_reproducible
from stages.network.resnet import ResNet, ResNetConfig, build_resnet, statistics_of, weights_of
from stages.network.storage import normalise, save_description, save_weights
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from stages.running.outputs import write_text
from stages.training.batches import Augmentation, Batch, epoch_batches
from stages.training.schedule import image_size, learning_rate
from stages.training.workers import average_over_workers, total, worker_count, worker_rank

CHECK_EVERY = 20  # steps between looks at the loss; each look waits for the device
VALIDATION_BATCH = 250


@dataclass(frozen=True)
class Job:
    """All that a training process needs to know."""

    params: TrainParameters
    device: str
    train: Path
    val: Path
    classes: Path
    weights: Path
    description: Path
    history: Path
    timing: Path


def train(job: Job) -> None:
    """Train the network of `job.params` and write its four outputs; runs in every worker.

    Raises `PipelineError` if the data do not fit the params or the loss is not finite.
    """
    params, first = job.params, worker_rank() == 0
    paddle.set_device(job.device)
    make_reproducible()
    data, val = load_split(job.train), load_split(job.val)
    classes = asdict(load_classes(job.classes))
    if params.batch_size > len(data):
        raise PipelineError(
            f"params.yaml: batch_size: {params.batch_size} exceeds the {len(data)} training images"
        )
    mean, std = channel_statistics(data.images)
    config = ResNetConfig(params.depth, params.width, params.stem)
    network = build_resnet(config, params.seed, params.zero_init_residual)
    trainer = Trainer(params, network, mean, std, len(data))
    started = time.perf_counter()
    rows: list[dict[str, float]] = []
    for epoch in range(params.epochs):
        epoch_started = time.perf_counter()
        row = trainer.run_epoch(epoch, data.images, data.fine)
        speed = trainer.steps * params.batch_size / (time.perf_counter() - epoch_started)
        row |= validate(trainer.result(), val.images, val.fine, mean, std, int(row["image_size"]))
        rows.append(row)
        if first:
            seconds = time.perf_counter() - started
            print(epoch_line(row, params.epochs, speed, seconds), flush=True)
    if first:
        images = params.epochs * trainer.steps * params.batch_size
        save_weights(job.weights, trainer.result())
        save_description(job.description, config, mean, std, classes)
        write_text(job.history, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
        timing = {"train_seconds": round(seconds), "images_per_second": round(images / seconds, 1)}
        write_text(job.timing, json.dumps(timing, indent=1) + "\n")


class Trainer:
    """The state of a training: network, optimizer and averaged weights."""

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
        self.forward = paddle.DataParallel(network) if worker_count() > 1 else network
        self.mixed_precision = params.mixed_precision and paddle.get_device() != "cpu"
        self.scaler = paddle.amp.GradScaler(enable=self.mixed_precision)

    def run_epoch(
        self, epoch: int, images: NDArray[np.uint8], labels: NDArray[np.int64]
    ) -> dict[str, float]:
        """Train on each batch of the epoch once; return the epoch's row of the history."""
        params = self.params
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
        loss_sum, correct = paddle.zeros([]), paddle.zeros([], dtype="int64")
        visible = worker_rank() == 0 and sys.stderr.isatty()
        label = f"epoch {epoch + 1}/{params.epochs}"
        with tqdm(
            total=self.steps * params.batch_size,
            desc=label,
            unit=" images",
            disable=not visible,
            leave=False,
        ) as bar:
            for step, batch in enumerate(batches):
                rate = self.learning_rate(epoch * self.steps + step)
                loss, hits = self.run_step(batch, size, rate)
                loss_sum, correct = loss_sum + loss, correct + hits
                bar.update(params.batch_size)
                if step % CHECK_EVERY == 0 or step == self.steps - 1:
                    mean_loss = float(loss_sum) / (step + 1)
                    if not math.isfinite(mean_loss):
                        raise PipelineError(
                            f"the mean loss is {mean_loss} in epoch {epoch + 1}, step {step + 1}, "
                            f"at lr {rate:.3g}; try a smaller lr or a longer warmup"
                        )
                    top1 = float(correct) / ((step + 1) * len(batch.labels))
                    bar.set_postfix_str(f"loss {mean_loss:.3f}, top-1 {top1:.1%}")
        average_over_workers(statistics_of(self.network))
        if self.averaged is not None:
            copy_tensors(statistics_of(self.network), statistics_of(self.averaged))
        losses, hits_sum = total([float(loss_sum), float(correct)])
        return {
            "epoch": epoch + 1,
            "lr": rate,
            "image_size": size,
            "train_loss": losses / (self.steps * worker_count()),
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


def resize(images: paddle.Tensor, size: int) -> paddle.Tensor:
    """Scale images (N, 3, S, S) to (N, 3, size, size), bilinearly."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, [size, size], mode="bilinear", align_corners=False)


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation per channel of (N, 3, H, W) images, each (3,), on the scale 0 to 1."""
    counts = np.stack([np.bincount(images[:, c].ravel(), minlength=256) for c in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    return mean.astype(np.float32), std.astype(np.float32)


def validate(
    network: ResNet,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
    size: int,
) -> dict[str, float]:
    """Loss and accuracy on the validation split at this image size; workers share the batches."""
    network.eval()
    sums = np.zeros(3)
    starts = range(0, len(labels), VALIDATION_BATCH)[worker_rank() :: worker_count()]
    with paddle.no_grad():
        for start in starts:
            rows = slice(start, start + VALIDATION_BATCH)
            logits = network(resize(normalise(paddle.to_tensor(images[rows]), mean, std), size))
            expected = paddle.to_tensor(labels[rows])
            ranked = logits.topk(5)[1]
            right = ranked == expected.unsqueeze(1)
            sums += [
                float(F.cross_entropy(logits, expected, reduction="sum")),
                float(right[:, 0].sum()),
                float(right.sum()),
            ]
    loss, top1, top5 = (value / len(labels) for value in total(sums.tolist()))
    return {"val_loss": loss, "val_top1": top1, "val_top5": top5}


def epoch_line(row: dict[str, float], epochs: int, speed: float, seconds: float) -> str:
    """One line with aligned columns; `speed` in images/s, `seconds` since the training began."""
    left = seconds / row["epoch"] * (epochs - row["epoch"])
    return (
        f"epoch {row['epoch']:>3}/{epochs}  {row['image_size']} px  lr {row['lr']:.4f}  "
        f"train loss {row['train_loss']:.3f} top-1 {row['train_top1']:6.2%}  "
        f"val loss {row['val_loss']:.3f} top-1 {row['val_top1']:6.2%}  "
        f"{speed:6,.0f} images/s  {seconds / 60:5.1f} min, about {left / 60:.1f} left"
    )
