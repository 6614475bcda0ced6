"""Downloads one file over HTTP: retries, resumes, and says in words what went wrong.

The part received so far lies in .downloads/, outside of what DVC deletes before it runs a stage, so
that a later run resumes as well.
"""

import hashlib
import http.client
import logging
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from tqdm import tqdm

from cifar100.running.errors import PipelineError, reason_of

PARTS = Path(".downloads")
TIMEOUT = 30.0  # seconds without an answer or a byte
MIN_SPEED = 2_000  # bytes per second, on average after the first TIMEOUT
MAX_ATTEMPTS = 3  # where a failure may pass
PAUSE = 1.0  # seconds before the second attempt; each further one waits twice as long
MAX_PAUSE = 60.0  # seconds, also where a server asks for more
MAX_REDIRECTS = 5
MAX_BYTES = 2**30  # the archive has 169 MB
CHUNK = 2**18
PROXY_ERRORS = (
    urllib3.exceptions.ProxyError,
    urllib3.exceptions.ProxySchemeUnknown,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
)
# The second form ends its host too early, at a mark that belongs to its password.
USER_INFO = re.compile(r"(?<=://)(?:[^/?#]*|[^/?#@:\[]*:(?!\d*(?:[/?#]|$)).*)@", re.DOTALL)
NO_PROXY = "; if your network has a proxy, name it in HTTPS_PROXY"


def without_password(address: str) -> str:
    """An address, or a text with one, as it may be printed: without the name and the password."""
    return USER_INFO.sub("", address)


class _BrokenOffError(Exception):
    """The body stopped before its end; what arrived is kept."""


class _Retry(urllib3.Retry):
    """Says on standard error that it tries again; does not wait as long as any server likes."""

    def increment(self, *args: Any, **kwargs: Any) -> "_Retry":
        following = super().increment(*args, **kwargs)  # raises if there is no further attempt
        url = f"{kwargs['_pool'].scheme}://{kwargs['_pool'].host}"
        if answer := kwargs.get("response"):
            problem = f"the server answers {answer.status}"
        else:
            problem = _in_words(kwargs["error"], url)
        print(f"download: {url}: {problem}; trying again", file=sys.stderr)
        return following

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return seconds and min(seconds, MAX_PAUSE)


def download(url: str, target: Path, check: Callable[[Path], str]) -> str:
    """Write what `url` gives to `target` if `check` accepts it; return the answer of `check`.

    After an interruption only the rest is fetched. What does not pass the check is deleted, and
    fetched from the beginning if it came in pieces. Raises `PipelineError` with the reason.
    """
    _refuse_marks_in_password(url)
    part = PARTS / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            _fetch_rest(url, part)
        except _BrokenOffError as error:
            problem = str(error)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            # requests lets others through where a server names an address that is none
            request = getattr(error, "request", None)  # of the last redirect, if it got so far
            raise PipelineError(_in_words(error, getattr(request, "url", url))) from None
        else:
            try:
                accepted = check(part)  # where it is, so that it stays if the check is interrupted
            except PipelineError as error:
                part.unlink()
                if not resumed or attempt == MAX_ATTEMPTS:
                    reason = str(error).replace(str(part), "the file received")
                    raise PipelineError(reason) from None
                problem = "the pieces do not fit; from the beginning"
            else:
                shutil.move(part, target)
                return accepted
        if attempt == MAX_ATTEMPTS:
            raise PipelineError(problem)
        print(f"download: {without_password(url)}: {problem}; trying again", file=sys.stderr)
        time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _refuse_marks_in_password(url: str) -> None:
    """Raise `PipelineError` if a mark in the password ends it: the rest would count as a path."""
    authority = re.split(r"[/?#\\]", url.partition("://")[2])[0]
    if "@" not in authority and without_password(url) != url:
        raise PipelineError(
            "is no address: write / as %2F, ? as %3F, # as %23 and \\ as %5C in its password"
        )


def _fetch_rest(url: str, part: Path) -> None:
    """Append what `part` lacks; write it again if the server gives all."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # lengths are those of the file
    if have:
        headers["Range"] = f"bytes={have}-"
    with (
        _session() as session,
        session.get(url, stream=True, timeout=TIMEOUT, headers=headers) as answer,
    ):
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # there is no more; whether it is the archive is for the check to say
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            have = 0
        length: int | None = answer.raw.length_remaining
        if have + (length or 0) > MAX_BYTES:
            raise PipelineError(f"{have + (length or 0):,} bytes are too many for this archive")
        check_room(part.parent, length or 0)
        total, hidden = length and have + length, not sys.stderr.isatty()
        started = time.monotonic()
        with (
            part.open("ab" if have else "wb") as out,
            tqdm(initial=have, total=total, unit="B", unit_scale=True, disable=hidden) as progress,
        ):
            while chunk := _next_chunk(answer.raw):
                out.write(chunk)
                progress.update(len(chunk))
                if out.tell() > MAX_BYTES:
                    break
                if out.tell() - have < MIN_SPEED * (time.monotonic() - started - TIMEOUT):
                    raise _BrokenOffError(f"fewer than {MIN_SPEED:,} bytes per second")
        if part.stat().st_size > MAX_BYTES:
            part.unlink()  # of no use to a later run; closed before, because Windows demands it
            raise PipelineError("it does not end")


def _session() -> requests.Session:
    """A session that retries what may pass: no connection, no answer, a server that is busy.

    A certificate, a password or an address that is wrong stays so: other failures are told at once.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # `_Retry` tells its warnings in words
    session = requests.Session()
    retry = _Retry(
        total=MAX_ATTEMPTS - 1,
        other=0,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=PAUSE,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.max_redirects = MAX_REDIRECTS
    session.hooks["response"].append(_close_redirect)
    return session


def _close_redirect(answer: requests.Response, **_options: object) -> None:
    """Drop the body of a redirect, which requests would read whole, however long it is."""
    if answer.is_redirect:
        answer.close()


def _next_chunk(raw: urllib3.HTTPResponse) -> bytes:
    """What has arrived of the body, as soon as something has; b"" at its end."""
    try:
        return raw.read1(CHUNK, decode_content=False)
    except urllib3.exceptions.ReadTimeoutError:
        raise _BrokenOffError(f"no byte within {TIMEOUT:g} s") from None
    except (urllib3.exceptions.HTTPError, OSError):
        raise _BrokenOffError("the connection broke off") from None


def check_room(folder: Path, size: int) -> None:
    """Raise `PipelineError` if the disk of `folder` has no room for `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise PipelineError(
            f"{folder.resolve()}: {size:,} bytes are needed, and the disk has {free:,} free"
        )


def _in_words(error: Exception, url: str) -> str:
    """Why a request failed, and what to do. urllib3's words have objects and passwords in them."""
    causes = _causes(error)
    innermost = causes[-1]
    detail = without_password(getattr(innermost, "strerror", None) or reason_of(innermost))
    url = without_password(url)
    proxy = select_proxy(url, get_environ_proxies(url))
    variable = f"{urlsplit(url).scheme.upper()}_PROXY"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, requests.TooManyRedirects):
        return f"redirects more than {MAX_REDIRECTS} times"
    if status == requests.codes.proxy_authentication_required or "failed: 407" in detail:
        return (
            "the proxy asks for a name and a password (407); give them as in "
            f"{variable}=http://NAME:PASSWORD@HOST:PORT"
        )
    if isinstance(error, requests.HTTPError):
        return f"the server answers {status} {error.response.reason}"
    if isinstance(innermost, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({innermost.verify_message}); if your network has a "
            "certificate of its own, name its file in the environment variable REQUESTS_CA_BUNDLE"
        )
    if proxy and any(isinstance(cause, PROXY_ERRORS) for cause in causes):
        name = urlsplit(proxy).netloc.rpartition("@")[2] or "given"
        return f"the proxy {name} cannot be used ({detail}); check the variable {variable}"
    if isinstance(innermost, UnicodeError | urllib3.exceptions.LocationValueError):
        return f"is no address ({detail})"
    if isinstance(innermost, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(innermost, http.client.HTTPException):
        return f"what answers there does not speak HTTP ({detail})"
    if isinstance(innermost, socket.gaierror):
        host = urlsplit(url).hostname
        return f"the name {host} does not resolve; check it, and the connection{NO_PROXY}"
    if isinstance(innermost, ssl.SSLError):
        return f"no secure connection ({detail})"
    if isinstance(innermost, TimeoutError | urllib3.exceptions.TimeoutError):
        return f"no answer within {TIMEOUT:g} s{'' if proxy else NO_PROXY}"
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError):
        return f"could not connect ({detail}{'' if proxy else NO_PROXY})"
    return detail


def _causes(error: Exception) -> list[Exception]:
    """The error and those inside it, as requests and urllib3 wrap them, from the outside in."""
    found = [error]
    for outer in found:  # which grows meanwhile
        inner = [*outer.args, getattr(outer, "reason", None), outer.__cause__]
        found += [each for each in inner if isinstance(each, Exception) and each not in found]
    return found
