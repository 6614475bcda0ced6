"""Stage 1: get the CIFAR-100 archive: a local copy, the official address or a second source."""

from pathlib import Path

from stages.dataset.acceptance import check_archive
from stages.dataset.sources import fetch_archive
from stages.dataset.synthetic import write_synthetic_archive
from stages.parameters.download import DownloadParameters
from stages.parameters.loading import load
from stages.running.entry import run_stage
from stages.running.outputs import replacing

ARCHIVE = Path("data/raw/cifar-100-python.tar.gz")


def main() -> None:
    """Write data/raw/cifar-100-python.tar.gz, real or synthetic as the params say."""
    params = load(DownloadParameters)
    with replacing(ARCHIVE) as temporary:
        if params.dataset == "synthetic":
            write_synthetic_archive(temporary)
            origin = "drawn by this program"
        else:
            origin = fetch_archive(
                params.archive_url, temporary, lambda path: check_archive(path, params.archive_md5)
            )
    print(f"download: {ARCHIVE} from {origin}")


if __name__ == "__main__":
    run_stage("download", main)
