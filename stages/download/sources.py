"""Takes the archive from the first source that has it: local copies, caches, then two addresses."""

import gzip
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.restore import cache_folder
from stages.download.transfer import check_room, download, without_password

LOCAL_COPY = "CIFAR100_ARCHIVE"
ARCHIVE_NAME = "cifar-100-python.tar.gz"
PADDLE_CACHE = f"~/.cache/paddle/dataset/cifar/{ARCHIVE_NAME}"
SECOND_SOURCE = f"https://dataset.bj.bcebos.com/cifar/{ARCHIVE_NAME}"
FOLDER = "cifar-100-python"
MEMBERS = ("meta", "test", "train")


def fetch_archive(url: str, target: Path, check: Callable[[Path], str], recorded: str = "") -> str:
    """Write the first copy that `check` accepts to `target`; return where it came from and why.

    Sources, in this order: the file, folder or address in the environment variable
    CIFAR100_ARCHIVE, the file `recorded` of DVC's cache if that is not '', what Paddle's data sets
    have fetched before, `url`, the second source.
    `target` should be a temporary path. Raises `PipelineError` that names each source; what was
    wrong with each is said on standard error at once. No password of an address is printed.
    """
    cached = os.path.expanduser(PADDLE_CACHE)
    caches = [recorded, cached if os.path.isfile(cached) else ""]
    problems = []
    for source in filter(
        None, [os.environ.get(LOCAL_COPY, "").strip(), *caches, url, SECOND_SOURCE]
    ):
        shown = without_password(source)
        get = download if source.lower().startswith(("http://", "https://")) else _copy
        try:
            return f"{shown} ({get(source, target, check)})"
        except PipelineError as error:
            problems.append(f"{shown}: {error}")
        except (OSError, ValueError) as error:  # an address that is none is a ValueError
            reason = getattr(error, "strerror", None) or reason_of(error)
            problems.append(f"{shown}: {without_password(reason)}")
        print(f"download: {problems[-1]}", file=sys.stderr)
    raise PipelineError(
        f"no source gave CIFAR-100; on a machine without internet access name a local copy in the "
        f"environment variable {LOCAL_COPY}; tried: {'; '.join(problems)}"
    )


def in_dvc_cache(md5: str) -> str:
    """The file with this md5 in DVC's cache; '' if it is not there."""
    path = cache_folder() / md5[:2] / md5[2:]
    return str(path) if path.is_file() else ""


def _copy(source: str, target: Path, check: Callable[[Path], str]) -> str:
    """Copy the local file, or pack the local folder, that `source` names; return check's answer."""
    path = _local_path(source)
    if path.is_dir():
        _pack(path, target)
    else:
        check_room(target.parent, path.stat().st_size)
        shutil.copyfile(path, target)
    try:
        return check(target)
    except PipelineError as error:
        raise PipelineError(str(error).replace(str(target), str(path))) from None


def _local_path(source: str) -> Path:
    """The archive, or the folder with its unpacked files, that a value of CIFAR100_ARCHIVE names:
    a path, relative or below `~`, of either of them or of the folder that holds it, or a file: URL.
    """
    scheme, _, url_path, *_ = urlsplit(without_password(source))
    if "://" in source and scheme != "file":
        raise PipelineError("give a path, or an address that begins with http:// or https://")
    name = url2pathname(url_path) if scheme == "file" else os.path.expanduser(source)
    path = Path(os.path.abspath(name))
    if path.is_file():
        return path
    if (path / ARCHIVE_NAME).is_file():
        return path / ARCHIVE_NAME
    for folder in (path, path / FOLDER):
        if all((folder / name).is_file() for name in MEMBERS):
            return folder
    if not path.exists():
        raise PipelineError(f"no such file (looked for {path}); give an absolute path")
    if not path.is_dir():
        raise PipelineError(f"{path}: is no regular file; give a copy of {ARCHIVE_NAME}")
    raise PipelineError(f"{path}: holds neither {ARCHIVE_NAME} nor its files {', '.join(MEMBERS)}")


def _pack(folder: Path, target: Path) -> None:
    """Pack the files of an unpacked archive again; the same bytes at every call."""
    with (
        target.open("wb") as out,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=1, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for name in MEMBERS:
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            with (folder / name).open("rb") as file:
                info.size = os.fstat(file.fileno()).st_size
                archive.addfile(info, file)
