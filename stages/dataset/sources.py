"""Fetches the archive: a local copy if one is named, the official address, then a second source."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm

from stages.running.errors import PipelineError

LOCAL_COPY = "CIFAR100_ARCHIVE"
SECOND_SOURCE = "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz"
TIMEOUT = 30  # seconds without an answer or a byte
CHUNK = 2**20


def fetch_archive(url: str, target: Path, check: Callable[[Path], str]) -> str:
    """Write the first copy that `check` accepts to `target`; return where it came from and why.

    Sources, in this order: the file or address in the environment variable CIFAR100_ARCHIVE, `url`,
    the second source. `target` should be a temporary path. Raises `PipelineError` that names each
    source and what was wrong with it.
    """
    local = os.environ.get(LOCAL_COPY)
    problems = []
    for source in filter(None, (local, url, SECOND_SOURCE)):
        try:
            if source.startswith(("http://", "https://")):
                _download(source, target)
            else:
                _copy(Path(source), target)
            return f"{source} ({check(target)})"
        except (PipelineError, requests.RequestException, OSError) as error:
            problem = _short(error).replace(str(target), "the file received")
            problems.append(f"{source}: {problem}")
            print(f"download: {problems[-1]}", file=sys.stderr)
    raise PipelineError(
        f"no source gave CIFAR-100; on a machine without internet access name a local copy in the "
        f"environment variable {LOCAL_COPY}; tried: {'; '.join(problems)}"
    )


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise PipelineError(f"no such file (looked for {source.resolve()}); give an absolute path")
    shutil.copyfile(source, target)


def _download(source: str, target: Path) -> None:
    with requests.get(source, stream=True, timeout=TIMEOUT) as answer, target.open("wb") as out:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", 0)) or None
        with tqdm(
            total=size, unit="B", unit_scale=True, desc="download", disable=not sys.stderr.isatty()
        ) as progress:
            for chunk in answer.iter_content(CHUNK):
                out.write(chunk)
                progress.update(len(chunk))
    received = target.stat().st_size
    if size is not None and received != size and "Content-Encoding" not in answer.headers:
        raise PipelineError(f"received {received:,} of {size:,} bytes")


def _short(error: Exception) -> str:
    """The cause of a failed request without the object addresses that urllib3 puts into it."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, requests.ConnectionError):
        return "could not connect"
    return " ".join(str(error).split())
