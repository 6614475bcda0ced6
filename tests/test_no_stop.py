"""No step of a training waits for the device or copies to it or from it.

It is shown on a CPU, with the network of Paddle's own layers, which is what a GPU runs.
"""

import numpy as np
import paddle
import pytest

from cifar100.network import onednn
from cifar100.running.params import load
from stages.train.batches import DeviceImages, EpochPlan
from stages.train.cuda_graph import Graphs
from stages.train.group import Alone
from stages.train.params import TrainParameters
from stages.train.state import TrainingState
from stages.train.step import train_step
from tests.stops import stops
from tests.test_cuda_graph import repeat

ALONE = Alone()


@pytest.fixture
def steps(samples, monkeypatch):
    """Gives a function that does the next step of a training with these params."""

    def start(graphs=None, **changes):
        params = load(TrainParameters).replace(depth=20, width=2, batch_size=32, **changes)
        state = TrainingState.initial(params, samples, "cpu", "float32", ALONE)
        state.graphs = graphs
        assert state.network.engine is None
        state.network.train()
        plan = EpochPlan(DeviceImages(samples), params, 0, ALONE)

        def step() -> paddle.Tensor:
            loss, correct = train_step(state, plan.batch(state.step % state.steps), 0.1, ALONE)
            state.add(loss, correct)
            return loss

        step()  # which makes what stays
        return step

    monkeypatch.setattr(onednn, "available", lambda: False)
    return start


@pytest.mark.parametrize(
    "changes",
    [
        {"progressive_sizes": []},
        {"progressive_sizes": [16], "label_smoothing": 0.0},
        {"mixup": 1.0},
        {"cutmix": 1.0},
        {"ema_decay": 0.9},
        {"nesterov": False, "whiten_stem": False, "crop_padding": 0},
    ],
)
def test_step_waits_for_nothing_and_copies_nothing(steps, changes):
    step = steps(**changes)
    assert stops(lambda: [step() for _ in range(3)]) == []


@pytest.mark.parametrize("changes", [{}, {"mixup": 1.0}, {"cutmix": 1.0}])
def test_step_that_a_graph_replays_waits_for_nothing_and_copies_nothing(steps, changes):
    step = steps(Graphs(repeat), **changes)
    for _ in range(4):
        step()
    assert stops(lambda: [step() for _ in range(3)]) == []


def test_look_at_the_loss_is_seen(steps):
    step = steps()
    assert stops(lambda: float(step())) != []


@pytest.mark.parametrize(
    "stop",
    [
        lambda x: float(x.sum()),
        lambda x: int(x.sum()),
        bool,
        np.asarray,
        lambda x: x.item(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: 1 if x > 0 else 0,
        lambda x: range(x.sum().astype("int64")),
        lambda x: x.flatten()[[0]],
        lambda x: x.flatten()[np.array([0])],
        lambda x: x.flatten()[x.flatten() > 0],
        lambda x: x.set_value(np.ones([1], np.float32)),
        lambda x: paddle.to_tensor([1.0]),
        lambda x: paddle.nonzero(x),
        lambda x: paddle.unique(x),
        lambda x: paddle.masked_select(x, x > 0),
    ],
)
def test_calls_that_wait_or_copy_are_seen(stop):
    x = paddle.ones([1])
    assert stops(lambda: stop(x)) != []


def test_operators_on_the_device_are_no_stops():
    x, y = paddle.ones([4, 4]), paddle.zeros([4, 4])
    assert stops(lambda: ((x + y) @ x).sum().backward()) == []
    assert stops(lambda: (x[1:3, 0], x[..., None], y.set_value(x), y.copy_(x, False))) == []
