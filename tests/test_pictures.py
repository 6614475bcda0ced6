"""Pictures of all kinds of devices and programs, and what lies beside them in people's folders."""

import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from cifar100 import pictures
from cifar100.pictures import picture_files, read_image
from cifar100.running.errors import PipelineError, printable
from tests.conftest import ROOT

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(size=(64, 48), mode="RGB", left=RED, right=BLUE) -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "A maker of telephones"
    return tags.tobytes()


def profile(red, green, blue) -> bytes:
    """An ICC profile of version 2 with these primaries (X, Y, Z under D50) and a gamma of 2.2."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * v)) for v in values)

    text = b"text\0\0\0\0none\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"cprt": text,
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **{name: xyz(v) for name, v in ((b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue))},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + struct.pack(">IIH", 0, 1, 0x233)),
    }
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"test", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + table + body


PRIMARIES = (0.436, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)  # sRGB
SRGB, SWAPPED = profile(*PRIMARIES), profile(*PRIMARIES[::-1])


def test_profile_of_these_tests_is_one():
    opened = ImageCms.ImageCmsProfile(io.BytesIO(SWAPPED))
    assert ImageCms.getProfileDescription(opened).strip() == "test"


def colours(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean colours of the left and of the right half, without the seam."""
    image = read_image(str(path))
    assert image.shape == (3, 32, 32)
    assert image.dtype == np.uint8
    return image[:, :, :12].mean((1, 2)), image[:, :, -12:].mean((1, 2))


def sixteen_bits() -> bytes:
    values = np.zeros((48, 64), np.uint16)
    values[:, :32] = 40_000
    return encoded(Image.fromarray(values), "PNG")


GREY, DARK = (40_000 / 257,) * 3, (0, 0, 0)

# What a device or a program makes: the content, and the colours on the left and on the right.
DEVICES: dict[str, tuple[Callable[[], bytes], tuple, tuple]] = {
    "telephone held upright.jpg": (
        lambda: encoded(halves().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif(6)),
        RED,
        BLUE,
    ),
    "telephone held upside down.jpg": (
        lambda: encoded(halves(left=BLUE, right=RED), "JPEG", exif=exif(3)),
        RED,
        BLUE,
    ),
    "stereo camera.jpg": (
        lambda: encoded(halves(), "MPO", save_all=True, append_images=[halves(left=BLUE)]),
        RED,
        BLUE,
    ),
    "print shop.jpg": (lambda: encoded(halves(mode="CMYK"), "JPEG"), (254, 0, 0), (0, 0, 254)),
    "scanner.png": (sixteen_bits, GREY, DARK),
    "drawing.gif": (
        lambda: encoded(halves(mode="P"), "GIF", save_all=True, append_images=[halves(left=BLUE)]),
        RED,
        BLUE,
    ),
    "web page.jpg": (lambda: encoded(halves(), "JPEG", progressive=True, optimize=True), RED, BLUE),
    "sticker.webp": (
        lambda: encoded(halves(mode="RGBA", right=(9, 9, 9)), "WEBP", lossless=True),
        RED,
        (9, 9, 9),
    ),
    "wide colours.png": (lambda: encoded(halves(), "PNG", icc_profile=SWAPPED), BLUE, RED),
    "old camera.tif": (lambda: encoded(halves(), "TIFF", compression="tiff_lzw"), RED, BLUE),
    "icon.ico": (lambda: encoded(halves((256, 256)), "ICO"), RED, BLUE),
    "pixel.bmp": (lambda: encoded(Image.new("RGB", (1, 1), RED), "BMP"), RED, RED),
    "archive.jp2": (lambda: encoded(halves(), "JPEG2000"), RED, BLUE),
    "new telephone.avif": (lambda: encoded(halves(), "AVIF", quality=90), RED, BLUE),
}


def save_devices(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, (content, _, _) in DEVICES.items():
        (folder / name).write_bytes(content())
    return [folder / name for name in DEVICES]


@pytest.mark.parametrize("name", DEVICES)
def test_colours_are_those_that_people_see(tmp_path, name):
    content, left, right = DEVICES[name]
    (tmp_path / name).write_bytes(content())
    np.testing.assert_allclose(colours(tmp_path / name), (left, right), atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_upright_however_the_camera_was_held(tmp_path, orientation):
    upright = halves((60, 60))
    upright.paste("white", (0, 0, 20, 20))  # a corner, which tells all eight apart
    stored_as = {
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.transpose(Image.Transpose.ROTATE_180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.transpose(Image.Transpose.ROTATE_90),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    upright.save(tmp_path / "a.png")
    stored_as(upright).save(tmp_path / "b.png", exif=exif(orientation))
    expected, found = (read_image(str(tmp_path / name)).astype(int) for name in ("a.png", "b.png"))
    assert np.abs(expected - found).max() <= 8  # where a filter overshoots, in one direction first


GARBAGE = [
    b"Exif\0\0" + bytes(range(1, 60)),
    b"Exif\0\0II*\0\xff\xff\xff\xff",
    b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + 60 * b"\xee",
    b"Exif\0\0",
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_words_about_a_picture_that_make_no_sense_do_not_hide_it(tmp_path, kind, garbage):
    density = {"dpi": (72, 72)} if kind == "JPEG" else {}
    (tmp_path / "a").write_bytes(encoded(halves(), kind, exif=garbage, **density))
    np.testing.assert_allclose(colours(tmp_path / "a"), (RED, BLUE), atol=12)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "grey for colours"])
def test_damaged_profile_leaves_the_colours_as_they_are(tmp_path, damage):
    noise = bytearray(SWAPPED)
    noise[140:400:3] = bytes(len(noise[140:400:3]))
    content = {"cut": SWAPPED[:200], "noise": bytes(noise), "empty": b"?"}.get(damage, SRGB)
    mode = "L" if damage == "grey for colours" else "RGB"
    (tmp_path / "a.png").write_bytes(encoded(halves(mode=mode), "PNG", icc_profile=content))
    expected = np.asarray(halves(mode=mode).convert("RGB"))[0, [0, -1]]
    np.testing.assert_allclose(colours(tmp_path / "a.png"), expected, atol=12)


def test_profiles_of_any_bytes_raise_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(SWAPPED)
        for _ in range(rng.integers(1, 40)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "a.png").write_bytes(encoded(halves(), "PNG", icc_profile=bytes(damaged)))
        assert read_image(str(tmp_path / "a.png")).shape == (3, 32, 32)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_profile_of_a_picture_that_is_see_through(tmp_path, mode):
    picture = halves(mode="RGBA")
    picture.putalpha(halves(mode="L", left=(255,) * 3, right=(0,) * 3))
    picture.convert(mode).save(tmp_path / "a.png", icc_profile=SRGB)
    left, right = colours(tmp_path / "a.png")
    np.testing.assert_allclose(right, (255, 255, 255), atol=3)
    np.testing.assert_allclose(left, RED if mode != "LA" else (76, 76, 76), atol=12)


def test_lab_colours_are_converted(tmp_path):
    lab = ImageCms.profileToProfile(
        halves(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(tmp_path / "a.tif")
    np.testing.assert_allclose(colours(tmp_path / "a.tif"), (RED, BLUE), atol=25)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (31, 33)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_size_of_a_picture_does_not_matter(tmp_path, size, kind):
    (tmp_path / "a").write_bytes(encoded(Image.new("RGB", size, "red"), kind))
    np.testing.assert_allclose(colours(tmp_path / "a")[0], RED, atol=3)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "mode"), [("jpg", "RGB"), ("jpg", "CMYK"), ("png", "RGB")])
def test_picture_of_108_megapixels_is_read(tmp_path, suffix, mode):
    path = tmp_path / f"a.{suffix}"
    options = {"compress_level": 1} if suffix == "png" else {}
    halves((12_000, 9_000), mode).save(path, **options)
    np.testing.assert_allclose(colours(path), (RED, BLUE), atol=12)


def heic() -> bytes:
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat.png", encoded(halves(), "PNG"))
    return buffer.getvalue()


NO_PICTURES: dict[str, tuple[bytes, str]] = {
    "notes.txt": (b"Cats we saw in spring\n", "not a picture in a format that is read here"),
    "page.html": (b"<!doctype html><img src=cat.jpg>", "not a picture"),
    "vector.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a picture"),
    "report.pdf": (b"%PDF-1.7\n1 0 obj\n", "not a picture"),
    "film.mp4": (b"\0\0\0\x18ftypmp42" + bytes(500), "not a picture"),
    "telephone.heic": (heic(), "not a picture"),
    "all.zip": (zipped(), "not a picture"),
    "labels.pkl": (pickle.dumps(["cat"]), "not a picture"),
    "nothing.jpg": (b"", "is empty"),
    "cut off.jpg": (encoded(halves((640, 480)), "JPEG")[:1500], "cannot be read (image file is tr"),
    "cut off.png": (encoded(halves((640, 480)), "PNG")[:200], "cannot be read ("),
    "bomb.png": (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
        + struct.pack(">IIBBBBBI", 60_000, 60_000, 8, 2, 0, 0, 0, 0),
        "cannot be read|not a picture|million pixels",
    ),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_file_that_is_no_picture_is_one_line(tmp_path, name):
    content, reason = NO_PICTURES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        read_image(str(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert any(part in str(caught.value) for part in reason.split("|"))
    assert "\n" not in str(caught.value)


@pytest.fixture
def odd(tmp_path) -> Path:
    """A folder with what is no regular file, beside a picture."""
    folder = tmp_path / "odd"
    (folder / "holiday.jpg").mkdir(parents=True)
    halves().save(folder / "cat.png")
    os.mkfifo(folder / "pipe.png")
    os.symlink("gone.png", folder / "link.png")
    os.symlink("loop.png", folder / "loop.png")
    os.symlink("/dev/zero", folder / "zero.png")
    return folder


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("holiday.jpg", "a folder without a picture"),
        ("pipe.png", "is no regular file; give a picture, or - for standard input"),
        ("zero.png", "is no regular file"),
        ("link.png", "not found, a link to what is not there"),
        ("loop.png", "Too many levels of symbolic links"),
        ("absent.png", "not found"),
        ("https://example.org/cat.png", "not found; give a file, addresses are not fetched"),
        ("x" * 300, "File name too long"),
        ("a\0b", "Invalid argument|not found|embedded null"),
        ("cat.png/cat.png", "Not a directory"),
    ],
)
def test_name_without_a_picture_is_one_line_at_once(odd, monkeypatch, name, reason):
    monkeypatch.chdir(odd)
    with pytest.raises(PipelineError) as caught:
        read_image(name)
    assert any(part in str(caught.value) for part in reason.split("|"))


def test_socket_and_names_with_line_ends_are_one_line(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a\nb\x1b[31m"))
        with pytest.raises(PipelineError) as caught:
            read_image(str(tmp_path / "a\nb\x1b[31m"))
    assert "\\nb\\x1b[31m: is no regular file; give a picture" in str(caught.value)


def test_names_stay_readable_and_on_their_line():
    assert printable("größe 猫\u202f.png") == "größe 猫\u202f.png"
    assert printable("a\nb\udcff\x1b\u202e") == "a\\nb\\udcff\\x1b\\u202e"


def test_folder_is_read_with_all_that_it_links_to(tmp_path):
    """Once, also where a link leads back; what file managers leave in it is passed over."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "holiday"
    for path in (elsewhere / "e.png", folder / "a.png", folder / "deep/er/d.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in (".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", ".hidden/h.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/m.png").touch()
    os.symlink(elsewhere, folder / "more")
    os.symlink(folder, folder / "deep/back")
    os.symlink("gone", folder / "broken")
    found = [name.removeprefix(f"{folder}/") for name in picture_files([str(folder)])]
    assert found == ["a.png", "broken", "deep/er/d.png", "more/e.png"]


def test_folder_without_a_picture_and_file_named_like_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-").mkdir()
    Path("empty").mkdir()
    Path("junk").mkdir()
    Path("junk/.DS_Store").touch()
    assert list(picture_files(["-", "empty", "junk"])) == ["-", "empty", "junk"]


AS_NOBODY = """
import os, sys
from cifar100.pictures import picture_files, read_image
from cifar100.running.errors import PipelineError
if os.getuid() == 0:
    os.setuid(65534)  # root may read everything
for name in picture_files(["."]):
    try:
        read_image(name)
    except PipelineError as error:
        print(error)
"""


def test_files_and_folders_that_may_not_be_read_are_one_line_each():
    with tempfile.TemporaryDirectory() as name:  # one that others may enter
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "shut").mkdir()
        halves().save(folder / "shut/a.png")
        halves().save(folder / "b.png")
        (folder / "b.png").chmod(0o000)
        (folder / "shut").chmod(0o000)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        (folder / "shut").chmod(0o700)
    assert done.stdout.splitlines() == [
        "./b.png: Permission denied",
        "./shut: Permission denied",
    ], done.stderr


def test_limit_of_pixels_is_of_those_that_are_decoded(tmp_path, monkeypatch):
    """A JPEG is decoded to fewer, so that 108 million of them take no more memory than 2."""
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100_000)
    halves((1000, 800)).save(tmp_path / "a.jpg")
    halves((1000, 800)).save(tmp_path / "a.png")
    np.testing.assert_allclose(colours(tmp_path / "a.jpg"), (RED, BLUE), atol=12)
    with pytest.raises(PipelineError, match="million pixels; scale it down first"):
        read_image(str(tmp_path / "a.png"))
