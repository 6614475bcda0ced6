import numpy as np
import pytest

from stages.training.schedule import image_size, learning_rate

PROGRESS = np.linspace(0, 1, 1001)


def test_one_cycle_rises_to_the_peak_and_ends_at_zero():
    rates = np.array([learning_rate(p, 0.2, "one_cycle", 0.25) for p in PROGRESS])
    assert PROGRESS[rates.argmax()] == pytest.approx(0.25)
    assert rates.max() == pytest.approx(0.2)
    assert rates[0] == pytest.approx(0.04 * 0.2)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert (np.diff(rates[:251]) > 0).all()
    assert (np.diff(rates[250:]) < 0).all()


def test_linear_rises_to_the_peak_and_falls_to_zero_on_straight_lines():
    rates = [learning_rate(p, 0.2, "linear", 0.2) for p in (0, 0.1, 0.2, 0.4, 0.6, 1)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.15, 0.1, 0])


def test_cosine_falls_from_the_peak_to_zero():
    rates = [learning_rate(p, 0.1, "cosine", 0) for p in (0, 0.5, 1)]
    assert rates == pytest.approx([0.1, 0.05, 0])
    assert learning_rate(0.05, 0.1, "cosine", 0.1) == pytest.approx(0.05)


def test_step_multiplies_at_each_named_share():
    rates = [
        learning_rate(p, 1.0, "step", 0, (0.3, 0.6, 0.8), 0.2) for p in (0, 0.29, 0.3, 0.6, 0.9)
    ]
    assert rates == pytest.approx([1, 1, 0.2, 0.04, 0.008])


@pytest.mark.parametrize("schedule", ["linear", "one_cycle", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_extreme_warmups_give_finite_rates_up_to_the_peak(schedule, warmup):
    rates = [learning_rate(p, 0.1, schedule, warmup, (0.5,), 0.1) for p in PROGRESS]
    assert np.isfinite(rates).all()
    assert 0 <= min(rates) <= max(rates) <= 0.1 + 1e-12


def test_image_sizes_share_the_fraction_equally_and_end_full():
    sizes = [image_size(epoch, 10, [16, 24], 0.6) for epoch in range(10)]
    assert sizes == [16, 16, 16, 24, 24, 24, 32, 32, 32, 32]
    assert image_size(0, 10, [], 0.6) == image_size(0, 10, [24], 0.0) == 32


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("fraction", [0.5, 0.8, 1.0])
def test_the_last_epoch_has_the_full_size_however_short_the_training(epochs, fraction):
    sizes = [image_size(epoch, epochs, [16, 24], fraction) for epoch in range(epochs)]
    assert sizes[-1] == 32
    assert sizes == sorted(sizes)
