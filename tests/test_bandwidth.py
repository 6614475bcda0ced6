"""The calculation of docs/scale.md."""

import pytest

from benchmarks.bandwidth import bytes_per_step, needed_gigabits, speed_of, speed_up
from tests.conftest import ROOT

MILLION = 1_000_000


def test_ring_sends_each_gradient_almost_twice():
    assert bytes_per_step(MILLION, 1) == 0
    assert bytes_per_step(MILLION, 2) == 4 * MILLION
    assert bytes_per_step(MILLION, 4) == 6 * MILLION


@pytest.mark.parametrize("machines", [2, 3, 8])
def test_at_the_break_even_bandwidth_more_machines_are_as_fast_as_one(machines):
    """It is 8 bytes per weight and step for any number of machines, as docs/scale.md says."""
    needed = needed_gigabits(0.5, MILLION, machines, 1 / machines)
    assert needed == pytest.approx(8 * MILLION / 0.5 * 8 / 1e9)
    assert speed_up(0.5, MILLION, machines, needed) == pytest.approx(1)


@pytest.mark.parametrize("machines", [2, 3, 8])
def test_speed_up_at_the_bandwidth_for_an_efficiency(machines):
    needed = needed_gigabits(0.5, MILLION, machines, 0.9)
    assert speed_up(0.5, MILLION, machines, needed) == pytest.approx(0.9 * machines)


@pytest.mark.parametrize("text", ["resnet18-w64", "resnet19-w64=1", "resnet18-w64=0", "x=1"])
def test_wrong_speed_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        speed_of(text)


def test_page_has_the_formula():
    assert "8 × parameters / step time" in (ROOT / "docs/scale.md").read_text(encoding="utf-8")
