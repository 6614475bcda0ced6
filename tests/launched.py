"""What tests run in each of several processes, which Paddle's launcher starts from this file."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from cifar100.network.resnet import ResNetConfig, build_resnet, weights_of
from cifar100.running.params import load
from stages.train import loop
from stages.train.group import Alone, Group, join
from stages.train.loop import Job, train
from stages.train.params import TrainParameters
from stages.train.rendezvous import Place, Watch
from stages.train.state import TrainingState
from stages.train.validation import validate

ROOT = Path(__file__).parent.parent
IMAGES = 128
MACHINE: dict[str, str | int] = {
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
    "instruction_set": "any",
    "library": "any",
}


def job_in(folder: Path, **changes: Any) -> Job:
    """A training on the data in `folder`, with results in a folder of its own and a short epoch."""
    results = folder / changes.pop("name", "results")
    results.mkdir(exist_ok=True)
    options = {k: changes.pop(k) for k in ("save_every", "look_every") if k in changes}
    values: dict[str, Any] = {
        "depth": 20,
        "width": 2,
        "epochs": 2,
        "batch_size": 64,
        "lr": 0.05,
        "progressive_sizes": [16],
        "progressive_fraction": 0.5,
    }
    params = load(TrainParameters).replace(**(values | changes))
    return Job(params, MACHINE, folder, results, results, results / "state", **options)


def gradients(group: Group, part: int, parts: int) -> list[np.ndarray]:
    """Of this part of a batch, averaged over the group."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    rows = slice(part * IMAGES // parts, (part + 1) * IMAGES // parts)
    network = build_resnet(ResNetConfig(20, 2), 0, np.float32([0.5] * 3), np.float32([0.25] * 3))
    labels = paddle.arange(IMAGES)[rows] % 100
    logits = network(paddle.to_tensor(images[rows]))
    paddle.nn.functional.cross_entropy(logits, labels).backward()
    found = [weight.grad for weight in weights_of(network)]
    group.mean(found)
    return [gradient.numpy() for gradient in found]


def still(folder: Path) -> Job:
    """One step with the whole data as its batch, which hardly changes the weights."""
    return job_in(
        folder, name="still", epochs=1, batch_size=400, lr=1e-9, flip=False, crop_padding=0
    )


def interrupt_in_epoch(job: Job, epoch: int, group: Group) -> None:
    """Train up to the end of `epoch`, before its validation."""

    def interrupted_validate(*arguments: Any) -> Any:
        epochs.append(1)
        if len(epochs) == epoch:
            raise KeyboardInterrupt
        return validate(*arguments)

    epochs: list[int] = []
    loop.validate = interrupted_validate
    try:
        train(job, group)
    except KeyboardInterrupt:
        pass
    finally:
        loop.validate = validate


def trained_weights(job: Job, group: Group) -> np.ndarray:
    """Train; return all weights that this process ends with."""

    def keep(*arguments: Any) -> TrainingState:
        kept.append(initial(*arguments))
        return kept[-1]

    kept: list[TrainingState] = []
    initial = TrainingState.initial
    TrainingState.initial = keep  # type: ignore[method-assign]
    try:
        train(job, group)
    finally:
        TrainingState.initial = initial  # type: ignore[method-assign]
    return np.concatenate([weight.numpy().ravel() for weight in kept[0].weights])


def leave_findings(folder: Path, group: Group) -> None:
    """Leave in the folder what the tests look at."""
    rank = group.rank
    found = {f"gradient{i}": g for i, g in enumerate(gradients(group, rank, group.size))}
    found["total"] = np.array(group.total([1.0, rank]))
    found["gathered"] = group.gather(np.float32([rank, 7]))
    train(still(folder), group)
    options = {"ema_decay": 0.9, "batch_size": 32, "save_every": 0, "look_every": 5}
    train(job_in(folder, name="whole", **options), group)
    # Each process in a folder of its own, as on a machine of its own
    apart = job_in(folder, name=f"resumed{rank}", **options)
    interrupt_in_epoch(apart, 2, group)
    found["resumed"] = trained_weights(apart, group)
    unlike = job_in(folder, name=f"unlike{rank}", seed=rank, **options)
    found["unlike"] = trained_weights(unlike, group)
    try:
        train(job_in(folder, name="unequal", batch_size=33), group)
    except Exception as error:
        found["error"] = np.array(str(error))
    np.savez(folder / f"{rank}.npz", **found)
    print(json.dumps({"rank": rank, "alone": isinstance(group, Alone)}))


def main() -> None:
    """Take part in the launch."""
    os.chdir(ROOT)
    folder, watch = Path(sys.argv[1]), Watch(Place.from_environment())
    watch.run(lambda: leave_findings(folder, join(watch, {}, MACHINE)))


if __name__ == "__main__":
    main()
