"""Reads pictures of any kind as the small images that the network takes."""

import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar100.running.errors import PipelineError, reason_of

SIZE = 32
STANDARD_INPUT = "-"
# Pillow knows more, some of which it reads by means of other programs (EPS: Ghostscript).
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO", "TGA"]
MAX_BYTES = 2**28  # from standard input
MAX_PIXELS = 90_000_000  # of a picture, decoded: 270 MB
TOO_LARGE = f"more than {MAX_PIXELS // 10**6} million pixels; scale it down first"


def picture_files(names: list[str]) -> Iterator[str]:
    """The files among `names` and those in the folders among them, in the order of their names."""
    for name in names:
        if name != STANDARD_INPUT and Path(name).is_dir():
            yield from sorted(str(file) for file in Path(name).rglob("*") if file.is_file())
        else:
            yield name


def read_image(name: str) -> NDArray[np.uint8]:
    """The picture in this file, or `-` for standard input, as uint8 (3, 32, 32): red, green, blue.

    It is turned as its EXIF data say, put on white where it is transparent, cut to its middle
    square and scaled; of an animation it is the first frame. Raises `PipelineError` if it cannot be
    read or has more than 90 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is raised
            source = _standard_input() if name == STANDARD_INPUT else name
            with Image.open(source, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                picture.draft("RGB", (4 * SIZE, 4 * SIZE))  # has a JPEG decoded at a lower size
                upright = ImageOps.exif_transpose(picture)
                square = ImageOps.fit(_to_rgb(upright), (SIZE, SIZE), Image.Resampling.BICUBIC)
    except PipelineError:
        raise
    except FileNotFoundError:
        raise PipelineError(f"{name}: not found") from None
    except UnidentifiedImageError:
        raise PipelineError(
            f"{name}: not a picture in a format that is read here: {', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError:
        raise PipelineError(f"{name}: {TOO_LARGE}") from None
    except Exception as error:  # a damaged picture makes the decoders raise what they please
        raise PipelineError(f"{name}: cannot be read ({reason_of(error)})") from None
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _standard_input() -> io.BytesIO:
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise PipelineError(f"{STANDARD_INPUT}: more than {MAX_BYTES // 2**20} MiB")
    return io.BytesIO(content)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Eight bits per channel, without transparency."""
    if picture.mode[0] in "IF":  # one channel of 16 or 32 bits, which Pillow would cut off at 255
        values = np.asarray(picture, np.float64)
        largest = values.max()
        white = 1.0 if largest <= 1 else 255.0 if largest <= 255 else max(65535.0, largest)
        scaled = np.nan_to_num(255 * values / white).clip(0, 255)
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
        return opaque.convert("RGB")
    return picture.convert("RGB")
