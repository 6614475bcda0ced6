"""Fetches the archive: a local copy if one is named, the official address, then a second source.

A download that was interrupted goes on where it stopped, also in a later run: what has come so far
lies in .downloads/, outside of what DVC deletes before it runs a stage.
"""

import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from stages.running.errors import PipelineError

LOCAL_COPY = "CIFAR100_ARCHIVE"
SECOND_SOURCE = "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz"
PARTS = Path(".downloads")
TIMEOUT = 30.0  # seconds without an answer or a byte
SLOWEST = 2_000  # bytes per second, over the time of a timeout
ATTEMPTS = 3  # at each source, if it fails in a way that may pass
PAUSE = 1.0  # seconds before the second attempt; each further one waits twice as long
MOST_REDIRECTS = 5
MOST_BYTES = 2**30  # the archive has 169 MB
CHUNK = 2**18


class _MayPassError(Exception):
    """A failure after which another attempt makes sense."""


def fetch_archive(url: str, target: Path, check: Callable[[Path], str]) -> str:
    """Write the first copy that `check` accepts to `target`; return where it came from and why.

    Sources, in this order: the file or address in the environment variable CIFAR100_ARCHIVE, `url`,
    the second source. `target` should be a temporary path. Raises `PipelineError` that names each
    source; what was wrong with each is said on standard error at once.
    """
    local = os.environ.get(LOCAL_COPY)
    problems = []
    for source in filter(None, (local, url, SECOND_SOURCE)):
        try:
            if source.startswith(("http://", "https://")):
                accepted = _download(source, target, check)
            else:
                _copy(Path(source), target)
                accepted = check(target)
            return f"{source} ({accepted})"
        # requests lets a ValueError through where a server names an address that is none.
        except (PipelineError, _MayPassError, OSError, ValueError) as error:
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
    _check_room(target.parent, source.stat().st_size)
    shutil.copyfile(source, target)


def _download(source: str, target: Path, check: Callable[[Path], str]) -> str:
    """Download to `target` by way of a file that stays if this is interrupted; return the check's
    answer. What does not pass the check is deleted, and fetched anew once if it came in pieces.
    """
    part = PARTS / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    for may_begin_anew in (True, False):
        resumed = _complete(source, part)
        try:
            accepted = check(part)  # where it is, so that it stays if the check is interrupted
        except PipelineError as error:
            part.unlink()
            if not (resumed and may_begin_anew):
                raise PipelineError(str(error).replace(str(part), "the file received")) from None
            print(f"download: {source}: the pieces do not fit; from the beginning", file=sys.stderr)
        else:
            shutil.move(part, target)
            return accepted
    raise AssertionError("the second round returns or raises")


def _complete(source: str, part: Path) -> bool:
    """Fetch what is missing of `part`, in several attempts; say whether it came in pieces."""
    resumed = part.is_file() and part.stat().st_size > 0
    for attempt in range(ATTEMPTS):
        try:
            _fetch_rest(source, part)
            return resumed
        except (_MayPassError, requests.ConnectionError, requests.Timeout) as error:
            if attempt == ATTEMPTS - 1:
                raise
            pause = PAUSE * 2**attempt
            print(f"download: {source}: {_short(error)}; again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
            resumed = part.is_file()
    raise AssertionError("the last attempt returns or raises")


def _fetch_rest(source: str, part: Path) -> None:
    """Ask for the bytes that `part` has not got, and append them; all if the server gives all."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # lengths are those of the file
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.Session() as session:
        session.max_redirects = MOST_REDIRECTS
        session.hooks["response"].append(_close_redirect)
        with session.get(source, stream=True, timeout=TIMEOUT, headers=headers) as answer:
            content_range = answer.headers.get("Content-Range", "")
            if answer.status_code == requests.codes.requested_range_not_satisfiable and have:
                if content_range == f"bytes */{have}":
                    return  # it was complete
                part.unlink()
                raise _MayPassError("the file there is shorter than what was received before")
            if answer.status_code == requests.codes.too_many_requests or answer.status_code >= 500:
                raise _MayPassError(f"the server answers {answer.status_code} {answer.reason}")
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                have = 0
            elif not content_range.startswith(f"bytes {have}-"):
                part.unlink()
                raise _MayPassError("the server gives another part than the one asked for")
            length = answer.headers.get("Content-Length", "0")
            if not re.fullmatch("[0-9]{1,15}", length):
                raise PipelineError(f"the server says that the file has {length[:40]!r} bytes")
            _receive(answer, part, have, int(length) or None)


def _close_redirect(answer: requests.Response, **_options: object) -> None:
    """Have no body of a redirect: requests reads it whole, however long it is."""
    if answer.is_redirect:
        answer.close()


def _receive(answer: requests.Response, part: Path, have: int, length: int | None) -> None:
    """Write the body behind the first `have` bytes of `part`; `length` bytes if that is known."""
    if have + (length or 0) > MOST_BYTES:
        raise PipelineError(f"{have + (length or 0):,} bytes are too many for this archive")
    _check_room(part.parent, length or 0)
    received, started, before = 0, time.monotonic(), 0
    with (
        part.open("r+b" if have else "wb") as out,
        tqdm(
            initial=have,
            total=length and have + length,
            unit="B",
            unit_scale=True,
            desc="download",
            disable=not sys.stderr.isatty(),
        ) as progress,
    ):
        out.seek(have)
        while chunk := _next_chunk(answer):
            out.write(chunk)
            received += len(chunk)
            progress.update(len(chunk))
            if have + received > MOST_BYTES:
                part.unlink()  # of no use to a later run
                raise PipelineError("it does not end")
            if time.monotonic() - started > TIMEOUT:
                if received - before < SLOWEST * TIMEOUT:
                    raise _MayPassError(f"fewer than {SLOWEST:,} bytes per second")
                started, before = time.monotonic(), received
    if length is not None and received != length:
        raise _MayPassError(f"received {have + received:,} of {have + length:,} bytes")


def _next_chunk(answer: requests.Response) -> bytes:
    """What has arrived of the body, as soon as something has; b"" at its end."""
    try:
        chunk: bytes = answer.raw.read1(CHUNK, decode_content=False)
    except urllib3.exceptions.ReadTimeoutError:
        raise _MayPassError(f"no byte within {TIMEOUT:g} s") from None
    except (urllib3.exceptions.HTTPError, OSError):
        raise _MayPassError("the connection broke off") from None
    return chunk


def _check_room(folder: Path, size: int) -> None:
    """Raise `PipelineError` if the disk of `folder` has no room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise PipelineError(
            f"{folder.resolve()}: {size:,} bytes are needed, and the disk has {free:,} free"
        )


def _short(error: Exception) -> str:
    """The cause of a failed request without the object addresses that urllib3 puts into it."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, requests.TooManyRedirects):
        return f"redirects more than {MOST_REDIRECTS} times"
    if isinstance(error, requests.ConnectionError):
        return "could not connect"
    return " ".join(str(error).split())
