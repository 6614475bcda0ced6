"""Steps that a graph replays, on a CPU: with a stand-in that repeats operators on the same memory.

CUDA graphs themselves were not run: we had no GPU.
"""

import numpy as np
import paddle
import pytest

from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from stages.train.batches import Batch, DeviceImages, EpochPlan
from stages.train.cuda_graph import WARM_UP, Graphs, check_possible
from stages.train.group import Alone
from stages.train.params import TrainParameters
from stages.train.state import TrainingState
from stages.train.step import train_step

ALONE = Alone()


def repeat(update):
    """The stand-in for `record`: like a graph it computes nothing before it is replayed."""
    results = paddle.zeros([]), paddle.zeros([], "int64")

    def replay():
        for result, new in zip(results, update(), strict=True):
            result.copy_(new, False)

    return replay, results


def train(samples, graphs, steps, **changes):
    """The weights after so many steps, and the loss and the correct predictions of each."""
    params = load(TrainParameters).replace(depth=20, width=2, batch_size=8, **changes)
    state = TrainingState.initial(params, samples, "cpu", "float32", ALONE)
    state.graphs = graphs
    state.network.train()
    plan = EpochPlan(DeviceImages(samples), params, 0, ALONE)
    scores = []
    for step in range(steps):
        loss, correct = train_step(state, plan.batch(step), 0.01 * (1 + step), ALONE)
        scores.append((float(loss), int(correct)))
    return [weight.numpy() for weight in state.weights], scores


def test_replayed_steps_are_those_of_a_training_without(samples):
    """Each with its own batch and its own learning rate; the first are done to warm up."""
    graphs = Graphs(repeat)
    weights, scores = train(samples, graphs, 8, ema_decay=0.9)
    expected_weights, expected_scores = train(samples, None, 8, ema_decay=0.9)
    assert len(graphs.graphs) == 1
    assert scores == expected_scores
    for found, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_each_kind_of_batch_has_a_graph_of_its_own(samples):
    """Plain ones, Mixup's and CutMix's; the share of the two labels is a tensor then."""
    graphs, changes = Graphs(repeat), {"mixup": 0.3, "cutmix": 0.4, "progressive_sizes": []}
    weights, scores = train(samples, graphs, 15, **changes)
    expected_weights, expected_scores = train(samples, None, 15, **changes)
    assert len(graphs.graphs) > 1
    assert sum(graphs.steps.values()) == 15
    for (loss, correct), (expected_loss, expected_correct) in zip(
        scores, expected_scores, strict=True
    ):
        assert loss == pytest.approx(expected_loss, rel=1e-4)
        assert correct == pytest.approx(expected_correct, abs=1)
    for found, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4)


def test_graphs_of_another_image_size_go():
    calls = []

    def update(batch):
        calls.append(batch.images.shape)
        return batch.images.astype("float32").sum(), batch.labels.sum()

    graphs = Graphs(repeat)
    for value, size in [(1, 16)] * (WARM_UP + 2) + [(2, 16), (3, 32)]:
        batch = Batch(paddle.full([2, 8, 8, 3], value, "uint8"), paddle.full([2], value, "int64"))
        total, labels = graphs.run(update, batch, size)
        assert (int(total), int(labels)) == (384 * value, 2 * value)
        assert len(graphs.graphs) == (size == 16 and len(calls) > WARM_UP)
    assert graphs.size == 32


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (("cpu", "float32", 1), "this training runs on a CPU"),
        (("gpu", "float16", 2), "it is for one GPU, and these are 2 processes"),
        (("gpu", "bfloat16", 1), "its batch norm is for float16, and this training is in bfloat16"),
    ],
)
def test_graph_is_refused_where_it_cannot_be(place, reason):
    with pytest.raises(PipelineError) as caught:
        check_possible(*place)
    assert str(caught.value) == (
        f"params.yaml: cuda_graph: true was asked for, but {reason}; give false"
    )


def test_graph_is_possible_on_one_gpu_in_float16():
    check_possible("gpu", "float16", 1)
