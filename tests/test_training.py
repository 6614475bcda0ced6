"""The training loop on real data files, without DVC."""

import json
from dataclasses import asdict, replace

import numpy as np
import paddle
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cifar100.dataset.samples import Samples
from cifar100.dataset.splits import load_split, save_split
from cifar100.network.resnet import ResNetConfig, build_resnet, weights_of
from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from cifar100.trained.loading import load_model
from stages.train.batches import DeviceImages, EpochPlan
from stages.train.group import Alone
from stages.train.initialisation import make_optimizer
from stages.train.loop import Job, train
from stages.train.params import TrainParameters
from stages.train.state import TrainingState
from stages.train.step import train_step
from stages.train.temperature import fit_temperature
from stages.train.validation import validate
from tests.conftest import save_for_training
from tests.launched import MACHINE, job_in

ALONE = Alone()


@pytest.fixture
def job(tmp_path, samples, classes) -> Job:
    save_for_training(tmp_path, samples, classes)
    return job_in(tmp_path)


def with_params(job: Job, **changes) -> Job:
    return replace(job, params=job.params.replace(**changes))


def test_training_writes_model_history_and_timing(job, classes):
    train(job, ALONE)
    history = pd.read_csv(job.reports / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert list(history["image_size"]) == [16, 32]
    assert history.notna().all(axis=None)
    timing = json.loads((job.reports / "timing.json").read_text())
    machine = MACHINE | {"processes": 1}
    assert {key: timing[key] for key in machine} == machine
    assert set(timing) - set(machine) == {"train_seconds", "images_per_second", "epoch_seconds"}
    assert len(timing["epoch_seconds"]) == 2
    assert timing["epoch_seconds"] == sorted(timing["epoch_seconds"])
    model = load_model(job.models / "model.safetensors", job.models / "model.json")
    assert model.class_names == asdict(classes)
    assert len(load_file(job.models / "model.safetensors")) == len(model.network.state_dict())
    described = json.loads((job.models / "model.json").read_text())["training"]
    assert {key: described[key] for key in machine} == machine
    assert described["params"] == job.params.model_dump()
    assert (described["images"], described["validation_images"]) == (400, 100)


def test_history_gets_its_row_after_each_epoch(job, monkeypatch):
    """For whoever draws the curves while it trains."""
    rows = []

    def validate_and_look(*arguments):
        history = job.reports / "history.csv"
        rows.append(len(pd.read_csv(history)) if history.exists() else 0)
        return validate(*arguments)

    monkeypatch.setattr("stages.train.loop.validate", validate_and_look)
    train(with_params(job, epochs=3), ALONE)
    assert rows == [0, 1, 2]
    assert len(pd.read_csv(job.reports / "history.csv")) == 3


def test_training_learns(job, samples):
    """Sixteen images that differ strongly can be learnt by heart."""
    few = samples.take(np.flatnonzero(samples.fine < 4)[:16])
    save_split(job.processed / "train.npz", few)
    save_split(job.processed / "val.npz", few)
    small = with_params(
        job, epochs=30, batch_size=16, width=8, crop_padding=0, flip=False, progressive_sizes=[]
    )
    train(small, ALONE)
    assert pd.read_csv(job.reports / "history.csv")["train_top1"].iloc[-1] > 0.9


@pytest.mark.medium
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
    train(plain, ALONE)
    before = (job.models / "model.safetensors").read_bytes()
    train(with_params(plain, **changes), ALONE)
    assert (job.models / "model.safetensors").read_bytes() != before
    assert pd.read_csv(job.reports / "history.csv").notna().all(axis=None)


def test_averaged_weights_lag_behind_the_current_ones(job):
    """With a decay next to one the saved weights are still close to the initial ones."""
    config = ResNetConfig(job.params.depth, job.params.width)
    initial = build_resnet(config, job.params.seed).stem[0].weight.numpy()
    distances = []
    for decay in (0.0, 0.9999):
        train(with_params(job, ema_decay=decay, whiten_stem=False), ALONE)
        distances.append(
            np.abs(load_file(job.models / "model.safetensors")["stem.0.weight"] - initial).max()
        )
    assert distances[1] < 0.01 * distances[0]


@pytest.mark.medium
def test_same_params_give_the_same_bytes(job):
    results = []
    for seed in (0, 0, 1):
        train(with_params(job, seed=seed), ALONE)
        results.append(
            (
                (job.models / "model.safetensors").read_bytes(),
                (job.reports / "history.csv").read_bytes(),
            )
        )
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]


def test_history_is_what_the_images_give(job, monkeypatch):
    """Loss and accuracy of training images, against those of the first logits, computed here."""
    found = []

    def noted_step(state, batch, lr, group):
        logits = state.network(batch.images, 32)
        loss = paddle.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
        correct = (logits.argmax(1) == batch.labels).astype("float32").mean()
        found.append((float(loss), float(correct)))
        state.network.train()
        return train_step(state, batch, lr, group)

    monkeypatch.setattr("stages.train.loop.train_step", noted_step)
    train(with_params(job, epochs=1, label_smoothing=0.1), ALONE)
    row = pd.read_csv(job.reports / "history.csv").iloc[0]
    assert len(found) == 400 // 64
    expected = np.mean(found, axis=0)
    np.testing.assert_allclose([row["train_loss"], row["train_top1"]], expected, rtol=1e-4)


@pytest.mark.parametrize("look_every", [3, 100])
def test_diverging_training_stops_in_one_line(job, look_every):
    """However many steps an epoch has between two looks at the loss."""
    hopeless = with_params(job, lr=100.0, weight_decay=1.0, warmup=0.0, epochs=20)
    with pytest.raises(
        PipelineError, match=r"the (mean|validation) loss is .* epoch \d.*smaller lr"
    ):
        train(replace(hopeless, look_every=look_every), ALONE)
    assert not (job.models / "model.safetensors").exists()


def test_batch_larger_than_the_data_is_refused(job):
    with pytest.raises(
        PipelineError, match=r"^params.yaml: batch_size: 512 exceeds the 400 training images$"
    ):
        train(with_params(job, batch_size=512), ALONE)


def weights_after(job: Job, data: Samples, steps: int, loss_scale: int) -> list[np.ndarray]:
    """The weights when so many steps are done with the loss multiplied by `loss_scale`."""
    state = TrainingState.initial(job.params, data, "cpu", "float32", ALONE)
    state.loss_scale = loss_scale
    state.optimizer = make_optimizer(state.network, job.params, loss_scale)
    plan = EpochPlan(DeviceImages(data), job.params, 0, ALONE)
    state.network.train()
    for step in range(steps):
        train_step(state, plan.batch(step), 0.05, ALONE)
    return [weight.numpy() for weight in state.weights]


def test_scale_of_the_loss_changes_no_bit(job):
    """A power of two, divided out of the learning rate and multiplied into the weight decay."""
    data = load_split(job.processed / "train.npz")
    plain, again, scaled = (weights_after(job, data, 6, scale) for scale in (1, 1, 128))
    for one, other, third in zip(plain, again, scaled, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    first = weights_after(job, data, 0, 1)
    assert not np.array_equal(plain[0], first[0])


@pytest.mark.parametrize("nesterov", [True, False])
def test_optimizer_of_all_weights_at_once_gives_the_bits_of_one_by_one(nesterov):
    """And these are the update rule: velocity, Nesterov's look ahead, decay of some weights."""
    params = load(TrainParameters).replace(weight_decay=0.01, momentum=0.9, nesterov=nesterov)
    networks = [build_resnet(ResNetConfig(20, 2), seed=0) for _ in range(3)]
    together = make_optimizer(networks[0], params)
    alone = paddle.optimizer.Momentum(
        0.1,
        0.9,
        parameters=[
            {
                "params": [w for w in weights_of(networks[1]) if (w.ndim > 1) == decayed],
                "weight_decay": 0.01 if decayed else 0.0,
            }
            for decayed in (True, False)
        ],
        use_nesterov=nesterov,
    )
    together.set_lr(0.1)
    velocities = [np.zeros(w.shape, np.float32) for w in weights_of(networks[2])]
    for turn in range(4):
        images = np.random.default_rng(turn).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        for network in networks[:2]:
            (network(paddle.to_tensor(images)) ** 2).mean().backward()
        gradients = [weight.grad.numpy() for weight in weights_of(networks[0])]
        for i, weight in enumerate(weights_of(networks[2])):
            value = weight.numpy()
            gradient = gradients[i] + (0.01 * value if weight.ndim > 1 else 0)
            velocities[i] = 0.9 * velocities[i] + gradient
            change = gradient + 0.9 * velocities[i] if nesterov else velocities[i]
            weight.set_value((value - 0.1 * change).astype(np.float32))
        for optimizer in (together, alone):
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
    for optimizer, network in ((together, networks[0]), (alone, networks[1])):
        names = {weight.name for weight in weights_of(network)}
        keys = {f"{name}_velocity_0" for name in names}  # by which a checkpoint finds them
        assert {key for key in optimizer.state_dict() if "velocity" in key} == keys
    for first, second, rule in zip(*map(weights_of, networks), strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy())
        np.testing.assert_allclose(first.numpy(), rule.numpy(), rtol=1e-3, atol=1e-5)


def test_weight_decay_is_on_weights_only():
    network = build_resnet(ResNetConfig(20, 2), seed=0)
    params = load(TrainParameters).replace(weight_decay=0.5, momentum=0.0, nesterov=False)
    optimizer = make_optimizer(network, params)
    before = [weight.numpy() for weight in weights_of(network)]
    (network(paddle.zeros([2, 32, 32, 3])).sum() * 0).backward()
    optimizer.set_lr(0.1)
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


@pytest.mark.parametrize(("labels", "expected"), [("best", 0.05), ("worst", 20.0)])
def test_temperature_stays_within_bounds(labels, expected):
    logits = np.random.default_rng(0).normal(0, 2, (100, 10)).astype(np.float32)
    extreme = logits.argmax(1) if labels == "best" else logits.argmin(1)
    assert fit_temperature(logits, extreme) == expected


@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_where_the_loss_is_lowest_to_four_digits(seed):
    """Against SciPy's bounded minimiser."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (2000, 100)).astype(np.float32)
    labels = (rng.uniform(0.3, 3) * logits + rng.gumbel(size=logits.shape)).argmax(1)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), 1)
        return -float(scaled[np.arange(2000), labels].mean())

    best = minimize_scalar(
        loss, bounds=np.log([0.05, 20]), method="bounded", options={"xatol": 1e-8}
    )
    assert fit_temperature(logits, labels) == float(f"{np.exp(best.x):.4g}")
