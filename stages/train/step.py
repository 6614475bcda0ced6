"""One step of a training: forward, backward, update. Nothing in it waits for the device."""

import paddle
import paddle.nn.functional as F

from cifar100.network.resnet import statistics_of, weights_of
from stages.train.batches import Batch
from stages.train.group import Group
from stages.train.schedule import image_size
from stages.train.state import TrainingState


def train_step(
    state: TrainingState, batch: Batch, lr: float, group: Group
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Update the weights once at the learning rate `lr`; the network is in training mode.

    Returns the mean loss and the number of correct predictions, of this process's share of the
    batch and still on the device, until the next step.
    """
    size = image_size(state.params, state.epoch)
    state.optimizer.set_lr(lr / state.loss_scale)
    if state.graphs is None:
        loss, correct = update_weights(state, batch, size, group)
    else:
        loss, correct = state.graphs.run(
            lambda given: update_weights(state, given, size, group), batch, size
        )
    if state.averaged is not None:
        update_average(state)
    return loss, correct


def update_weights(
    state: TrainingState, batch: Batch, size: int, group: Group
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Forward, backward and update, on images of this size; the results of `train_step`.

    Label smoothing: Szegedy et al., https://arxiv.org/abs/1512.00567, section 7. All that differs
    between two steps is in the batch and in the optimizer's learning rate.
    """
    smoothing = state.params.label_smoothing
    logits = state.network(batch.images, size)
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
    if batch.mixed_labels is not None:
        mixed = F.cross_entropy(logits, batch.mixed_labels, label_smoothing=smoothing)
        loss = batch.ratio * loss + (1 - batch.ratio) * mixed
    (state.loss_scale * loss).backward()
    group.mean([weight.grad for weight in state.weights])
    state.optimizer.step()
    state.optimizer.clear_grad(set_to_zero=False)
    return loss.detach(), (logits.detach().argmax(1) == batch.labels).sum()


@paddle.no_grad()
def update_average(state: TrainingState) -> None:
    """Move the averaged weights and batch-norm statistics towards the current ones.

    Morales-Brotons et al., "Exponential Moving Average of Weights in Deep Learning"
    (https://arxiv.org/abs/2411.18704).
    """
    decay = state.params.ema_decay
    averages = [*weights_of(state.averaged), *statistics_of(state.averaged)]
    currents = [*state.weights, *statistics_of(state.network)]
    for average, current in zip(averages, currents, strict=True):
        average.set_value(decay * average + (1 - decay) * current)
