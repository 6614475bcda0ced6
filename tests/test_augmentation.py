"""Batches gathered on the device, against NumPy on whole images, and against plain pixels."""

import numpy as np
import pytest

from cifar100.dataset.samples import Samples
from cifar100.running.params import load
from stages.train.augmentation import Mix, draw_crops, draw_mix, source_positions
from stages.train.batches import Batch, DeviceImages, EpochPlan
from stages.train.group import Alone
from stages.train.params import TrainParameters
from tests.stops import stops

PLAIN = load(TrainParameters).replace(
    batch_size=8, seed=0, crop_padding=0, flip=False, mixup=0.0, cutmix=0.0
)


@pytest.fixture
def samples() -> Samples:
    """40 random images, each of a class of its own."""
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    return Samples(images, np.arange(40), np.zeros(40, int), np.array([b""] * 40))


def rank_of(rank: int, size: int) -> Alone:
    """What a process among several knows of the others."""
    group = Alone()
    group.rank, group.size = rank, size
    return group


def batches(
    samples: Samples, params: TrainParameters, epoch: int = 0, rank: int = 0, size: int = 1
) -> list[Batch]:
    plan = EpochPlan(DeviceImages(samples), params, epoch, rank_of(rank, size))
    return [plan.batch(step) for step in range(len(samples) // params.batch_size)]


# The reference: whole images in NumPy, one batch after the other.


def crop_and_flip(images, padding, flip, rng):
    count, channels, size, _ = images.shape
    top, left = rng.integers(0, 2 * padding + 1, (2, count, 1))
    mirror = rng.random((count, 1)) < (0.5 if flip else 0.0)
    rows = reflect(top + np.arange(size) - padding, size)
    columns = reflect(left + np.arange(size) - padding, size)
    columns = np.where(mirror, columns[:, ::-1], columns)
    n, c = np.arange(count), np.arange(channels)
    return images[
        n[:, None, None, None], c[:, None, None], rows[:, None, :, None], columns[:, None, None]
    ]


def reflect(index, size):
    index = np.abs(index)
    return np.where(index >= size, 2 * (size - 1) - index, index)


def apply_mix(images, mix: Mix):
    partners = images[mix.partner]
    if mix.box is None:
        return np.float32(mix.ratio) * images + np.float32(1 - mix.ratio) * partners
    top, bottom, left, right = mix.box
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
    return mixed


def expected_batches(samples, params, epoch):
    rng = np.random.default_rng([params.seed, epoch])
    order = rng.permutation(len(samples))
    for start in range(0, len(order) - params.batch_size + 1, params.batch_size):
        rows = order[start : start + params.batch_size]
        images = crop_and_flip(samples.images[rows], params.crop_padding, params.flip, rng)
        mix = draw_mix(params.batch_size, 32, params.mixup, params.cutmix, rng)
        labels = samples.fine[rows]
        if mix is None:
            yield images, labels, None, 1.0
        else:
            yield apply_mix(images, mix), labels, labels[mix.partner], mix.ratio


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"crop_padding": 4, "flip": True},
        {"crop_padding": 0, "flip": True},
        {"crop_padding": 16, "flip": False, "batch_size": 6},
        {"crop_padding": 4, "flip": True, "cutmix": 0.7},
        {"crop_padding": 4, "flip": True, "mixup": 0.5, "cutmix": 0.5},
    ],
)
def test_batches_are_those_of_numpy_bit_for_bit_for_one_process_and_several(samples, changes, size):
    params = PLAIN.replace(**({"seed": 3, "batch_size": 12} | changes))
    parts = [batches(samples, params, 2, rank, size) for rank in range(size)]
    expected = list(expected_batches(samples, params, 2))
    assert len(parts[0]) == len(expected) == 40 // params.batch_size
    for found, (images, labels, mixed_labels, ratio) in zip(
        zip(*parts, strict=True), expected, strict=True
    ):
        images = images.transpose(0, 2, 3, 1)
        joined = np.concatenate([part.images.numpy() for part in found])
        assert joined.dtype == images.dtype
        np.testing.assert_array_equal(joined, images)
        np.testing.assert_array_equal(np.concatenate([p.labels.numpy() for p in found]), labels)
        assert {part.ratio for part in found} == {ratio}
        if mixed_labels is None:
            assert all(part.mixed_labels is None for part in found)
        else:
            others = np.concatenate([part.mixed_labels.numpy() for part in found])
            np.testing.assert_array_equal(others, mixed_labels)


def test_each_result_is_a_crop_of_the_reflected_image_mirrored_or_not(samples):
    params = PLAIN.replace(batch_size=40, crop_padding=2, flip=True)
    (batch,) = batches(samples, params)
    found = batch.images.numpy().transpose(0, 3, 1, 2)
    padded = np.pad(samples.images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    kinds = set()
    for image, label in zip(found, batch.labels.numpy(), strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if np.array_equal(
                image[:, :, ::-1] if mirrored else image,
                padded[label][:, top : top + 32, left : left + 32],
            )
        ]
        assert len(matches) == 1
        kinds.add(matches[0])
    assert {kind[0] for kind in kinds} == {kind[1] for kind in kinds} == set(range(5))
    assert {kind[2] for kind in kinds} == {False, True}


def test_no_padding_and_no_flip_leave_images_as_they_are(samples):
    for batch in batches(samples, PLAIN):
        stored = samples.images[batch.labels.numpy()].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(batch.images.numpy(), stored)


def test_stored_images_are_read_in_order(samples):
    images, labels = DeviceImages(samples).range(5, 9)
    np.testing.assert_array_equal(images.numpy(), samples.images[5:9].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(labels.numpy(), samples.fine[5:9])


def test_crops_are_drawn_from_all_shifts_and_mirrored_by_halves():
    lines, columns = draw_crops(4000, 2, True, np.random.default_rng(0))
    assert set(lines) == set(range(5))
    assert set(columns) == set(range(10))
    assert (columns >= 5).mean() == pytest.approx(0.5, abs=0.03)
    positions = source_positions(32, 2)
    np.testing.assert_array_equal(positions[2], np.arange(32))
    np.testing.assert_array_equal(positions[7], np.arange(32)[::-1])


def test_cutmix_weighs_by_the_area_of_the_box():
    for seed in range(50):
        mix = draw_mix(40, 32, 0, 1, np.random.default_rng(seed))
        assert mix is not None
        top, bottom, left, right = mix.box
        assert mix.ratio == pytest.approx(1 - (bottom - top) * (right - left) / 1024)


def test_shares_of_mixed_batches_are_as_asked():
    rng = np.random.default_rng(0)
    mixes = [draw_mix(4, 32, 0.2, 0.5, rng) for _ in range(2000)]
    assert np.mean([m is not None and m.box is None for m in mixes]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([m is not None and m.box is not None for m in mixes]) == pytest.approx(
        0.5, abs=0.04
    )


def test_an_epoch_uses_each_image_once_in_an_order_of_its_own(samples):
    orders = [
        np.concatenate([b.labels.numpy() for b in batches(samples, PLAIN.replace(seed=s), epoch)])
        for s, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


def test_an_incomplete_batch_is_left_out(samples):
    found = batches(samples, PLAIN.replace(batch_size=16))
    assert [batch.labels.size for batch in found] == [16, 16]


def test_batches_wait_for_nothing_and_upload_nothing(samples):
    """A stop per step would leave a GPU idle; on a CPU the same calls can be seen."""
    params = PLAIN.replace(batch_size=2, crop_padding=4, flip=True, mixup=0.4, cutmix=0.4)
    plan = EpochPlan(DeviceImages(samples), params, 0, Alone())
    assert {mix and mix.box is None for mix in plan.mixes} == {None, True, False}
    assert stops(lambda: [plan.batch(step) for step in range(20)]) == []
