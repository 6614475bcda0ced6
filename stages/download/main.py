"""Stage 1: get the CIFAR-100 archive: a local copy, the official address or a second source.

DVC does not delete data/raw/cifar-100-python.tar.gz before this stage (`persist` in dvc.yaml): a
user may have put it there. So it keeps no run cache of the stage, which looks into DVC's cache.
"""

import itertools
import sys
from pathlib import Path

from cifar100.archive.synthetic import write_synthetic_archive
from cifar100.running.errors import PipelineError
from cifar100.running.outputs import replacing
from cifar100.running.params import load
from cifar100.running.restore import restore_outputs
from stages.download.acceptance import check_archive, md5_of
from stages.download.params import DownloadParameters
from stages.download.sources import fetch_archive, in_dvc_cache

ARCHIVE = Path("data/raw/cifar-100-python.tar.gz")


def main() -> None:
    """Write data/raw/cifar-100-python.tar.gz, real or synthetic as the params say."""
    params = load(DownloadParameters)
    if params.dataset == "synthetic":
        with replacing(ARCHIVE) as temporary:
            write_synthetic_archive(temporary)
            if ARCHIVE.is_file() and md5_of(ARCHIVE) != md5_of(temporary):
                set_aside(ARCHIVE)
        print(f"download: {ARCHIVE}: synthetic")
        return

    def check(path: Path) -> str:
        return check_archive(path, params.archive_md5)

    if not ARCHIVE.exists():
        restore_outputs("download")  # a complete archive is not fetched twice
    try:
        print(f"download: {ARCHIVE}: kept ({check(ARCHIVE)})")
        return
    except FileNotFoundError:
        pass
    except PipelineError as error:
        print(f"download: {error}; it is not used", file=sys.stderr)
        set_aside(ARCHIVE)
    with replacing(ARCHIVE) as temporary:
        origin = fetch_archive(
            params.archive_url, temporary, check, in_dvc_cache(params.archive_md5)
        )
    print(f"download: {ARCHIVE}: from {origin}")


def set_aside(path: Path) -> None:
    """Give `path`, which is replaced, a free name, unless DVC's cache has a copy of it."""
    if in_dvc_cache(md5_of(path)):
        return
    names = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    print(f"download: {path}: DVC's cache has no copy of it; moved to {aside}", file=sys.stderr)
