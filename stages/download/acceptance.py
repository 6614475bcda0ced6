"""Decides whether a file is the archive: by its md5, or by a digest of CIFAR-100's content."""

import hashlib
from pathlib import Path

from cifar100.archive.content import content_digest
from cifar100.archive.reader import read_archive
from cifar100.running.errors import PipelineError

OFFICIAL_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
CIFAR100_DIGEST = "f38bcb5f6ab2907ed5b0a9f565d0a6c19b351916553f05737d757c7d97aa448c"


def check_archive(path: Path, wanted_md5: str) -> str:
    """Say how the archive at `path` was accepted, or raise `PipelineError` if it is another one.

    If the official archive is wanted, a copy that was packed again or whose samples stand in
    another order has another md5 and the same content; it is accepted.
    """
    md5 = md5_of(path)
    if md5 == wanted_md5:
        return "its md5 is the official one" if md5 == OFFICIAL_MD5 else "its md5 is archive_md5"
    if wanted_md5 != OFFICIAL_MD5:
        raise PipelineError(f"{path}: expected md5 {wanted_md5} (archive_md5), found {md5}")
    content = content_digest(*read_archive(path))
    if content == CIFAR100_DIGEST:
        return "packed differently, with exactly the samples of CIFAR-100"
    raise PipelineError(
        f"{path}: not CIFAR-100: expected md5 {wanted_md5} or content digest "
        f"{CIFAR100_DIGEST[:16]}…, found md5 {md5} and content digest {content[:16]}…"
    )


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
