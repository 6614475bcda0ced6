"""Where `--why` and `--saw` of `cifar100.predict` write, and that they write over nothing."""

from pathlib import Path

import pytest

from cifar100.png_folder import check_folder, new_paths
from cifar100.running.errors import PipelineError


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/why", "long" * 100])
def test_folder_for_maps_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    with pytest.raises(PipelineError, match=rf"^--why {folder}: cannot be written to \(.+\); name"):
        check_folder("--why", Path(folder))
    assert Path("file").read_text() == "kept"


def test_pictures_get_names_of_their_own(tmp_path):
    names = [
        "-",
        "/home/a/cat.png",
        "../cat.JPG",
        "Cat.jpg",
        "cat.jpg",
        "猫.png",
        "x" * 300,
        "..",
        "a?:b",
    ]
    paths = new_paths("--why", tmp_path, names)
    found = [paths[name].name for name in names]
    assert found[:7] == [
        "picture.png", "home_a_cat.png", "cat.JPG.png", "Cat.jpg-2.png", "cat.jpg-3.png",
        "猫.png", "x" * 200 + ".png",
    ]  # fmt: skip
    assert found[7:] == ["picture-2.png", "a_b.png"]
    again = new_paths("--why", tmp_path, ["x-2", "x", "./x"])
    assert [path.name for path in again.values()] == ["x-2.png", "x.png", "x-3.png"]
    many = new_paths("--why", tmp_path, ["鱼" * 99, "\udcff\n.png"])
    assert [len(path.name.encode()) <= 204 for path in many.values()] == [True, True]


def test_picture_that_is_there_is_not_overwritten_nor_is_a_dangling_link(tmp_path):
    (tmp_path / "cat.png").symlink_to(tmp_path / "absent")
    with pytest.raises(PipelineError, match=r"cat\.png would be overwritten"):
        new_paths("--why", tmp_path, ["dog.png", "cat.png"])
