from colorsys import rgb_to_hsv
from pathlib import Path

import numpy as np
import pytest

from cifar100.archive.reader import read_archive
from cifar100.archive.synthetic import (
    HUES,
    TEST_PER_CLASS,
    TRAIN_PER_CLASS,
    draw,
    write_synthetic_archive,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "archive.tar.gz"
    write_synthetic_archive(path)
    return path


@pytest.mark.medium
def test_archive_has_the_official_format_and_the_same_bytes_each_time(archive, tmp_path):
    write_synthetic_archive(tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()
    train, test, classes = read_archive(archive)
    assert (np.bincount(train.fine) == TRAIN_PER_CLASS).all()
    assert (np.bincount(test.fine) == TEST_PER_CLASS).all()
    assert (np.bincount(classes.coarse_of_fine) == 5).all()
    for label in (0, 57):
        colour, _, ground = classes.fine[label].split(" ", 2)
        assert classes.coarse[classes.coarse_of_fine[label]] == f"{colour} {ground}"


@pytest.mark.medium
def test_images_of_a_class_differ(archive):
    train, _, _ = read_archive(archive)
    images = train.images[train.fine == 3].reshape(TRAIN_PER_CLASS, -1)
    assert len(np.unique(images, axis=0)) == TRAIN_PER_CLASS


def test_neighbouring_colours_overlap_and_others_do_not():
    rng = np.random.default_rng(0)
    hues = {}
    for colour in HUES:
        images = draw(colour, "square", "plain", 400, rng)[:, :, 15:18, 15:18].mean((2, 3)) / 255
        hues[colour] = np.array([rgb_to_hsv(*image)[0] for image in images]) * 360
    red = (hues["red"] + 180) % 360 - 180
    assert 0.03 < (red > 15).mean() < 0.15  # closer to orange
    assert 0.03 < (hues["yellow"] < 45).mean() < 0.15
    assert (abs(hues["blue"] - HUES["green"]) > 60).all()
