"""Modes, formats and damaged content of pictures, as `read_image` takes them."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from cifar100.pictures import FORMATS, picture_files, read_image
from cifar100.running.errors import PipelineError


def saved(tmp_path, picture: Image.Image, suffix: str, **options) -> str:
    path = tmp_path / f"picture{suffix}"
    picture.save(path, **options)
    return str(path)


def test_image_of_the_data_set_is_read_unchanged(tmp_path, samples):
    picture = Image.fromarray(samples.images[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(read_image(saved(tmp_path, picture, ".png")), samples.images[0])


@pytest.mark.parametrize(
    ("mode", "color", "suffix", "expected"),
    [
        ("L", 200, ".png", (200, 200, 200)),
        ("1", 1, ".png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), ".jpg", (254, 0, 0)),
        ("RGBA", (255, 0, 0, 0), ".png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), ".webp", (255, 0, 0)),
        ("LA", (0, 128), ".png", (127, 127, 127)),
        ("I;16", 32768, ".png", (127, 127, 127)),
        ("F", 0.5, ".tiff", (127, 127, 127)),
    ],
)
def test_modes_come_out_as_the_colours_that_people_see(tmp_path, mode, color, suffix, expected):
    for size in ((1, 1), (300, 200)):
        found = read_image(saved(tmp_path, Image.new(mode, size, color), suffix))
        assert found.shape == (3, 32, 32)
        np.testing.assert_allclose(found.mean((1, 2)), expected, atol=3)


def test_palette_with_transparency_and_animation(tmp_path):
    first, second = Image.new("P", (40, 40), 0), Image.new("P", (40, 40), 1)
    for frame in (first, second):
        frame.putpalette([255, 0, 0, 0, 0, 255])
    first.paste(1, (0, 0, 20, 40))
    animated = saved(tmp_path, first, ".gif", save_all=True, append_images=[second])
    assert read_image(animated)[0, :, -5:].min() > 200  # the first frame is red on the right
    see_through = saved(tmp_path, first, ".png", transparency=0)
    assert read_image(see_through)[:, :, -5:].min() > 250


def test_picture_is_turned_as_its_camera_was(tmp_path):
    picture = Image.new("RGB", (64, 64), "red")
    picture.paste("blue", (0, 0, 64, 32))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    turned = read_image(saved(tmp_path, picture, ".png", exif=exif))
    assert turned[0, :8].min() > 200  # red above


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = (
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_header(30_000, 30_000), "more than 120 million pixels"),
        (png_header(11_000, 11_000), "more than 120 million pixels"),
        (png_header(100, 100), "cannot be read"),
        (b"", "is empty"),
        (b"text", "not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "not a picture|cannot be read"),
    ],
)
def test_hostile_pictures_are_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"picture\.png: .*({reason})") as caught:
        read_image(str(path))
    assert "\n" not in str(caught.value)


def test_postscript_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    """Pillow reads it with the program Ghostscript, which has been tricked before."""
    trace, program = tmp_path / "trace", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # not looked for yet
    path = tmp_path / "picture.png"
    Image.new("RGB", (32, 32)).save(path, "EPS")
    with pytest.raises(PipelineError, match=r"picture\.png: not a picture in a format that"):
        read_image(str(path))
    assert not trace.exists()


def test_every_format_that_the_message_names_is_read(tmp_path):
    picture = Image.new("RGB", (64, 64), "red")
    for kind in FORMATS:
        path = tmp_path / "picture"
        picture.save(path, kind)
        assert read_image(str(path))[0].min() > 200, kind


def test_damaged_pictures_raise_nothing_else(tmp_path):
    """Real files of several formats with random bytes overwritten, cut or doubled."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    path = tmp_path / "picture"
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        for _ in range(50):
            content = bytearray(buffer.getvalue())
            for _ in range(rng.integers(1, 20)):
                content[rng.integers(len(content))] = rng.integers(256)
            path.write_bytes(content[: rng.integers(1, len(content) + 1)])
            try:
                assert read_image(str(path)).shape == (3, 32, 32)
            except PipelineError:
                refused += 1
    assert refused > 100


def test_folders_are_read_in_the_order_of_names(tmp_path):
    for name in ("b/2", "a/1", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list(picture_files([str(tmp_path), "-", "x.png"]))
    assert found == [*(str(tmp_path / name) for name in ("a/1", "b/2", "c")), "-", "x.png"]
