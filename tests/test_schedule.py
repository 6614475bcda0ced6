import numpy as np
import pytest

from cifar100.running.params import load
from stages.train.loop import epoch_line
from stages.train.params import TrainParameters
from stages.train.schedule import image_size, learning_rate, share_done

PARAMS = load(TrainParameters)
PROGRESS = np.linspace(0, 1, 1001)


def rates(progress, **values) -> list[float]:
    params = PARAMS.replace(**values)
    return [learning_rate(params, share) for share in progress]


def sizes(epochs: int, progressive_sizes: list[int], fraction: float) -> list[int]:
    params = PARAMS.replace(
        epochs=epochs,
        progressive_sizes=progressive_sizes,
        progressive_fraction=fraction,
    )
    return [image_size(params, epoch) for epoch in range(epochs)]


def test_one_cycle_rises_to_the_peak_and_ends_at_zero():
    found = np.array(rates(PROGRESS, lr=0.2, schedule="one_cycle", warmup=0.25))
    assert PROGRESS[found.argmax()] == pytest.approx(0.25)
    assert found.max() == pytest.approx(0.2)
    assert found[0] == pytest.approx(0.04 * 0.2)
    assert found[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(found[:251]) > 0).all()
    assert (np.diff(found[250:]) < 0).all()


def test_linear_rises_to_the_peak_and_falls_to_zero_on_straight_lines():
    found = rates((0, 0.1, 0.2, 0.4, 0.6, 1), lr=0.2, schedule="linear", warmup=0.2)
    assert found == pytest.approx([0, 0.1, 0.2, 0.15, 0.1, 0])


def test_cosine_falls_from_the_peak_to_zero():
    found = rates((0, 0.5, 1), lr=0.1, schedule="cosine", warmup=0)
    assert found == pytest.approx([0.1, 0.05, 0])
    assert rates([0.05], lr=0.1, schedule="cosine", warmup=0.1) == pytest.approx([0.05])


def test_step_multiplies_at_each_named_share():
    found = rates(
        (0, 0.29, 0.3, 0.6, 0.9),
        lr=1.0,
        schedule="step",
        warmup=0,
        lr_steps=[0.3, 0.6, 0.8],
        lr_gamma=0.2,
    )
    assert found == pytest.approx([1, 1, 0.2, 0.04, 0.008])


@pytest.mark.parametrize("schedule", ["linear", "one_cycle", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_extreme_warmups_give_finite_rates_up_to_the_peak(schedule, warmup):
    found = rates(PROGRESS, lr=0.1, schedule=schedule, warmup=warmup, lr_steps=[0.5], lr_gamma=0.1)
    assert np.isfinite(found).all()
    assert 0 <= min(found) <= max(found) <= 0.1 + 1e-12


def test_image_sizes_share_the_fraction_equally_and_end_full():
    assert sizes(10, [16, 24], 0.6) == [16, 16, 16, 24, 24, 24, 32, 32, 32, 32]
    assert sizes(10, [], 0.6)[0] == sizes(10, [24], 0.0)[0] == 32


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("fraction", [0.5, 0.8, 1.0])
def test_the_last_epoch_has_the_full_size_however_short_the_training(epochs, fraction):
    found = sizes(epochs, [16, 24], fraction)
    assert found[-1] == 32
    assert found == sorted(found)


def test_time_left_is_weighed_by_the_area_of_the_images():
    """An epoch at 16 pixels takes a third of the time of one at 32: (0.1 + 0.25) / (0.1 + 1)."""
    params = PARAMS.replace(epochs=2, progressive_sizes=[16], progressive_fraction=0.5)
    shares = [0, 0.35 / (0.35 + 1.1), 1]
    assert [share_done(params, epochs) for epochs in range(3)] == pytest.approx(shares)
    row = {"epoch": 1, "lr": 0.1, "image_size": 16}
    row |= dict.fromkeys(("train_loss", "train_top1", "val_loss", "val_top1"), 0.5)
    assert epoch_line(params, row, 1000, 60).endswith("1.0 min, about 3.1 left")
