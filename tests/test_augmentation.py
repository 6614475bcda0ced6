import numpy as np
import pytest

from stages.training.augmentation import Mix, apply_mix, crop_and_flip, draw_mix
from stages.training.batches import Augmentation, epoch_batches

PLAIN = Augmentation(crop_padding=0, flip=False, mixup=0, cutmix=0)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)


def test_each_result_is_a_crop_of_the_reflected_image_mirrored_or_not(images):
    found = crop_and_flip(images, 2, True, np.random.default_rng(1))
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    kinds = set()
    for image, source in zip(found, padded, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if np.array_equal(
                image[:, :, ::-1] if mirrored else image,
                source[:, top : top + 32, left : left + 32],
            )
        ]
        assert len(matches) == 1
        kinds.add(matches[0])
    assert {kind[0] for kind in kinds} == {kind[1] for kind in kinds} == set(range(5))
    assert {kind[2] for kind in kinds} == {False, True}


def test_no_padding_and_no_flip_leave_images_as_they_are(images):
    np.testing.assert_array_equal(crop_and_flip(images, 0, False, np.random.default_rng(1)), images)


def test_cutmix_pastes_the_box_and_weighs_by_area(images):
    partner = np.roll(np.arange(40), 1)
    mixed = apply_mix(images, Mix(partner, 0.75, (0, 16, 8, 24)))
    np.testing.assert_array_equal(mixed[:, :, :16, 8:24], images[partner][:, :, :16, 8:24])
    np.testing.assert_array_equal(mixed[:, :, 16:], images[:, :, 16:])
    for seed in range(50):
        mix = draw_mix(40, 32, 0, 1, np.random.default_rng(seed))
        assert mix is not None
        top, bottom, left, right = mix.box
        assert mix.weight == pytest.approx(1 - (bottom - top) * (right - left) / 1024)


def test_mixup_blends(images):
    partner = np.roll(np.arange(40), 1)
    mixed = apply_mix(images, Mix(partner, 0.25, None))
    expected = 0.25 * images + 0.75 * images[partner]
    np.testing.assert_allclose(mixed, expected, atol=0.5)


def test_shares_of_mixed_batches_are_as_asked():
    rng = np.random.default_rng(0)
    mixes = [draw_mix(4, 32, 0.2, 0.5, rng) for _ in range(2000)]
    assert np.mean([m is not None and m.box is None for m in mixes]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([m is not None and m.box is not None for m in mixes]) == pytest.approx(
        0.5, abs=0.04
    )


@pytest.mark.parametrize(("mixup", "cutmix"), [(0, 0), (0.5, 0.5)])
def test_workers_together_see_the_batches_of_one(images, mixup, cutmix):
    labels = np.arange(40)
    augmentation = Augmentation(4, True, mixup, cutmix)
    alone = list(epoch_batches(images, labels, 8, augmentation, seed=1, epoch=2))
    parts = [
        list(epoch_batches(images, labels, 8, augmentation, 1, 2, worker, 2)) for worker in (0, 1)
    ]
    assert len(alone) == 5
    for whole, first, second in zip(alone, *parts, strict=True):
        for field in ("images", "labels", "mixed_labels"):
            joined = np.concatenate([getattr(first, field), getattr(second, field)])
            np.testing.assert_array_equal(joined, getattr(whole, field))
        assert first.weight == second.weight == whole.weight


def test_an_epoch_uses_each_image_once_in_an_order_of_its_own(images):
    labels = np.arange(40)
    orders = [
        np.concatenate([b.labels for b in epoch_batches(images, labels, 8, PLAIN, seed, epoch)])
        for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert not np.array_equal(orders[0], orders[3])


def test_an_incomplete_batch_is_left_out(images):
    batches = list(epoch_batches(images, np.arange(40), 16, PLAIN, seed=0, epoch=0))
    assert [len(batch.labels) for batch in batches] == [16, 16]
