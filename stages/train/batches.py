"""The training batches of an epoch: random numbers from the host, images gathered on the device.

The host draws an epoch's numbers at once and uploads them once. Each step then waits for nothing,
and the same code serves CPU and GPU, and one process or several.
"""

from dataclasses import dataclass

import numpy as np
import paddle
from numpy.typing import NDArray

from cifar100.dataset.samples import Samples
from stages.train.augmentation import Mix, draw_crops, draw_mix, source_positions
from stages.train.group import Group
from stages.train.params import TrainParameters


class DeviceImages:
    """Images and labels of a split on the device, to be gathered from pixel by pixel.

    pixels: uint8 (N · S · S, 3) · labels: int64 (N,) · side: S.
    """

    def __init__(self, samples: Samples) -> None:
        self.side = samples.images.shape[-1]
        last = np.ascontiguousarray(samples.images.transpose(0, 2, 3, 1))
        self.pixels = paddle.to_tensor(last.reshape(-1, 3))
        self.labels = paddle.to_tensor(samples.fine.astype(np.int64))

    def __len__(self) -> int:
        return self.labels.size

    def range(self, start: int, stop: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Images (N, S, S, 3) and labels (N,) from `start` to before `stop`, as they are stored."""
        pixels = self.pixels[start * self.side**2 : stop * self.side**2]
        return pixels.reshape([-1, self.side, self.side, 3]), self.labels[start:stop]


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    images: (B, S, S, 3) on the scale 0 to 255, uint8, or float32 where they are blended · labels:
    (B,) · mixed_labels: (B,), or None · ratio: the share of `labels`, () where it is a tensor; the
    rest is that of `mixed_labels`.
    """

    images: paddle.Tensor
    labels: paddle.Tensor
    mixed_labels: paddle.Tensor | None = None
    ratio: float | paddle.Tensor = 1.0


class EpochPlan:
    """Which images the steps of one epoch show, in which order, and how they are changed.

    The images that are left when the shuffled epoch is cut into whole batches are left out: each
    step has the same size. `seed` and `epoch` determine the plan, whatever the number of processes.
    """

    def __init__(
        self, data: DeviceImages, params: TrainParameters, epoch: int, group: Group
    ) -> None:
        self.data = data
        self.batch_size = params.batch_size
        self.share = params.batch_size // group.size
        self.first = group.rank * self.share  # row of the batch with which this process's begin
        steps = len(data) // params.batch_size

        rng = np.random.default_rng([params.seed, epoch])
        order = rng.permutation(len(data))[: steps * params.batch_size]
        crops = np.empty((3, len(order)), np.int32)  # image, and rows of `positions` for its crop
        partners = np.arange(len(order), dtype=np.int32)  # places in `order`
        crops[0] = order
        self.mixes: list[Mix | None] = []
        for start in range(0, len(order), params.batch_size):
            rows = slice(start, start + params.batch_size)
            crops[1:, rows] = draw_crops(params.batch_size, params.crop_padding, params.flip, rng)
            mix = draw_mix(params.batch_size, data.side, params.mixup, params.cutmix, rng)
            if mix is not None:
                partners[rows] = start + mix.partner
            self.mixes.append(mix)
        positions: NDArray[np.int64] = source_positions(data.side, params.crop_padding)
        self.crops, self.partners = paddle.to_tensor(crops), paddle.to_tensor(partners)
        self.positions = paddle.to_tensor(positions.astype(np.int32))
        self.line = paddle.arange(data.side)

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of a step, counted from 0."""
        start = step * self.batch_size + self.first
        mine = slice(start, start + self.share)
        crops, mix = self.crops[:, mine], self.mixes[step]
        pixels, labels = self._pixels(crops), paddle.gather(self.data.labels, crops[0])
        if mix is None:
            return Batch(self._images(pixels), labels)
        partners = paddle.gather(self.crops, self.partners[mine], axis=1)
        others = self._pixels(partners)
        if mix.box is None:
            own, other = (self._images(each).astype("float32") for each in (pixels, others))
            images = mix.ratio * own + (1 - mix.ratio) * other
        else:
            images = self._images(paddle.where(self._inside(mix.box), others, pixels))
        return Batch(images, labels, paddle.gather(self.data.labels, partners[0]), mix.ratio)

    def _pixels(self, crops: paddle.Tensor) -> paddle.Tensor:
        """Where the pixels of crops (3, B) are in `data.pixels`: (B, S, S)."""
        image, lines, columns = crops[0], crops[1], crops[2]
        line = image.unsqueeze(1) * self.data.side + paddle.gather(self.positions, lines)
        column = paddle.gather(self.positions, columns)
        return line.unsqueeze(2) * self.data.side + column.unsqueeze(1)

    def _images(self, pixels: paddle.Tensor) -> paddle.Tensor:
        """The uint8 images (B, S, S, 3) of which the pixels (B, S, S) are there."""
        return paddle.gather(self.data.pixels, pixels.flatten()).reshape([*pixels.shape, 3])

    def _inside(self, box: tuple[int, int, int, int]) -> paddle.Tensor:
        """Which pixels (S, S) are in the box; made on the device, so that nothing is uploaded."""
        top, bottom, left, right = box
        lines = (self.line >= top) & (self.line < bottom)
        columns = (self.line >= left) & (self.line < right)
        return lines.unsqueeze(1) & columns.unsqueeze(0)
