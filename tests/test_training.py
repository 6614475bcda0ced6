"""The training loop on real data files, without DVC."""

import json
from dataclasses import asdict, replace

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors.numpy import load_file

from stages.dataset.splits import save_classes, save_split
from stages.network.resnet import ResNetConfig, build_resnet, weights_of
from stages.network.storage import load_model
from stages.parameters.loading import load
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from stages.training.loop import Job, train
from stages.training.temperature import fit_temperature
from stages.training.trainer import make_optimizer
from stages.training.workers import (
    average_over_workers,
    run_workers,
    worker_count,
    worker_rank,
)


@pytest.fixture
def job(tmp_path, samples, classes) -> Job:
    rows = np.arange(len(samples))
    save_split(tmp_path / "train.npz", samples.take(rows[:400]))
    save_split(tmp_path / "val.npz", samples.take(rows[400:]))
    save_classes(tmp_path / "classes.json", classes)
    changes = {
        "depth": 20,
        "width": 2,
        "epochs": 2,
        "batch_size": 64,
        "lr": 0.05,
        "progressive_sizes": [16],
        "progressive_fraction": 0.5,
        "threads": 1,
    }
    params = load(TrainParameters).model_copy(update=changes)
    return Job(params, "cpu", tmp_path, tmp_path, tmp_path, tmp_path / "checkpoint.safetensors")


def with_params(job: Job, **changes) -> Job:
    return replace(job, params=job.params.model_copy(update=changes))


def test_training_writes_model_history_and_timing(job, classes):
    train(job)
    history = pd.read_csv(job.reports / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert list(history["image_size"]) == [16, 32]
    assert history.notna().all(axis=None)
    assert set(json.loads((job.reports / "timing.json").read_text())) == {
        "train_seconds",
        "images_per_second",
    }
    model = load_model(job.models / "model.safetensors", job.models / "model.json")
    assert model.class_names == asdict(classes)
    assert len(load_file(job.models / "model.safetensors")) == len(model.network.state_dict())


def test_training_learns(job, samples):
    """Sixteen images that differ strongly can be learnt by heart."""
    few = samples.take(np.flatnonzero(samples.fine < 4)[:16])
    save_split(job.processed / "train.npz", few)
    save_split(job.processed / "val.npz", few)
    small = with_params(
        job, epochs=30, batch_size=16, width=8, crop_padding=0, flip=False, progressive_sizes=[]
    )
    train(small)
    assert pd.read_csv(job.reports / "history.csv")["train_top1"].iloc[-1] > 0.9


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.5, "cutmix": 0.5},
        {"ema_decay": 0.9},
        {"schedule": "cosine"},
        {"whiten_stem": False},
        {"dirac_init": False},
        {"schedule": "step", "nesterov": False},
        {"depth": 18, "stem": "imagenet", "zero_init_residual": True},
    ],
)
def test_options_change_the_result(job, changes):
    plain = with_params(job, epochs=1)
    train(plain)
    before = (job.models / "model.safetensors").read_bytes()
    train(with_params(plain, **changes))
    assert (job.models / "model.safetensors").read_bytes() != before
    assert pd.read_csv(job.reports / "history.csv").notna().all(axis=None)


def test_averaged_weights_lag_behind_the_current_ones(job):
    """With a decay next to one the saved weights are still close to the initial ones."""
    config = ResNetConfig(job.params.depth, job.params.width)
    initial = build_resnet(config, job.params.seed).stem[0].weight.numpy()
    distances = []
    for decay in (0.0, 0.9999):
        train(with_params(job, ema_decay=decay, whiten_stem=False))
        distances.append(
            np.abs(load_file(job.models / "model.safetensors")["stem.0.weight"] - initial).max()
        )
    assert distances[1] < 0.01 * distances[0]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_same_params_give_the_same_bytes(job, workers):
    results = []
    for seed in (0, 0, 1):
        run_workers(train, with_params(job, seed=seed, threads=workers), workers, "cpu")
        results.append(
            (
                (job.models / "model.safetensors").read_bytes(),
                (job.reports / "history.csv").read_bytes(),
            )
        )
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


def save_gradients(job: Job) -> None:
    """Write this worker's gradients of its part of 128 images, averaged over all workers."""
    save_averaged_gradients(job, worker_rank(), worker_count())


def save_averaged_gradients(job: Job, part: int, parts: int) -> None:
    images = np.random.default_rng(0).standard_normal((128, 3, 32, 32), np.float32)
    rows = slice(part * 128 // parts, (part + 1) * 128 // parts)
    network = build_resnet(ResNetConfig(job.params.depth, job.params.width), seed=0)
    labels = paddle.arange(128)[rows] % 100
    paddle.nn.functional.cross_entropy(network(paddle.to_tensor(images[rows])), labels).backward()
    gradients = [weight.grad for weight in weights_of(network)]
    average_over_workers(gradients)
    np.savez(job.models / f"{part}.npz", *[gradient.numpy() for gradient in gradients])


def test_gradients_of_two_workers_are_the_mean_of_their_halves(job, tmp_path):
    """Every tensor, against one process that takes the halves one after the other."""
    run_workers(save_gradients, job, 2, "cpu")
    alone = replace(job, models=tmp_path / "alone")
    alone.models.mkdir()
    for part in (0, 1):
        save_averaged_gradients(alone, part, 2)
    halves = [np.load(alone.models / f"{part}.npz") for part in (0, 1)]
    found = [np.load(job.models / f"{part}.npz") for part in (0, 1)]
    assert len(found[0].files) > 60
    for name in found[0].files:
        expected = (halves[0][name] + halves[1][name]) / 2
        np.testing.assert_array_equal(found[0][name], found[1][name])
        np.testing.assert_allclose(found[0][name], expected, atol=1e-5 * np.abs(expected).max())


def test_batch_norm_statistics_are_the_mean_over_workers(job):
    """Whole-batch statistics of the first layer follow from the data alone, up to the last step."""
    still = with_params(job, epochs=1, batch_size=400, lr=1e-9, flip=False, crop_padding=0)
    means = []
    for workers in (1, 2):
        run_workers(train, still, workers, "cpu")
        means.append(load_file(job.models / "model.safetensors")["stem.1._mean"])
    np.testing.assert_allclose(means[1], means[0], atol=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_diverging_training_stops_in_one_line(job, workers):
    hopeless = with_params(job, lr=100.0, weight_decay=1.0, warmup=0.0, epochs=20)
    with pytest.raises(
        PipelineError, match=r"the (mean|validation) loss is .* epoch \d.*smaller lr"
    ):
        run_workers(train, hopeless, workers, "cpu")
    assert not (job.models / "model.safetensors").exists()


def test_batch_larger_than_the_data_is_refused(job):
    for workers in (1, 2):
        with pytest.raises(
            PipelineError, match=r"^params.yaml: batch_size: 512 exceeds the 400 training images$"
        ):
            run_workers(train, with_params(job, batch_size=512), workers, "cpu")


def test_weight_decay_is_on_weights_only():
    network = build_resnet(ResNetConfig(20, 2), seed=0)
    changes = {"weight_decay": 0.5, "momentum": 0.0, "nesterov": False, "lr": 0.1}
    params = load(TrainParameters).model_copy(update=changes)
    optimizer = make_optimizer(network, params)
    before = [weight.numpy() for weight in weights_of(network)]
    (network(paddle.zeros([2, 3, 32, 32])).sum() * 0).backward()
    optimizer.step()
    for weight, initial in zip(weights_of(network), before, strict=True):
        factor = 0.95 if weight.ndim > 1 else 1.0
        np.testing.assert_allclose(weight.numpy(), factor * initial, rtol=1e-5)


def test_temperature_makes_overconfident_logits_honest():
    """Logits of which the labels are drawn, then made three times too sure of themselves."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (20_000, 10)).astype(np.float32)
    labels = (honest + rng.gumbel(size=honest.shape)).argmax(1)
    assert fit_temperature(3 * honest, labels) == pytest.approx(3, rel=0.03)
    assert fit_temperature(honest, labels) == pytest.approx(1, rel=0.03)
    assert fit_temperature(np.zeros((2, 10), np.float32), np.zeros(2, int)) > 0
