"""dvc.yaml names exactly the source files and the params that each stage uses."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from stages.parameters.check import SCHEMAS
from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported_files(path: str) -> set[str]:
    """Files of this repository that the file at `path` imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {name.replace(".", "/") + ".py" for name in names}
    packages = {name.replace(".", "/") + "/__init__.py" for name in names}
    return {file for file in files | packages if (ROOT / file).is_file()}


def files_used(stage: str) -> set[str]:
    """Source files that run when the stage runs, templates beside them included."""
    todo, seen = [f"stages/{stage}.py"], set()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += imported_files(path)
    strings = {
        (Path(path).parent / node.value).as_posix()
        for path in seen
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value
    }
    return seen | {
        name for name in strings if name.startswith("stages/") and (ROOT / name).is_file()
    }


def params_used(stage: str) -> set[str]:
    """The names in `params.NAME` and `….params.NAME` in the files of a stage."""
    found = set()
    for path in files_used(stage):
        for node in ast.walk(tree(path)) if path.endswith(".py") else ():
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name == "params":
                    found.add(node.attr)
    return found - set(dir(BaseModel))  # model_dump, model_copy


def test_stages_are_those_of_the_pipeline_and_each_is_one_file():
    assert list(STAGES) == ["download", "preprocess", "train", "evaluate", "render", "export"]
    runnable = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert runnable == {*STAGES, "compare", "predict"}
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m stages.{name}"


@pytest.mark.parametrize("stage", STAGES)
def test_source_files_in_deps_are_those_that_run(stage):
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")]
    assert sorted(declared) == sorted(files_used(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_those_of_the_schema_and_each_is_used(stage):
    fields = list(SCHEMAS[stage].model_fields) if stage in SCHEMAS else []
    assert sorted(STAGES[stage].get("params", [])) == sorted(fields)
    assert set(fields) == params_used(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_files_are_short(stage):
    assert len((ROOT / f"stages/{stage}.py").read_text(encoding="utf-8").splitlines()) <= 100


def test_imports_run_one_way():
    for path in (ROOT / "stages").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        used = imported_files(name)
        if path.parent != ROOT / "stages":
            assert not any(Path(file).parent == Path("stages") for file in used), name
        text = path.read_text(encoding="utf-8")
        if "figures" in path.parts:
            assert "import paddle" not in text
        if "training" in path.parts:
            assert not any("archive" in file for file in used)
        if "network" in path.parts:
            assert "dvc." not in text.replace("dvc.yaml", "")
