"""Stage 1: get the CIFAR-100 archive: a local copy, the official address or a second source.

DVC does not delete data/raw/cifar-100-python.tar.gz before this stage (`persist` in dvc.yaml): a
user may have put it there. So it keeps no run cache of the stage, which looks into DVC's cache.
"""

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
            refuse_to_lose(ARCHIVE, temporary)
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
        print(f"download: is replaced: {error}", file=sys.stderr)
    with replacing(ARCHIVE) as temporary:
        origin = fetch_archive(
            params.archive_url, temporary, check, in_dvc_cache(params.archive_md5)
        )
    print(f"download: {ARCHIVE}: from {origin}")


def refuse_to_lose(path: Path, replacement: Path) -> None:
    """Raise `PipelineError` if DVC's cache has no copy of `path`, which another file replaces."""
    if not path.is_file():
        return
    md5 = md5_of(path)
    if md5 != md5_of(replacement) and not in_dvc_cache(md5):
        raise PipelineError(
            f"{path}: DVC's cache has no copy of this file, which `dataset: synthetic` replaces; "
            "move it to another place, or delete it"
        )
