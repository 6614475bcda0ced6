import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cifar100.archive.reader import read_archive
from cifar100.dataset.samples import ClassNames, Samples
from stages.preprocess import main as preprocess
from tests.archives import members, write_archive
from tests.conftest import ROOT


def processed_files(
    folder: Path, train: Samples, test: Samples, classes: ClassNames
) -> dict[str, bytes]:
    """What the stage writes in `folder` from an archive with these samples, by name."""
    preprocess.ARCHIVE.parent.mkdir(parents=True)
    write_archive(preprocess.ARCHIVE, members(train, test, classes))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    preprocess.main()
    return {path.name: path.read_bytes() for path in preprocess.PROCESSED.iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("CIFAR100_ARCHIVE"), reason="CIFAR100_ARCHIVE names no copy of CIFAR-100"
)
def test_real_data_in_another_order_gives_the_same_bytes(tmp_path, monkeypatch):
    train, test, classes = read_archive(Path(os.environ["CIFAR100_ARCHIVE"]).resolve())
    rng = np.random.default_rng(0)
    results = []
    for shuffled in (False, True):
        if shuffled:
            train, test = (split.take(rng.permutation(len(split))) for split in (train, test))
        folder = tmp_path / str(shuffled)
        folder.mkdir()
        monkeypatch.chdir(folder)
        results.append(processed_files(folder, train, test, classes))
    assert sorted(results[0]) == ["classes.json", "test.npz", "train.npz", "val.npz"]
    assert results[0] == results[1]
