"""`python -m cifar100.predict` on pictures of all kinds, good ones and bad ones."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cifar100
from cifar100.chinese import COARSE, FINE
from cifar100.dataset.splits import load_split
from cifar100.model import Model
from cifar100.model_folder import FILES
from cifar100.running.errors import PipelineError
from cifar100.top_classes import as_blocks
from cifar100.trained.inference import predict_logits
from cifar100.trained.loading import load_model
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def pictures(finished, tmp_path_factory):
    """A folder with 20 test images as PNG, half of them in a folder of it."""
    folder = tmp_path_factory.mktemp("pictures")
    images = load_split(finished.path / "data/processed/test.npz").images[::100]
    for index, image in enumerate(images):
        (folder / "deep").mkdir(exist_ok=True)
        path = folder / ("deep" if index % 2 else ".") / f"{index:02}.png"
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return folder


@pytest.fixture
def bare(finished, tmp_path):
    """A folder that has the model's two files and nothing else, not even params.yaml."""
    (tmp_path / "models").mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(finished.path / "models" / name, tmp_path / "models")
    return tmp_path


def predict(folder, *arguments, environment=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "cifar100.predict", *map(str, arguments)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"} | (environment or {}),
        capture_output=True,
        check=False,
        **options,
    )


def test_folder_is_predicted_from_the_bare_model(bare, pictures, finished):
    done = predict(bare, pictures, "--json", "--top", 3, "--saw", "saw")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line["picture"].rsplit("/", 1)[1]: line["predictions"] for line in lines}
    assert sorted(found) == [f"{i:02}.png" for i in range(len(found))]
    names = json.loads((bare / "models/model.json").read_text())["classes"]
    images = load_split(finished.path / "data/processed/test.npz").images[::100]
    model = load_model(*(bare / "models" / name for name in FILES))
    expected = predict_logits(model, images, len(images), flip=False).argmax(axis=1)
    for index, name in enumerate(sorted(found)):
        answers = found[name]
        assert len(answers) == 3
        assert answers[0]["probability"] >= answers[1]["probability"] >= answers[2]["probability"]
        label = names["fine"].index(answers[0]["class"])
        assert answers[0]["superclass"] == names["coarse"][names["coarse_of_fine"][label]]
        assert label == expected[index]
    saw = sorted((bare / "saw").iterdir())
    assert len(saw) == len(found)
    seen = {Image.open(path).tobytes() for path in saw}
    assert seen == {Image.open(path).tobytes() for path in pictures.rglob("*.png")}


@pytest.mark.parametrize("threads", [0, 4096, "2", None])
def test_threads_that_are_not_there_are_one_line(bare, threads):
    with pytest.raises(PipelineError, match=r"load_model: threads is .*; expected a whole number"):
        cifar100.load_model(bare / "models", threads=threads)


@pytest.mark.parametrize(
    ("picture", "found"),
    [
        (np.zeros((32, 32, 3), np.uint8), "uint8 (32, 32, 3)"),
        (np.zeros((3, 32, 32)), "float64 (3, 32, 32)"),
    ],
)
def test_array_that_is_no_image_is_one_line(bare, picture, found):
    model = Model(load_model(*(bare / "models" / name for name in FILES)))
    with pytest.raises(PipelineError, match=re.escape(f"(3, 32, 32), found {found}")):
        model.predict([picture])
    assert model.predict([]) == []
    with pytest.raises(PipelineError, match="top is 0"):
        model.predict([np.zeros((3, 32, 32), np.uint8)], top=0)


def test_bad_pictures_are_one_line_each_and_the_rest_is_done(bare, pictures):
    (bare / "text.png").write_text("this is no picture")
    done = predict(bare, "text.png", "absent.jpg", pictures / "00.png", "--top", 1)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "predict: the network is that in models/",
        "error: predict: text.png: not a picture in a format that is read here: "
        "PNG, JPEG, GIF, BMP, TIFF, WEBP, AVIF, JPEG2000, PPM, ICO, TGA",
        "error: predict: absent.jpg: not found",
        "error: predict: 2 of 3 pictures could not be read",
    ]
    answered = done.stdout.decode().splitlines()
    assert answered[0].endswith("00.png")
    assert answered[1].strip().split()[0].endswith("%")


def test_why_writes_a_map_over_each_picture(bare, pictures):
    """Also of one pixel, and of two pictures whose names become the same."""
    Image.new("RGB", (1, 1), "red").save(bare / "one.png")
    (bare / "a").mkdir()
    for name in ("a/b.png", "a_b.png"):
        shutil.copy(pictures / "00.png", bare / name)
    named = ["one.png", "a/b.png", "a_b.png", pictures / "02.png"]
    done = predict(bare, *named, "--why", "new/maps", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    files = [line["why"] for line in lines]
    assert files[:3] == ["new/maps/one.png", "new/maps/a_b.png", "new/maps/a_b-2.png"]
    assert files[3].endswith("_02.png")
    found = [np.asarray(Image.open(bare / file)) for file in files]
    assert len(list((bare / "new/maps").iterdir())) == 4
    assert {picture.shape for picture in found} == {(256, 256, 3)}
    np.testing.assert_array_equal(found[1], found[2])
    assert not np.array_equal(found[1], found[3])
    assert (found[1].max(axis=2) > found[1].min(axis=2)).mean() > 0.2  # it has colours
    # A second time nothing is overwritten.
    before = {file: (bare / file).read_bytes() for file in files}
    done = predict(bare, *named, "--why", "new/maps")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().splitlines()[-1] == (
        "error: predict: --why new/maps: one.png and 3 more would be overwritten; name another "
        "folder, or remove what is there"
    )
    assert {file: (bare / file).read_bytes() for file in files} == before


def test_folder_for_maps_is_looked_at_before_anything_is_computed(bare, pictures):
    (bare / "notes").write_text("kept")
    done = predict(bare, pictures, "--why", "notes")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        "error: predict: --why notes: cannot be written to (is a file); name another folder"
    ]


@pytest.mark.parametrize("others", [[], ["--why", "maps"]])
def test_images_that_were_looked_at_go_over_no_picture(bare, pictures, others):
    shutil.copy(pictures / "00.png", bare / "cat.png")
    before = (bare / "cat.png").read_bytes()
    done = predict(bare, "cat.png", "--saw", ".", *others)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().splitlines()[-1] == (
        "error: predict: --saw .: cat.png would be overwritten; name another folder, or remove "
        "what is there"
    )
    assert (bare / "cat.png").read_bytes() == before


def test_one_folder_for_two_kinds_of_pictures_is_one_line(bare, pictures):
    done = predict(bare, pictures, "--saw", "out", "--why", "./out")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: predict: --saw and --why name the same folder; name two"
    ]


@pytest.mark.parametrize("single", ["cat.png", Path("cat.png")])
def test_single_picture_in_place_of_a_list_is_one_line(bare, single):
    model = Model(load_model(*(bare / "models" / name for name in FILES)))
    with pytest.raises(PipelineError, match=r"expected a list of pictures, as in \['cat.png'\]"):
        model.predict(single)


def test_chinese_is_printed_or_one_line_says_why_not(bare, pictures, finished):
    """The network of the tests has other classes, so its description gets those of CIFAR-100."""
    description = json.loads((bare / "models/model.json").read_text())
    classes = {"fine": [*FINE], "coarse": [*COARSE]}
    description["classes"] |= classes
    (bare / "models/model.json").write_text(json.dumps(description))
    chinese = ["--language", "zh", "--top", "1", pictures / "00.png"]
    done = predict(bare, *chinese, environment={"LANG": "C"})
    assert done.returncode == 0, done.stderr
    (answer,) = re.findall(r"(?m)^ +[\d.]+%  (\S+) \((\S+)\)$", done.stdout.decode())
    assert answer[0] in FINE.values()
    assert answer[1] in COARSE.values()
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = predict(bare, *chinese, "--json", environment=ascii_only)
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert (prediction["class"], prediction["superclass"]) == answer
    for options, reason in [(chinese, "output is in ascii"), (["--language", "fr", "x"], "en, zh")]:
        done = predict(bare, *options, environment=ascii_only)
        assert done.returncode == 1
        assert done.stdout == b""
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("error: predict: --language ")
        assert reason in line


def test_standard_input_is_a_picture(bare, pictures):
    file = pictures / "00.png"
    from_file = predict(bare, file, "--json").stdout.decode().replace(str(file), "-")
    assert predict(bare, "-", "--json", input=file.read_bytes()).stdout.decode() == from_file


def test_missing_or_other_model_is_one_line(bare, pictures):
    description = json.loads((bare / "models/model.json").read_text())
    description["network"]["width"] += 1
    (bare / "models/model.json").write_text(json.dumps(description))
    done = predict(bare, pictures)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert "model.safetensors does not fit" in line
    done = predict(bare, pictures, "--models", "elsewhere")
    assert done.stderr.decode().splitlines() == [
        "error: predict: elsewhere/model.json: not found; run `dvc repro`"
    ]


def test_blocks_have_two_pixels_to_a_letter():
    text = as_blocks(np.full((3, 32, 32), 7, np.uint8))
    assert text.count("▀") == 16 * 32
    assert "38;2;7;7;7;48;2;7;7;7m" in text
