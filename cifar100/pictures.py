"""Reads pictures of any kind as the small images that the network takes."""

import errno
import io
import os
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from cifar100.running.errors import PipelineError, reason_of

SIZE = 32
STANDARD_INPUT = "-"
# Pillow knows more, some of which it reads by means of other programs (EPS: Ghostscript).
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA"]
MAX_BYTES = 2**28  # from standard input
MAX_PIXELS = 120_000_000  # of a picture as it is decoded: 480 MB
TOO_LARGE = f"more than {MAX_PIXELS // 10**6} million pixels; scale it down first"
# What file managers leave in folders of pictures, besides files whose names begin with a dot.
LEFT_BY_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx")
# Of a shell, as in `predict <(convert cat.svg png:-)`; another pipe may never get any content.
PIPES = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
ORIENTATION = 0x0112  # of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def picture_files(names: Iterable[str]) -> Iterator[str]:
    """The files among `names` and those in the folders among them, in the order of their names.

    What file managers leave in folders is passed over. A folder that holds nothing else, or cannot
    be read, is given itself, so that it is missed.
    """
    for name in names:
        is_folder = name != STANDARD_INPUT and os.path.isdir(name)
        yield from (sorted(_files_below(name)) if is_folder else []) or [name]


def _files_below(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """What is in a folder, at any depth, and is none; the folders that cannot be read as well."""
    try:
        status, names = os.stat(folder), os.listdir(folder)
    except OSError:
        yield folder
        return
    here = status.st_dev, status.st_ino
    if here in above:
        return  # by a link to a folder that holds it
    for name in names:
        if name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS:
            continue
        path = os.path.join(folder, name)
        yield from _files_below(path, (*above, here)) if os.path.isdir(path) else [path]


def read_image(name: str) -> NDArray[np.uint8]:
    """The picture in this file, or `-` for standard input, as uint8 (3, 32, 32): red, green, blue.

    Its colours are taken to sRGB by its profile, it is put on white where it is transparent, cut to
    its middle square, scaled, and turned as its EXIF data say; of an animation it is the first
    frame. Raises `PipelineError` if it cannot be read or has more than 120 million pixels. A JPEG
    may have up to 178 million, Pillow's own limit, because it is decoded at a lower size.
    """
    try:
        with warnings.catch_warnings(), _opened(name) as stream:
            warnings.simplefilter("ignore")  # what matters is raised
            with Image.open(stream, formats=FORMATS) as picture:
                picture.draft("RGB", (4 * SIZE, 4 * SIZE))  # has a JPEG decoded at a lower size
                if picture.width * picture.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                square = _small_square(picture)
    except PipelineError as error:
        raise PipelineError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise PipelineError(
            f"{name}: not a picture in a format that is read here: {', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError:
        raise PipelineError(f"{name}: {TOO_LARGE}") from None
    except MemoryError:
        raise PipelineError(f"{name}: not enough memory; scale it down first") from None
    except Exception as error:  # a damaged picture makes the decoders raise what they please
        reason = getattr(error, "strerror", None) or f"cannot be read ({reason_of(error)})"
        raise PipelineError(f"{name}: {reason}") from None
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _opened(name: str) -> Any:
    """The file of this name as a binary stream that can be read from any place."""
    try:
        if name == STANDARD_INPUT:
            return _read_through(sys.stdin.buffer if sys.stdin else io.BytesIO())
        kind = os.stat(name)
        if stat.S_ISREG(kind.st_mode):
            if kind.st_size == 0:
                raise PipelineError("is empty")
            return open(name, "rb")
        if stat.S_ISDIR(kind.st_mode):
            os.listdir(name)  # says why it was not looked into
            raise PipelineError("a folder without a picture")
        if stat.S_ISFIFO(kind.st_mode) and name.startswith(PIPES):
            with open(name, "rb") as stream:
                return _read_through(stream)
    except FileNotFoundError:
        address = "; give a file, addresses are not fetched" if "://" in name else ""
        link = ", a link to what is not there" if os.path.islink(name) else ""
        raise PipelineError(f"not found{link}{address}") from None
    except ValueError as error:  # a name that no file can have
        raise OSError(errno.EINVAL, reason_of(error)) from None
    raise PipelineError("is no regular file; give a picture, or - for standard input")


def _read_through(stream: Any) -> io.BytesIO:
    content = stream.read(MAX_BYTES + 1)
    if not content:
        raise PipelineError("is empty")
    if len(content) > MAX_BYTES:
        raise PipelineError(f"more than {MAX_BYTES // 2**20} MiB")
    return io.BytesIO(content)


def _small_square(picture: Image.Image) -> Image.Image:
    """The middle square, scaled, in sRGB, on white and upright."""
    if 0 in picture.size:
        raise PipelineError("has no pixels")
    orientation, profile = _orientation(picture), picture.info.get("icc_profile")
    picture.load()
    if picture.mode[0] in "IF":  # one channel of 16 or 32 bits, which Pillow would cut off at 255
        picture, profile = _to_eight_bits(picture), None
    elif picture.has_transparency_data and picture.mode != "RGBA":
        picture = picture.convert("RGBA")
    elif picture.mode not in ("RGB", "RGBA", "L", "CMYK", "LAB"):
        picture = picture.convert("RGB")
    small = ImageOps.fit(picture, (SIZE, SIZE), Image.Resampling.BICUBIC)
    if small.mode == "RGBA":
        opaque = _to_srgb(small.convert("RGB"), profile)
        opaque.putalpha(small.getchannel("A"))
        white = Image.new("RGBA", small.size, "white")
        white.alpha_composite(opaque)
        small, profile = white.convert("RGB"), None
    upright = _to_srgb(small, profile)
    return upright.transpose(TURNS[orientation]) if orientation in TURNS else upright


def _orientation(picture: Image.Image) -> int:
    """How the camera was held, as EXIF has it; 1, upright, if that does not say."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged words about a picture say nothing about its pixels
        return 1


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The colours as a screen shows them; without a profile, or with a damaged one, as they are."""
    try:
        source: Any = None
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        elif picture.mode == "LAB":
            source = ImageCms.createProfile("LAB")
        if source:
            converted = ImageCms.profileToProfile(
                picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            return converted or picture.convert("RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        pass  # it is of another kind than the picture, or this Pillow lacks its library
    return picture.convert("RGB")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """One channel of 16 or 32 bits scaled to the white that its largest value suggests."""
    values = np.asarray(picture, np.float32)
    largest = values.max()
    white = 1.0 if largest <= 1 else 255.0 if largest <= 255 else max(65535.0, largest)
    scaled = np.nan_to_num(255 * values / white).clip(0, 255)
    return Image.fromarray(scaled.astype(np.uint8))
