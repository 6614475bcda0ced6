"""dvc.yaml names the rooms that each stage uses, and exactly the params that it uses."""

import ast

import pytest
import yaml
from pydantic import BaseModel

from tests.conftest import ROOT
from tests.imports import files_used, source_files, tree
from tools.check_params import SCHEMAS

TEXT = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
STAGES = yaml.safe_load(TEXT)["stages"]


def rooms(stage: str) -> list[str]:
    """The deps of a stage that are folders of code."""
    return [dep for dep in STAGES[stage]["deps"] if source_files(dep)]


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


def test_stages_are_those_of_the_pipeline():
    assert list(STAGES) == ["download", "preprocess", "train", "evaluate", "render", "export"]
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python stages/{name}"


def test_pipeline_fits_on_a_screen():
    assert len(TEXT.splitlines()) <= 115


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_runs_lies_in_its_rooms(stage):
    outside = [
        file
        for file in files_used(stage)
        if not any(file.startswith(f"{room}/") for room in rooms(stage))
    ]
    assert not outside


@pytest.mark.parametrize("stage", STAGES)
def test_each_room_of_a_stage_is_used(stage):
    used = {file for file in files_used(stage) if not file.endswith("/__init__.py")}
    for room in rooms(stage):
        assert any(file.startswith(f"{room}/") for file in used), room


@pytest.mark.parametrize("stage", STAGES)
def test_each_file_of_a_stage_is_run_by_it(stage):
    """What only a tool needs would make the stage run again for nothing."""
    assert not {*source_files(f"stages/{stage}")} - files_used(stage)


def test_training_runs_again_for_its_four_rooms_alone():
    needed = ["stages/train", "cifar100/dataset", "cifar100/network", "cifar100/running"]
    assert sorted(rooms("train")) == sorted(needed)


@pytest.mark.parametrize("stage", STAGES)
def test_data_in_deps_are_files_that_another_stage_writes(stage):
    written = set()
    for other in STAGES.values():
        for out in [*other.get("outs", []), *other.get("metrics", []), *other.get("plots", [])]:
            written.add(next(iter(out)) if isinstance(out, dict) else out)
    assert {*STAGES[stage]["deps"]} - {*rooms(stage)} <= written


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_those_of_the_schema_and_each_is_used(stage):
    fields = list(SCHEMAS[stage].model_fields) if stage in SCHEMAS else []
    assert sorted(STAGES[stage].get("params", [])) == sorted(fields)
    assert set(fields) == params_used(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_main_of_a_stage_is_short(stage):
    assert len((ROOT / f"stages/{stage}/main.py").read_text(encoding="utf-8").splitlines()) <= 100
