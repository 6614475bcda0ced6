"""Trains the PyTorch peer for a given time: the second half of benchmarks/time_to_accuracy.py."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.machine import precision_of_peer
from benchmarks.peer_recipe import (
    BATCH_SIZE,
    MEAN,
    MOMENTUM,
    STD,
    WEIGHT_DECAY,
    augment,
    learning_rate,
)
from benchmarks.torch_resnet import torch_resnet
from cifar100.running import cpu

LAYOUT = torch.channels_last  # the faster of PyTorch's two
PRECISION = precision_of_peer()

Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, 3, 32, 32) and labels (N,)


class Training:
    """The network and its optimizer."""

    def __init__(self, depth: int, width: int) -> None:
        torch.manual_seed(0)
        self.network = torch_resnet(depth, width).to(memory_format=LAYOUT)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=0.0,
            momentum=MOMENTUM,
            nesterov=True,
            weight_decay=WEIGHT_DECAY,
        )

    def inputs(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 images (N, 3, 32, 32) to normalised float32."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        return ((torch.from_numpy(images) / 255 - mean) / std).contiguous(memory_format=LAYOUT)

    def step(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], rate: float
    ) -> torch.Tensor:
        """Update the weights once, the network in `PRECISION`; return the loss."""
        self.optimizer.param_groups[0]["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bfloat16"):
            loss = F.cross_entropy(self.network(self.inputs(images)), torch.from_numpy(labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def top1(self, split: Split, flip: bool = False) -> float:
        """The share of images whose class is found, in float32; `flip`: mirror images count too."""
        images, labels = split
        self.network.eval()
        with torch.no_grad():
            logits = [self.logits(images[i : i + 250], flip) for i in range(0, len(images), 250)]
        self.network.train()
        return float((torch.cat(logits).argmax(1).numpy() == labels).mean())

    def logits(self, images: NDArray[np.uint8], flip: bool) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, 32, 32); twice those, summed, with `flip`."""
        inputs = self.inputs(images)
        logits: torch.Tensor = self.network(inputs)
        return logits + self.network(inputs.flip(3)) if flip else logits


def main() -> None:
    """Write a row per score: validation after each epoch, test after the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="with train, val and test .npz")
    parser.add_argument("--seconds", type=float, required=True, help="of training")
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--flip", action="store_true", help="score test images as eval_flip does")
    parser.add_argument("--output", type=Path, required=True, help="a CSV file")
    options = parser.parse_args()
    torch.set_num_threads(len(cpu.available_cores()))
    splits = {name: load(options.data / f"{name}.npz") for name in ("train", "val", "test")}
    lines = ["epoch,minutes,split,top1,precision"]
    for epoch, seconds, split, top1 in train(options, splits):
        lines.append(f"{epoch:.2f},{seconds / 60:.4f},{split},{top1:.4f},{PRECISION}")
    options.output.write_text("\n".join([*lines, ""]), encoding="utf-8")


def load(path: Path) -> Split:
    """Images and fine labels of a split that the stage preprocess wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return stored["images"], stored["fine"]


def train(
    options: argparse.Namespace, splits: dict[str, Split]
) -> list[tuple[float, float, str, float]]:
    """Train for `options.seconds`, whose share that is over sets the rate; a row per score."""
    images, labels = splits["train"]
    training, rng = Training(options.depth, options.width), np.random.default_rng(0)
    per_epoch = len(images) // BATCH_SIZE
    print(f"peer: {options.seconds / 60:.1f} minutes in {PRECISION}", flush=True)
    rows: list[tuple[float, float, str, float]] = []
    seconds = 0.0  # of training alone
    step = 0
    while seconds < options.seconds:
        started, before = time.perf_counter(), seconds
        order = rng.permutation(len(images))
        for batch in np.split(order[: per_epoch * BATCH_SIZE], per_epoch):
            rate = learning_rate(step, per_epoch, progress=seconds / options.seconds)
            loss = training.step(augment(images[batch], rng), labels[batch], rate)
            step += 1
            seconds = before + time.perf_counter() - started
            if seconds >= options.seconds:
                break
        top1 = training.top1(splits["val"])
        rows.append((step / per_epoch, seconds, "val", top1))
        print(
            f"epoch {step / per_epoch:5.2f}  lr {rate:.4f}  last loss {float(loss):.3f}  "
            f"val top-1 {top1:6.2%}  {seconds / 60:5.1f}/{options.seconds / 60:.1f} min",
            flush=True,
        )
    rows.append((step / per_epoch, seconds, "test", training.top1(splits["test"], options.flip)))
    print(f"test top-1 {rows[-1][-1]:.2%}", flush=True)
    return rows


if __name__ == "__main__":
    main()
