"""Saves a training while it runs, so that one that was killed resumes to the same result.

The file holds all that the next step depends on. It lies outside the outputs of the stage, which
DVC deletes before each run, under a name made from all that the training was started with.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors
from numpy.typing import NDArray

from cifar100.network.resnet import statistics_of, weights_of
from cifar100.network.storage import save_tensors
from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.outputs import FINISHED_CHECKPOINTS
from cifar100.running.params import read_mapping
from stages.train.group import Group
from stages.train.params import TrainParameters
from stages.train.state import TrainingState

LIBRARIES = ("numpy",)  # what computes, beside Paddle and what it brings along

Arrays = dict[str, NDArray[np.float32]]
Tensors = dict[str, paddle.Tensor]


def training_digest(
    params: TrainParameters, machine: dict[str, str | int], processes: int, pipeline: Path
) -> str:
    """A name for a training: of its params, machine, processes, libraries, input files and code.

    `machine` is the description of device, precision, threads, instruction set and library. The
    files are the deps of the stage train in the file `pipeline`, at any depth in those that are
    folders. Raises `PipelineError` if one of them is not there.
    """
    settings = json.dumps([training_facts(params, pipeline), machine, processes])
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def training_facts(params: TrainParameters, pipeline: Path) -> dict[str, str]:
    """What a training depends on beside the machine, by name.

    These are the values of params, versions of libraries, and SHA-256 digests of the deps of the
    stage train in the file `pipeline`. Raises `PipelineError` if one of them is not there.
    """
    facts = {key: json.dumps(value) for key, value in params.model_dump().items()}
    facts |= {"paddle": paddle.__version__, **{name: version(name) for name in LIBRARIES}}
    for name in sorted(read_mapping(pipeline)["stages"]["train"]["deps"]):
        for path in _files(pipeline.parent / name):
            inside = path.relative_to(pipeline.parent).as_posix()
            facts[inside] = hashlib.sha256(path.read_bytes()).hexdigest()
    return facts


def _files(dep: Path) -> Iterator[Path]:
    """The file, or those in the folder, but for what Python compiles; `PipelineError` if none."""
    if dep.is_file():
        yield dep
    elif dep.is_dir():
        inside = sorted(dep.rglob("*"))
        yield from (p for p in inside if p.is_file() and "__pycache__" not in p.parts)
    else:
        raise PipelineError(f"{dep}: not found, and dvc.yaml has it among the deps of train")


def mark_finished(path: Path, model: Path) -> None:
    """Move the file of a training that is done; it may go when its model is recorded."""
    finished = path.parent / FINISHED_CHECKPOINTS.name
    finished.mkdir(exist_ok=True)
    path.replace(finished / f"{_md5(model)}.{path.name}")


def reopen(path: Path, recorded: str | None) -> None:
    """Give the file of a finished training its name again, unless its model is recorded.

    `recorded` is the md5 of the model that dvc.lock has. One who trains this one again wants to see
    it trained.
    """
    for finished in (path.parent / FINISHED_CHECKPOINTS.name).glob(f"*.{path.name}"):
        if finished.name == f"{recorded}.{path.name}":
            finished.unlink()
        else:
            finished.replace(path)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


class Checkpoint:
    """The file at `path` with the state of a training.

    Every process calls the methods, and the one with rank 0 reads the clock and the file, and
    writes it. The weights are the same in all; what is not, such as batch-norm statistics inside
    an epoch, is gathered.
    """

    def __init__(self, path: Path, every: float) -> None:
        """`every`: the least seconds between two savings inside an epoch."""
        self.path, self.every = path, every
        self.saved = time.perf_counter()

    def save_if_due(self, state: TrainingState, group: Group) -> None:
        """Save if the clock of rank 0 says that it is due."""
        due = group.rank == 0 and time.perf_counter() - self.saved >= self.every
        if group.total([float(due)])[0]:
            self.save(state, group)

    def save(self, state: TrainingState, group: Group) -> None:
        """Replace the file by the present state, whole or not at all; not by one that diverged."""
        own = np.concatenate([tensor.numpy().ravel() for tensor in _own_tensors(state)])
        shares = group.gather(own)
        self.saved = time.perf_counter()
        if group.rank > 0:
            return
        velocities = state.optimizer.state_dict()
        arrays = {name: tensor.numpy() for name, tensor in _shared_tensors(state).items()}
        arrays |= {name: velocities[key].numpy() for name, key in _velocity_keys(state).items()}
        arrays["shares"] = shares
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return  # the next look at the loss ends the training
        progress = {
            "epoch": state.epoch,
            "step": state.step,
            "seconds": state.seconds,
            "history": state.history,
            "epoch_seconds": state.epoch_seconds,
        }
        text = json.dumps(progress)
        save_tensors(self.path, arrays, {"progress": text, "sha256": _sha256(text, arrays)})

    def restore(self, state: TrainingState, group: Group) -> None:
        """Resume from the saved state if there is one, in all processes from that of rank 0.

        A damaged file is as good as none: then the training starts at its beginning.
        """
        saved = self._read() if group.rank == 0 else None
        shared, own = _shared_tensors(state), _own_tensors(state)
        velocities = {
            name: paddle.zeros(weight.shape)
            for name, weight in zip(_velocity_keys(state), state.weights, strict=True)
        }
        shares = paddle.zeros([group.size, sum(tensor.size for tensor in own)])
        position = paddle.to_tensor([state.epoch, state.step])
        if saved is None:
            shares += paddle.concat([tensor.flatten() for tensor in own])
        else:
            arrays, progress = saved
            for name, tensor in (shared | velocities | {"shares": shares}).items():
                tensor.set_value(arrays[name])
            position = paddle.to_tensor([progress["epoch"], progress["step"]])
            state.history, state.epoch_seconds = progress["history"], progress["epoch_seconds"]
            state.earlier = progress["seconds"]
            state.started = time.perf_counter()
        group.broadcast([*shared.values(), *velocities.values(), shares, position])
        start = 0
        for tensor in own:
            stop = start + tensor.size
            tensor.set_value(shares[group.rank, start:stop].reshape(tensor.shape))
            start = stop
        keys = _velocity_keys(state)
        state.optimizer.set_state_dict({keys[name]: v for name, v in velocities.items()})
        state.epoch, state.step = position.tolist()

    def _read(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The arrays and the progress in the file; None if it is not there or damaged."""
        for unfinished in self.path.parent.glob(f".{self.path.name}.*"):
            unfinished.unlink()  # was being written when the training was killed
        try:
            with safetensors.safe_open(self.path, "numpy") as file:
                metadata = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _sha256(metadata["progress"], arrays):
                raise safetensors.SafetensorError("its content is not what was written")
        except FileNotFoundError:
            return None
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            print(f"train: {self.path} is damaged and not used ({reason_of(error)})", flush=True)
            return None
        return arrays, json.loads(metadata["progress"])


def _shared_tensors(state: TrainingState) -> Tensors:
    """By name, what is the same in all processes."""
    tensors = {f"weight.{i}": tensor for i, tensor in enumerate(state.weights)}
    if state.averaged is not None:
        averaged = enumerate(weights_of(state.averaged))
        tensors |= {f"averaged.{i}": tensor for i, tensor in averaged}
    return tensors


def _own_tensors(state: TrainingState) -> list[paddle.Tensor]:
    """What each process has of its own until the end of the epoch."""
    averaged = [] if state.averaged is None else statistics_of(state.averaged)
    return [*statistics_of(state.network), *averaged, state.sums]


def _velocity_keys(state: TrainingState) -> dict[str, str]:
    """From the names in the file to those by which the optimizer knows its momentum."""
    return {f"velocity.{i}": f"{w.name}_velocity_0" for i, w in enumerate(state.weights)}


def _sha256(text: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
