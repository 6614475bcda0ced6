"""Stage 1: get the CIFAR-100 archive: a local copy, the official address or a second source."""

import os
from pathlib import Path

from cifar100.archive.synthetic import write_synthetic_archive
from cifar100.running.errors import PipelineError
from cifar100.running.outputs import replacing
from cifar100.running.params import load
from cifar100.running.restore import restore_outputs
from stages.download.acceptance import check_archive
from stages.download.params import DownloadParameters
from stages.download.sources import fetch_archive

ARCHIVE = Path("data/raw/cifar-100-python.tar.gz")


def main() -> None:
    """Write data/raw/cifar-100-python.tar.gz, real or synthetic as the params say."""
    params = load(DownloadParameters)
    if params.dataset == "synthetic":
        with replacing(ARCHIVE) as temporary:
            write_synthetic_archive(temporary)
        print(f"download: {ARCHIVE}: synthetic")
        return

    def check(path: Path) -> str:
        return check_archive(path, params.archive_md5)

    if "DVC_ROOT" in os.environ:
        restore_outputs("download")  # DVC has removed it; a complete archive is not fetched twice
    try:
        print(f"download: {ARCHIVE}: kept ({check(ARCHIVE)})")
        return
    except (PipelineError, FileNotFoundError):
        pass
    with replacing(ARCHIVE) as temporary:
        origin = fetch_archive(params.archive_url, temporary, check)
    print(f"download: {ARCHIVE}: from {origin}")
