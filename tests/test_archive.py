import io
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar100.archive.content import canonical_order, content_digest
from cifar100.archive.reader import read_archive
from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from stages.download import acceptance
from stages.download.acceptance import check_archive
from stages.download.params import DownloadParameters
from tests.archives import batch, members, refusal, write_archive


def test_samples_and_names_are_read_as_stored(tmp_path, archive_files, samples, classes):
    train, test, names = read_archive(write_archive(tmp_path / "a.tar.gz", archive_files))
    for split in (train, test):
        for field, expected in vars(samples).items():
            np.testing.assert_array_equal(getattr(split, field), expected)
    assert names == classes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>404 Not Found</html>", "not a complete .tar.gz archive"),
        (b"", "not a complete .tar.gz archive"),
        (os.urandom(5000), "not a complete .tar.gz archive"),
    ],
)
def test_file_that_is_no_archive_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    assert reason in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_archive_is_refused(tmp_path, archive_files, share):
    path = write_archive(tmp_path / "a.tar.gz", archive_files)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "fetch it again" in refusal(path)


def test_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.tar.gz")


def test_archive_without_a_member_is_refused(tmp_path, archive_files):
    del archive_files["meta"]
    assert "no member cifar-100-python/meta" in refusal(
        write_archive(tmp_path / "a.tar.gz", archive_files)
    )


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archive_that_another_program_packed_is_read(tmp_path, archive_files, samples, form):
    """With a time that needs a pax header, and a member whose name needs another header."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=form, compresslevel=1) as archive:
        long_name = f"cifar-100-python/{'x' * 90}/{'y' * (60 if form == 0 else 200)}"
        for name, data in [(long_name, b"of no use"), *archive_files.items()]:
            info = tarfile.TarInfo(name if "/" in name else f"cifar-100-python/{name}")
            info.size, info.mtime = len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    train, _, _ = read_archive(path)
    np.testing.assert_array_equal(train.images, samples.images)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"data", np.zeros((500, 3071), np.uint8), "uint8 array of shape (N, 3072)"),
        (b"data", np.zeros((500, 3072), np.float32), "uint8 array of shape (N, 3072)"),
        (b"fine_labels", [100] * 500, "whole numbers below 100"),
        (b"fine_labels", [True] * 500, "`fine_labels` as 500 int values"),
        (b"coarse_labels", [2**70] * 500, "whole numbers below 20"),
        (b"coarse_labels", [0] * 499, "`coarse_labels` as 500 int values"),
        (b"coarse_labels", [0] * 500, "each in exactly one superclass"),
        (b"filenames", ["text"] * 500, "`filenames` as 500 bytes values"),
        (b"filenames", [b"x" * 2**20, *[b"x"] * 499], "`filenames` of 1 to 255 bytes"),
    ],
)
def test_wrong_content_is_refused(tmp_path, archive_files, samples, key, value, reason):
    archive_files["train"] = pickle.dumps(batch(samples) | {key: value}, protocol=4)
    assert reason in refusal(write_archive(tmp_path / "a.tar.gz", archive_files))


def test_canonical_order_and_digest_do_not_depend_on_the_stored_order(samples, classes):
    shuffled = samples.take(np.random.default_rng(5).permutation(len(samples)))
    ordered, again = (s.take(canonical_order(s)) for s in (samples, shuffled))
    for field in vars(samples):
        np.testing.assert_array_equal(getattr(ordered, field), getattr(again, field))
    assert (np.diff(ordered.fine) >= 0).all()
    digest = content_digest(samples, samples, classes)
    assert content_digest(shuffled, samples, classes) == digest


@pytest.mark.parametrize("field", ["images", "fine", "coarse", "names"])
def test_digest_changes_with_any_single_value(samples, classes, field):
    values = getattr(samples, field).copy()
    if field == "images":
        values[123, 1, 4, 5] ^= 1
    elif field == "names":
        values[123] = b"other.png"
    else:
        values[123] = (values[123] + 1) % 20
    changed = replace(samples, **{field: values})
    original = content_digest(samples, samples, classes)
    assert content_digest(samples, changed, classes) != original


def test_archive_is_accepted_by_md5_or_by_content_and_refused_otherwise(
    tmp_path, monkeypatch, samples, classes
):
    path = write_archive(tmp_path / "a.tar.gz", members(samples, samples, classes))
    monkeypatch.setattr(acceptance, "CIFAR100_DIGEST", content_digest(samples, samples, classes))
    assert "exactly the samples" in check_archive(path, acceptance.OFFICIAL_MD5)
    assert check_archive(path, acceptance.md5_of(path)) == "its md5 is archive_md5"
    with pytest.raises(PipelineError, match=r": expected md5 0+ \(archive_md5\), found "):
        check_archive(path, "0" * 32)  # another archive is wanted than the official one
    samples.images[0, 0, 0, 0] ^= 1
    write_archive(path, members(samples, samples, classes))
    with pytest.raises(PipelineError, match=r"expected md5 eb.* or content digest .*, found md5"):
        check_archive(path, acceptance.OFFICIAL_MD5)


real_archive = pytest.mark.skipif(
    not os.environ.get("CIFAR100_ARCHIVE"), reason="CIFAR100_ARCHIVE names no copy of CIFAR-100"
)


@pytest.mark.slow
@real_archive
def test_real_archive_is_accepted_and_one_changed_pixel_is_refused(tmp_path):
    official_md5 = load(DownloadParameters).archive_md5
    path = Path(os.environ["CIFAR100_ARCHIVE"])
    check_archive(path, official_md5)
    train, test, classes = read_archive(path)
    assert (len(train), len(test)) == (50_000, 10_000)
    test.images.flags.writeable = True
    test.images[9_999, 2, 31, 31] ^= 1
    changed = write_archive(tmp_path / "changed.tar.gz", members(train, test, classes))
    with pytest.raises(PipelineError, match="not CIFAR-100"):
        check_archive(changed, official_md5)
