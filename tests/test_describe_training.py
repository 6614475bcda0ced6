"""What the report says of the training: facts and params, from models/model.json."""

import json
import re
import subprocess

import pandas as pd
import pytest
from ruamel.yaml import YAML

from cifar100.running.errors import PipelineError
from stages.render.training import DEFAULTS, describe_training, grouped_params, numbers_of
from tests.conftest import ROOT
from tests.test_figures import HISTORY

DESCRIPTION = {
    "network": {"depth": 18, "width": 32, "stem": "cifar"},
    "training": {"params": {"seed": 0, "lr": 0.1}, "images": 48000, "validation_images": 2000},
}
SUMMARY = pd.DataFrame({"parameters": [2_820_000], "multiply_adds": [140_000_000]})


def test_training_is_described_in_words(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(DESCRIPTION))
    training = describe_training(path, SUMMARY, HISTORY)
    assert training.facts["Network"] == "ResNet-18, width 32, stem cifar"
    assert training.facts["Training images"] == "48,000, and 2,000 for validation"
    assert [param.name for param in training.params["Recipe"]] == ["seed", "lr"]
    assert training.numbers["lr"] == 0.1
    assert training.numbers["epochs"] == numbers_of({})["epochs"]  # of an older description
    path.unlink()
    with pytest.raises(PipelineError, match=r"model\.json: not found"):
        describe_training(path, SUMMARY, HISTORY)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"network": []}',
        json.dumps(DESCRIPTION | {"network": None}),
        json.dumps(DESCRIPTION | {"training": {"params": ["seed"]}}),
        json.dumps(DESCRIPTION | {"training": {"params": {}}}),
        json.dumps(DESCRIPTION | {"training": {"params": {"seed": 0}, "images": "many"}}),
        json.dumps(DESCRIPTION | {"training": DESCRIPTION["training"] | {"params": {"lr": "a"}}}),
        json.dumps(
            DESCRIPTION | {"training": DESCRIPTION["training"] | {"params": {"depth": 1e999}}}
        ),
    ],
)
def test_damaged_description_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(PipelineError, match=r"^\S+model\.json: not the description .+\)$"):
        describe_training(path, SUMMARY, HISTORY)


def test_params_are_grouped_and_those_that_differ_from_the_default_are_marked():
    defaults = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    values = {name: value for section in defaults.values() for name, value in section.items()}
    grouped = grouped_params(values | {"lr": 0.05, "lr_steps": [0.5], "new": True})
    assert list(grouped) == [*defaults, "Other"]
    rows = {param.name: param for params in grouped.values() for param in params}
    assert (rows["lr"].value, rows["lr"].default) == ("0.05", str(values["lr"]))
    assert rows["lr_steps"].value == "[0.5]"
    assert rows["new"].value == "true"
    changed = {name for name, param in rows.items() if param.default}
    assert changed == {"lr", "lr_steps"}


def test_default_params_are_those_of_the_committed_params_file():
    """A default that changes in params.yaml changes in stages/render/default_params.json too."""
    show = ["git", "show", "HEAD:params.yaml"]
    committed = subprocess.run(show, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    sections = re.findall(r"(?ms)^# train: the (\w+)\n(.*?)(?=^# |\Z)", committed)
    expected = {title.capitalize(): YAML(typ="safe").load(text) for title, text in sections}
    assert json.loads(DEFAULTS.read_text(encoding="utf-8")) == expected
