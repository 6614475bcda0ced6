import dataclasses
import datetime
import math
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.parameters.check import VIEWS
from stages.parameters.loading import load, read_mapping
from stages.parameters.train import TrainParameters
from stages.running.errors import PipelineError
from tests.conftest import ROOT, Workspace

ALL_KEYS = [(stage, f.name) for stage, view in VIEWS.items() for f in dataclasses.fields(view)]


@pytest.fixture
def params(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return Workspace(tmp_path)


def load_from(params: Workspace, view=TrainParameters):
    return load(view, params.path / "params.yaml", ROOT / "dvc.yaml")


def refusal(params: Workspace, view=TrainParameters) -> str:
    with pytest.raises(PipelineError) as caught:
        load_from(params, view)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("stage", VIEWS)
def test_committed_params_are_valid(params, stage):
    load_from(params, VIEWS[stage])


def test_every_key_is_explained():
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    sections = "".join(line for line in lines if line.startswith("#"))
    assert all(f"# {stage}" in sections for stage in VIEWS)
    keys = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(keys) == sorted({key for _, key in ALL_KEYS})


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "+1e-05", "1.e-5", ".1e-4", "1.0e-5", "0.00001"])
def test_numbers_in_any_exponent_form_are_numbers(params, text):
    params.set_params(lr=text)
    assert load_from(params).lr == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", "abc"),
        ("lr", "-1"),
        ("lr", "0"),
        ("lr", ".nan"),
        ("lr", ".inf"),
        ("lr", "true"),
        ("lr", ""),
        ("lr", "[0.1]"),
        ("epochs", "0"),
        ("epochs", "1.5"),
        ("epochs", "true"),
        ("depth", "19"),
        ("depth", "'18'"),
        ("stem", "large"),
        ("flip", "1"),
        ("threads", "many"),
        ("threads", "0"),
        ("threads", "1.5"),
        ("precision", "int8"),
        ("progressive_sizes", "[24, 16]"),
        ("progressive_sizes", "[40]"),
        ("progressive_sizes", "24"),
        ("lr_steps", "[0.5, x]"),
        ("device", "tpu"),
    ],
)
def test_bad_value_names_key_value_and_what_is_allowed(params, key, value):
    params.set_params(**{key: value})
    message = refusal(params)
    assert f"params.yaml: {key}: " in message
    assert "is not allowed; give " in message


NEVER_ALLOWED = {
    "null": None,
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "negative": -1,
    "of 400 digits": 10**400,
    "empty": "",
    "unicode": "größe 大 \u202e",
    "mapping": {"a": 1},
    "nested list": [[0.1]],
    "list of text": ["a"],
    "date": datetime.date(2026, 11, 24),
    "binary": b"\x00\xff",
}


@pytest.mark.parametrize("what", NEVER_ALLOWED)
@pytest.mark.parametrize(("stage", "key"), ALL_KEYS)
def test_value_that_no_key_takes_is_refused_by_each(params, stage, key, what):
    content = read_mapping(params.path / "params.yaml") | {key: NEVER_ALLOWED[what]}
    (params.path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    message = refusal(params, VIEWS[stage])
    assert f"params.yaml: {key}: " in message
    assert len(message) < 400


@settings(max_examples=100, deadline=None, suppress_health_check=HealthCheck, derandomize=True)
@given(
    st.sampled_from(ALL_KEYS),
    st.recursive(
        st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=5,
    ),
)
def test_any_value_is_taken_as_it_is_or_refused(params, stage_and_key, value):
    stage, key = stage_and_key
    content = read_mapping(ROOT / "params.yaml") | {key: value}
    (params.path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        assert getattr(load_from(params, VIEWS[stage]), key) == value
    except PipelineError:
        refusal(params, VIEWS[stage])


def test_unknown_data_set_is_refused(params):
    params.set_params(dataset="cifar10")
    message = refusal(params, VIEWS["download"])
    assert "dataset: 'cifar10' is not allowed; give one of cifar100, synthetic" in message


@pytest.mark.parametrize(("stage", "key"), ALL_KEYS)
def test_missing_key_is_named(params, stage, key):
    file = params.path / "params.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(f"{key}:")), "utf-8")
    assert f"key {key} is missing; give it " in refusal(params, VIEWS[stage])


def test_unknown_key_is_refused_with_a_suggestion(params):
    with (params.path / "params.yaml").open("a") as file:
        file.write("weigth_decay: 0.1\n")
    assert "unknown key weigth_decay; did you mean weight_decay?" in refusal(params)


@pytest.mark.parametrize(
    "text",
    [
        "lr: [",
        "- a\n- b\n",
        "",
        "\tlr: 1",
        "lr: 1\n  x: 2",
        "lr: 2026-99-99",
        "[" * 5000,
        "lr: !!python/object/apply:os.system [exit]",
        "lr: 0.1\nlr: 0.2",
        f"lr: {'9' * 5000}",
    ],
)
def test_file_that_is_no_mapping_is_refused(params, text):
    (params.path / "params.yaml").write_text(text)
    assert "params.yaml" in refusal(params)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mixup": "0.6", "cutmix": "0.6"}, "mixup + cutmix is 1.2"),
        ({"momentum": "0"}, "nesterov: true needs a momentum above 0"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(params, values, reason):
    params.set_params(**values)
    assert reason in refusal(params)


def test_params_file_is_flat():
    values = read_mapping(ROOT / "params.yaml").values()
    assert not any(isinstance(value, dict) for value in values)
