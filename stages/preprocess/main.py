"""Stage 2: turn the archive into train, validation and test splits in canonical order."""

from pathlib import Path

from cifar100.archive.content import canonical_order
from cifar100.archive.reader import read_archive
from cifar100.dataset.splits import save_classes, save_split
from cifar100.running.params import load
from stages.preprocess.params import PreprocessParameters
from stages.preprocess.split import stratified_split

ARCHIVE = Path("data/raw/cifar-100-python.tar.gz")
PROCESSED = Path("data/processed")


def main() -> None:
    """Write data/processed/{train,val,test}.npz and classes.json."""
    params = load(PreprocessParameters)
    archive_train, archive_test, classes = read_archive(ARCHIVE)
    ordered = archive_train.take(canonical_order(archive_train))
    train_rows, val_rows = stratified_split(ordered.fine, params.val_per_class, params.split_seed)
    splits = {
        "train": ordered.take(train_rows),
        "val": ordered.take(val_rows),
        "test": archive_test.take(canonical_order(archive_test)),
    }
    for name, samples in splits.items():
        save_split(PROCESSED / f"{name}.npz", samples)
    save_classes(PROCESSED / "classes.json", classes)
    print("preprocess: " + ", ".join(f"{len(s):,} {name}" for name, s in splits.items()))
