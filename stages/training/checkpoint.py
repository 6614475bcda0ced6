"""Saves a training while it runs, so that one that was killed goes on to the same result.

The file holds all that the next step depends on. It lies outside the outputs of the stage, which
DVC deletes before each run, under a name made from all that the training was started with.
"""

import contextlib
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import paddle
import safetensors
from numpy.typing import NDArray

from stages.network.resnet import statistics_of, weights_of
from stages.network.storage import save_tensors
from stages.parameters.loading import read_mapping
from stages.parameters.train import TrainParameters
from stages.running.errors import reason_of
from stages.training.trainer import Trainer
from stages.training.workers import gather, threads_of, total, worker_rank

LIBRARIES = ("numpy", "numba", "scipy")  # what computes, beside Paddle

Arrays = dict[str, NDArray[np.float32]]


def training_digest(params: TrainParameters, device: str, workers: int, pipeline: Path) -> str:
    """A name for a training: of its params, processes, threads, libraries, input files and code.

    The files are the deps of the stage train in the file `pipeline`.
    """
    settings = [params.model_dump(), device, workers, threads_of(workers), paddle.__version__]
    settings += map(version, LIBRARIES)
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name in sorted(read_mapping(pipeline)["stages"]["train"]["deps"]):
        path = pipeline.parent / name
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return digest.hexdigest()[:16]


def take_up(path: Path) -> None:
    """Give a state that was laid aside its name again: its results were not recorded."""
    with contextlib.suppress(FileNotFoundError):
        _aside(path).replace(path)


class Checkpoint:
    """The saved state of one training, its history, and the seconds that it has taken so far.

    Every worker calls the methods, and the first one reads the clock and writes the file. The
    weights are the same in all; what is not, such as batch-norm statistics, is gathered.
    """

    def __init__(self, path: Path, trainer: Trainer, every: float) -> None:
        """`every`: the least seconds between two savings inside an epoch."""
        self.path, self.trainer, self.every = path, trainer, every
        self.history: list[dict[str, float]] = []
        self.started = self.saved = time.perf_counter()

    def seconds(self) -> float:
        """How long the training has taken, without what was lost when it was killed."""
        return time.perf_counter() - self.started

    def save_if_due(self) -> None:
        """Save if the last time is `every` seconds ago by the clock of the first worker."""
        due = time.perf_counter() - self.saved >= self.every
        if total([float(due and worker_rank() == 0)])[0]:
            self.save()

    def save(self) -> None:
        """Replace the file by the present state, whole or not at all; not by one that diverged."""
        trainer = self.trainer
        shares = gather(np.concatenate([t.numpy().ravel() for t in _own_tensors(trainer)]))
        self.saved = time.perf_counter()
        if worker_rank() > 0:
            return
        velocities = trainer.optimizer.state_dict()
        arrays = {name: tensor.numpy() for name, tensor in _shared_tensors(trainer).items()}
        arrays |= {name: velocities[key].numpy() for name, key in _velocity_keys(trainer).items()}
        arrays["shares"] = shares
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return  # the next look at the loss ends the training
        progress = {
            "epoch": trainer.epoch,
            "step": trainer.step,
            "seconds": self.seconds(),
            "history": self.history,
            "scaler": {k: np.asarray(v).tolist() for k, v in trainer.scaler.state_dict().items()},
        }
        text = json.dumps(progress)
        save_tensors(self.path, arrays, {"progress": text, "sha256": _sha256(text, arrays)})

    def lay_aside(self) -> None:
        """Move the file of a training that is done; it may go when its results are recorded."""
        _aside(self.path).parent.mkdir(exist_ok=True)
        self.path.replace(_aside(self.path))

    def restore(self) -> None:
        """Go on from the saved state if there is one.

        A damaged file is as good as none: then the training starts at its beginning.
        """
        if worker_rank() == 0:
            for unfinished in self.path.parent.glob(f".{self.path.name}.*"):
                unfinished.unlink()  # was being written when the training was killed
        try:
            with safetensors.safe_open(self.path, "numpy") as file:
                metadata = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _sha256(metadata["progress"], arrays):
                raise safetensors.SafetensorError("its content is not what was written")
        except FileNotFoundError:
            return
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            if worker_rank() == 0:
                print(
                    f"train: {self.path} is damaged and not used ({reason_of(error)})", flush=True
                )
            return
        trainer, progress = self.trainer, json.loads(metadata["progress"])
        for name, tensor in _shared_tensors(trainer).items():
            tensor.set_value(arrays[name])
        start = 0
        for tensor in _own_tensors(trainer):
            stop = start + tensor.size
            tensor.set_value(arrays["shares"][worker_rank(), start:stop].reshape(tensor.shape))
            start = stop
        velocities = {key: arrays[name] for name, key in _velocity_keys(trainer).items()}
        trainer.optimizer.set_state_dict({k: paddle.to_tensor(v) for k, v in velocities.items()})
        trainer.scaler.load_state_dict(progress["scaler"])
        trainer.epoch, trainer.step = progress["epoch"], progress["step"]
        self.history = progress["history"]
        self.started -= progress["seconds"]


def _aside(path: Path) -> Path:
    return path.parent / "finished" / path.name


def _shared_tensors(trainer: Trainer) -> dict[str, paddle.Tensor]:
    """By name, what is the same in all workers."""
    tensors = {f"weight.{i}": tensor for i, tensor in enumerate(weights_of(trainer.network))}
    if trainer.averaged is not None:
        averaged = trainer.averaged.state_dict().items()
        tensors |= {f"averaged.{name}": tensor for name, tensor in averaged}
    return tensors


def _own_tensors(trainer: Trainer) -> list[paddle.Tensor]:
    """What each worker has of its own until the end of the epoch."""
    return [*statistics_of(trainer.network), trainer.sums]


def _velocity_keys(trainer: Trainer) -> dict[str, str]:
    """From the names in the file to those by which the optimizer knows its momentum."""
    weights = weights_of(trainer.network)
    return {f"velocity.{i}": f"{weight.name}_velocity_0" for i, weight in enumerate(weights)}


def _sha256(text: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
