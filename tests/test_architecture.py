"""Rooms and who may know whom: tools know stages, stages know cifar100, and nobody the reverse."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.imports import PACKAGES, files_of, imported_files, source_files, tree

STAGES = ["download", "preprocess", "train", "evaluate", "render", "export"]
KNOWS = {  # which packages a package may import
    "cifar100": {"cifar100"},
    "stages": {"stages", "cifar100"},
    "tools": {"tools", "stages", "cifar100"},
    "benchmarks": {"benchmarks", "tools", "stages", "cifar100"},
    "tests": set(PACKAGES),
}
ROOMS_KNOW = {  # which rooms of cifar100 a room may import
    "running": set(),
    "dataset": {"running"},
    "archive": {"dataset", "running"},
    "network": {"dataset", "running"},
    "trained": {"network", "dataset", "running"},
    "class_activation": {"trained", "network", "dataset", "running"},
    "results": {"dataset", "running"},
}


def test_there_is_one_folder_for_each_stage_and_nothing_else():
    found = {path.name for path in (ROOT / "stages").iterdir()} - {"__pycache__"}
    assert found == {*STAGES, "__init__.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_a_guard_that_needs_no_other_package(stage):
    """Otherwise a package that cannot be imported would end the stage before the guard is up."""
    seen, todo = set(), {f"stages/{stage}/__main__.py"}
    while todo:
        path = todo.pop()
        seen.add(path)
        parents = [Path(path).parent, *Path(path).parent.parents]
        todo |= {(parent / "__init__.py").as_posix() for parent in parents if parent != Path()}
        for node in tree(path).body:
            for name in module_names(node):
                assert name.split(".")[0] in {*standard_library(), *PACKAGES}, f"{path}: {name}"
            todo |= files_of(node, path)
        todo -= seen
    assert "cifar100/running/guard.py" in seen
    assert f"stages/{stage}/main.py" not in seen


def module_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def standard_library() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_know_only_those_below_them(package):
    for path in source_files(package):
        for file in imported_files(path):
            assert Path(file).parts[0] in KNOWS[package], f"{path} imports {file}"


def test_no_stage_knows_another_one():
    for stage in STAGES:
        for path in source_files(f"stages/{stage}"):
            for file in imported_files(path):
                if file.startswith("stages/"):
                    assert file.startswith(f"stages/{stage}/"), f"{path} imports {file}"


def test_rooms_of_cifar100_know_only_what_they_stand_on():
    rooms = {path.name for path in (ROOT / "cifar100").iterdir() if path.is_dir()}
    assert rooms - {"__pycache__"} == set(ROOMS_KNOW)
    for room, known in ROOMS_KNOW.items():
        for path in source_files(f"cifar100/{room}"):
            for file in imported_files(path):
                assert Path(file).parts[1] in {room, *known}, f"{path} imports {file}"


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_with_source_files_are_packages(package):
    """A folder without `__init__.py` gives way to an installed package of the same name."""
    folders = {Path(path).parent for path in source_files(package)}
    assert folders
    for folder in folders:
        assert (ROOT / folder / "__init__.py").is_file(), folder


@pytest.mark.parametrize("package", ["cifar100", "stages"])
def test_package_file_runs_nothing_of_the_project_when_it_is_imported(package):
    """So the two files that each stage imports, and that are no dep of it, change no result."""
    path = f"{package}/__init__.py"
    for node in tree(path).body:
        assert not files_of(node, path)
