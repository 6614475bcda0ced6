"""Files that were damaged or made to harm: each reader reads them, or says in one line why not."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from cifar100.archive.reader import read_archive
from cifar100.dataset.splits import load_classes, load_split, save_classes, save_split
from cifar100.network.resnet import ResNetConfig, build_resnet
from cifar100.network.storage import save_description, save_weights
from cifar100.pictures import read_image
from cifar100.results.class_maps import load_class_maps, mapped_errors, save_class_maps
from cifar100.results.predictions import Predictions, load_predictions, save_predictions
from cifar100.results.tables import INTERVALS, read_table
from cifar100.running.errors import PipelineError
from cifar100.running.params import load
from cifar100.trained.loading import load_model
from stages.export.float16_weights import write_float16
from stages.render.training import first_filters
from stages.train.params import TrainParameters
from tests.archives import members, write_archive
from tests.conftest import ROOT

Content = dict[str, bytes]  # of some files, by their names

FEW, MANY = 60, 10_000  # inputs for each reader, in `make test` and in `make test-all`

EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0, 1, 4, 16, 10**9]), st.binary(max_size=12)),
    min_size=1,
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """`content` with bytes replaced, left out, put in, or cut off."""
    data = bytearray(content)
    for place, removed, inserted in edits:
        start = round(place * len(data))
        data[start : start + removed] = inserted
    return bytes(data)


def with_value(content: Any, place: float, value: Any) -> Any:
    """JSON `content` with one of its values, at any depth, replaced by another."""
    paths: list[list[Any]] = [[]]
    for path in paths:
        inner = content
        for key in path:
            inner = inner[key]
        keys = inner if isinstance(inner, dict) else range(len(inner) if type(inner) is list else 0)
        paths += [[*path, key] for key in keys]
    *path, last = paths[max(1, round(place * (len(paths) - 1)))]
    changed = inner = json.loads(json.dumps(content))
    for key in path:
        inner = inner[key]
    inner[last] = value
    return changed


def damaged(content: Content) -> st.SearchStrategy[Content]:
    """The files with one of them damaged; of an .npz a member, so that its checksum is right."""

    def change(name: str, edits: Any, place: float, value: Any, whole: bool) -> Content:
        old = content[name]
        if name.endswith(".json") and not whole:
            new = json.dumps(with_value(json.loads(old), place, value)).encode()
        elif name.endswith(".npz") and not whole:
            new = with_member(old, place, lambda member: edited(member, edits))
        else:
            new = edited(old, edits)
        return content | {name: new}

    return st.builds(
        change, st.sampled_from(sorted(content)), EDITS, st.floats(0, 1), JSON, st.booleans()
    )


def with_member(content: bytes, place: float, change: Callable[[bytes], bytes]) -> bytes:
    """A zip file with one of its members changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        names = old.namelist()
        for name in names:
            chosen = name == names[round(place * (len(names) - 1))]
            new.writestr(name, change(old.read(name)) if chosen else old.read(name))
    return target.getvalue()


def picture(kind: str) -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    image = Image.fromarray(pixels)
    image = image.convert("P") if kind == "GIF" else image
    image.save(target, kind)
    return target.getvalue()


def read_archive_of(folder: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in ("meta", "train", "test")}
    read_archive(write_archive(folder / "archive.tar.gz", files))


def packed(files: Content) -> Content:
    """An archive before it is compressed, in two parts, and after that; with headers of all kinds.

    The first part is the headers up to the first member that is read: few bytes, damaged often.
    """
    headers = b""
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        headers += tarfile.TarInfo("x" * 300).tobuf(form)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    body = target.getvalue()
    return {"1.tar": headers, "2.tar": body, "whole.tar.gz": gzip.compress(headers + body, 1)}


def read_packed(folder: Path) -> None:
    tar = (folder / "1.tar").read_bytes() + (folder / "2.tar").read_bytes()
    (folder / "archive.tar.gz").write_bytes(gzip.compress(tar, 1))
    read_archive(folder / "archive.tar.gz")
    read_archive(folder / "whole.tar.gz")


def read_pictures(folder: Path) -> None:
    for file in folder.iterdir():
        read_image(str(file))


@pytest.fixture
def cases(tmp_path, samples, classes) -> dict[str, tuple[Content, Callable[[Path], Any]]]:
    """By the name of a reader: files that it reads, and how it reads them from a folder."""
    few = samples.take(np.unique(samples.fine, return_index=True)[1])
    folder = tmp_path / "honest"
    folder.mkdir()
    network = build_resnet(ResNetConfig(20, 1), seed=0)
    save_split(folder / "split.npz", few.take(np.arange(4)))
    save_classes(folder / "classes.json", classes)
    logits = np.zeros((4, 100), np.float32)
    predictions = Predictions(logits, few.fine[:4], 1.0)
    save_predictions(folder / "predictions.npz", predictions)
    maps = np.zeros((len(mapped_errors(predictions)), 2, 4, 4), np.float32)
    save_class_maps(folder / "class_maps.npz", maps, predictions)
    save_weights(folder / "model.safetensors", network)
    write_float16(folder / "half.safetensors", network)
    save_description(folder / "model.json", network, 1.0, vars(classes), {})
    intervals = "metric,value,low,high\ntop1,0.7117,0.7028,0.7205\n"
    (folder / "intervals.csv").write_text(intervals, encoding="utf-8")
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())

    def files(*names: str) -> Content:
        return {name: (folder / name).read_bytes() for name in names}

    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")
    return {
        "archive": (members(few, few, classes), read_archive_of),
        "archive bytes": (packed(members(few, few, classes)), read_packed),
        "split": (files("split.npz"), lambda f: load_split(f / "split.npz")),
        "classes": (files("classes.json"), lambda f: load_classes(f / "classes.json")),
        "predictions": (
            files("predictions.npz"),
            lambda f: load_predictions(f / "predictions.npz"),
        ),
        "class maps": (
            files("class_maps.npz"),
            lambda f: load_class_maps(f / "class_maps.npz", predictions),
        ),
        "model": (
            files("model.safetensors", "model.json"),
            lambda f: load_model(f / "model.safetensors", f / "model.json"),
        ),
        "float16 model": (
            files("half.safetensors", "model.json"),
            lambda f: load_model(f / "half.safetensors", f / "model.json"),
        ),
        "filters": (
            files("model.safetensors"),
            lambda f: first_filters(f / "model.safetensors"),
        ),
        "table": (files("intervals.csv"), lambda f: read_table(INTERVALS, f)),
        "params": (
            files("params.yaml"),
            lambda f: load(TrainParameters, f / "params.yaml", ROOT / "dvc.yaml"),
        ),
        "pictures": ({kind.lower(): picture(kind) for kind in kinds}, read_pictures),
    }


READERS = ["archive", "archive bytes", "class maps", "classes", "filters", "float16 model"]
READERS += ["model", "params", "pictures", "predictions", "split", "table"]


@pytest.mark.medium
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(reader, count, cases, tmp_path):
    content, read = cases[reader]
    folder = tmp_path / "damaged"
    folder.mkdir()

    outcomes: list[bool] = []
    refusals: list[str] = []

    def attempt(files: Content) -> bool:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        try:
            read(folder)
        except PipelineError as error:
            refusals.append(str(error))
            return False
        return True

    assert attempt(content), "the honest files must be read"

    @seed(0)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=HealthCheck)
    @given(damaged(content))
    def try_many(files: Content) -> None:
        outcomes.append(attempt(files))

    try_many()
    assert len(outcomes) >= count
    assert refusals
    assert not [text for text in refusals if "\n" in text or len(text) > 600]
