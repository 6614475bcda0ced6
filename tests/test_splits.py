import hashlib

import numpy as np
import pytest

from cifar100.dataset.arrays import save_arrays
from cifar100.dataset.splits import load_classes, load_split, save_classes, save_split
from cifar100.running.errors import PipelineError
from stages.preprocess.split import stratified_split


def test_split_takes_the_same_number_of_each_class_and_loses_nothing(samples):
    train, val = stratified_split(samples.fine, 2, seed=0)
    assert (np.bincount(samples.fine[val]) == 2).all()
    assert (np.bincount(samples.fine[train]) == 3).all()
    assert sorted([*train, *val]) == list(range(len(samples)))


def test_split_depends_on_the_seed_only(samples):
    first, again, other = (stratified_split(samples.fine, 2, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_split_that_leaves_nothing_to_train_on_is_refused(samples):
    with pytest.raises(PipelineError, match=r"val_per_class: 5 leaves nothing .* at most 4"):
        stratified_split(samples.fine, 5, seed=0)


def test_split_survives_a_round_trip_and_gives_the_same_bytes(tmp_path, samples):
    for name in ("one.npz", "two.npz"):
        save_split(tmp_path / name, samples)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    for field, value in vars(load_split(tmp_path / "one.npz")).items():
        np.testing.assert_array_equal(value, getattr(samples, field))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]


def test_bytes_of_an_npz_are_those_of_any_version_of_python(tmp_path):
    save_arrays(tmp_path / "a.npz", count=np.arange(3), names=np.array([b"a", b"bb"]))
    digest = hashlib.md5((tmp_path / "a.npz").read_bytes(), usedforsecurity=False).hexdigest()
    assert digest == "815bc37f814a60f4ef52248a01346b36"


def test_classes_survive_a_round_trip(tmp_path, classes):
    save_classes(tmp_path / "classes.json", classes)
    assert load_classes(tmp_path / "classes.json") == classes


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"[1, 2]", b'{"fine": []}'])
def test_damaged_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    for reader in (load_split, load_classes):
        with pytest.raises(PipelineError, match="damaged: not a"):
            reader(path)
        with pytest.raises(PipelineError, match="absent: not found; run `dvc repro`"):
            reader(tmp_path / "absent")


def test_split_with_objects_in_it_is_not_unpickled(tmp_path, samples):
    path = tmp_path / "objects.npz"
    np.savez(path, **(vars(samples) | {"fine": np.array([{}] * 500, dtype=object)}))
    with pytest.raises(PipelineError, match="not a split"):
        load_split(path)
