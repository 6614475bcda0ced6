import datetime
import json
import math
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from cifar100.running.errors import PipelineError
from cifar100.running.params import load, read_mapping
from stages.train.params import TrainParameters
from tests.conftest import ROOT, Workspace
from tools.check_params import SCHEMAS

COMMITTED = read_mapping(ROOT / "params.yaml")
ALL_KEYS = [(stage, key) for stage, schema in SCHEMAS.items() for key in schema.model_fields]


@pytest.fixture
def params(tmp_path: Path) -> Workspace:
    """A params.yaml, beside a small dvc.yaml that declares the same keys as the real one."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    keys = ", ".join({key for _, key in ALL_KEYS})
    (tmp_path / "dvc.yaml").write_text(f"stages: {{all: {{params: [{keys}]}}}}", "utf-8")
    return Workspace(tmp_path)


def load_from(params: Workspace, schema=TrainParameters):
    return load(schema, params.path / "params.yaml", params.path / "dvc.yaml")


def refusal(params: Workspace, schema=TrainParameters) -> str:
    with pytest.raises(PipelineError) as caught:
        load_from(params, schema)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("stage", SCHEMAS)
def test_committed_params_are_valid(stage):
    load(SCHEMAS[stage], ROOT / "params.yaml", ROOT / "dvc.yaml")


def test_every_key_is_explained():
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    sections = "".join(line for line in lines if line.startswith("#"))
    assert all(f"# {stage}" in sections for stage in SCHEMAS)
    params = [line for line in lines if line and not line.startswith("#")]
    assert all("#" in line or line.startswith("archive_") for line in params)
    keys = [line.split(":")[0] for line in params]
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
        ("precision", "half"),
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
    YAML(typ="safe").dump(COMMITTED | {key: NEVER_ALLOWED[what]}, params.path / "params.yaml")
    message = refusal(params, SCHEMAS[stage])
    assert f"params.yaml: {key}: " in message
    assert len(message) < 400


@pytest.mark.medium
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
    YAML(typ="safe").dump(COMMITTED | {key: value}, params.path / "params.yaml")
    try:
        assert getattr(load_from(params, SCHEMAS[stage]), key) == value
    except PipelineError:
        refusal(params, SCHEMAS[stage])


KINDS = {  # of values that one kind of key takes, and another one not
    "text of a number": ("'5'", (bool, int, float, list)),
    "true": ("true", (int, float, list, str)),
    "a whole float": ("18.0", (bool, int, list, str)),
    "thousands of digits": (f"0x{'f' * 5000}", (bool, int, float, list, str)),
}


@pytest.mark.parametrize("what", KINDS)
def test_types_are_strict(params, what):
    text, refused_by = KINDS[what]
    committed = (params.path / "params.yaml").read_bytes()
    kinds = {key: type(value) for key, value in COMMITTED.items()}
    for stage, key in ALL_KEYS:
        if kinds[key] in refused_by:
            (params.path / "params.yaml").write_bytes(committed)
            params.set_params(**{key: text})
            assert f"params.yaml: {key}: " in refusal(params, SCHEMAS[stage])


def test_integer_is_fine_where_a_float_is_expected(params):
    params.set_params(lr="1", lr_steps="[0, 1]")
    loaded = load_from(params)
    assert (loaded.lr, loaded.lr_steps) == (1.0, [0.0, 1.0])


@pytest.mark.parametrize(
    ("stage", "key", "allowed"),
    [
        ("train", "lr", "a number above 0, up to 100"),
        ("train", "warmup", "a number from 0 to 1"),
        ("train", "epochs", "a whole number from 1 to 10000"),
        ("train", "depth", "one of 18, 34, 50, 101, 152, 20, 32, 44, 56, 110"),
        ("train", "flip", "true or false"),
        ("train", "threads", "auto or a whole number from 1 to 256"),
        ("train", "precision", "one of auto, float32, bfloat16, float16"),
        ("train", "lr_steps", "a rising list of numbers from 0 to 1"),
        ("train", "progressive_sizes", "a rising list of whole numbers from 8 to 31"),
        ("download", "archive_url", "an http:// or https:// address"),
        ("download", "archive_md5", "32 lower-case hexadecimal digits, in quotes"),
    ],
)
def test_what_is_allowed_is_said_in_words(params, stage, key, allowed):
    params.set_params(**{key: "{}"})
    message = refusal(params, SCHEMAS[stage])
    assert message.endswith(f"params.yaml: {key}: {{}} is not allowed; give {allowed}")


def test_loaded_params_do_not_change(params):
    loaded = load_from(params)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.lr = 1.0
    with pytest.raises(ValidationError, match="weigth_decay"):
        TrainParameters(**loaded.model_dump(), weigth_decay=0.1)


def test_unknown_data_set_is_refused(params):
    params.set_params(dataset="cifar10")
    message = refusal(params, SCHEMAS["download"])
    assert "dataset: 'cifar10' is not allowed; give one of cifar100, synthetic" in message


@pytest.mark.parametrize(("stage", "key"), ALL_KEYS)
def test_missing_key_is_named(params, stage, key):
    file = params.path / "params.yaml"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(f"{key}:")), "utf-8")
    assert f"key {key} is missing; give it " in refusal(params, SCHEMAS[stage])


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
        pytest.param("[" * 5000, marks=pytest.mark.medium),
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
    assert not any(isinstance(value, dict) for value in COMMITTED.values())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"lr: 1\n\tx: 2\n", "not valid YAML: line 2: "),
        (b"\tlr: 1\n", "not valid YAML: line 1: "),
        (b"lr: 0.1\nlr: 0.2\n", 'not valid YAML: line 2: found duplicate key "lr"'),
        (b"lr: 0.1\n# gr\xf6\xdfer\n", "not UTF-8 text from byte 12 on"),
        ("lr: 0.1\n".encode("utf-16"), "not UTF-8 text from byte 0 on"),
        (b"lr: 1\x00\n", "not valid YAML"),
        (b"lr: !!bool maybe\n", "not valid YAML"),
        (b"lr: !!int ''\n", "not valid YAML"),
        (b"lr: !!timestamp x\n", "not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML: line 2"),
        (b"? [a]\n: 1\n", "unknown key"),
        (b'"a\\nb": 1\n', r"unknown key 'a\nb'"),
        (b"null: 1\n", "unknown key None"),
    ],
)
def test_reason_is_one_line_whatever_the_file_holds(params, content, reason):
    (params.path / "params.yaml").write_bytes(content)
    assert reason in refusal(params)


def test_byte_order_mark_and_windows_line_ends_are_fine(params):
    file = params.path / "params.yaml"
    expected = load_from(params)
    text = file.read_text(encoding="utf-8")
    file.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert load_from(params) == expected


ODD_SCALARS = ["yes", "on", "0o17", "1_000", "1e3", "1e-5", "012", "0x1F", "~", "1:30", "1.", "+5"]
ODD_SCALARS += ["TRUE", "Null", ".5", "-.inf", "1e999", "'5'", "!!float 5", "2026-11-24", "[1, a]"]


@pytest.mark.filterwarnings("ignore::ruamel.yaml.error.MantissaNoDotYAML1_1Warning")
def test_values_are_those_that_dvc_reads(tmp_path):
    file = tmp_path / "params.yaml"
    lines = [f"key{i}: {scalar}\n" for i, scalar in enumerate(ODD_SCALARS)]
    for text in ("".join(lines), "%YAML 1.1\n---\n" + "".join(lines)):
        file.write_text(text, encoding="utf-8")
        assert repr(read_mapping(file)) == repr(load_yaml(file))


def test_dvc_shows_a_changed_value_as_the_stages_read_it(tmp_path):
    workspace, file = Workspace(tmp_path), tmp_path / "params.yaml"
    scalars = [scalar for scalar in ODD_SCALARS if scalar != "2026-11-24"]  # JSON has no dates
    workspace.run("git", "init", "--quiet")
    workspace.run("git", "config", "user.name", "Test")
    workspace.run("git", "config", "user.email", "test@example.org")
    workspace.run("dvc", "init", "--quiet")
    file.write_text("".join(f"key{i}: old\n" for i in range(len(scalars))), encoding="utf-8")
    workspace.commit("Start")
    file.write_text("".join(f"key{i}: {s}\n" for i, s in enumerate(scalars)), encoding="utf-8")
    shown = json.loads(workspace.run("dvc", "params", "diff", "--json"))["params.yaml"]
    ours = {key: value for key, value in read_mapping(file).items() if value != [1, "a"]}
    assert {key: shown[key]["new"] for key in ours} == ours


OWN_PARAMS = "own: {b: 1, names: [p, q]}\nmine: 2\nlr_of_p: 3\nlr_of_q: 4\n2026: 5\n"

# Stages of a user's own, by what they show. Each uses all of OWN_PARAMS.
OWN_STAGES = {
    "plain": "{cmd: x, params: [own, mine, lr_of_p, lr_of_q, '2026']}",
    "nested": "{cmd: x, params: [own.b, own.names.0, mine, lr_of_p, lr_of_q, '2026']}",
    "beside another file": "{cmd: x, params: [own, mine, lr_of_p, lr_of_q, '2026', o.yaml: [a.b]]}",
    "beside a whole file": "{cmd: x, params: [o.yaml: , own, mine, lr_of_p, lr_of_q, '2026']}",
    "named file": "{cmd: x, params: [params.yaml: [own.b, mine, lr_of_p, lr_of_q, '2026']]}",
    "file in another spelling": "{cmd: x, wdir: sub, params: [../params.yaml: "
    "[own.b, mine, lr_of_p, lr_of_q, '2026']]}",
    "two entries": "{cmd: x, params: [params.yaml: [own], params.yaml: [mine], lr_of_p, lr_of_q,"
    " '2026']}",
    "the whole file": "{cmd: x, params: [params.yaml: ]}",
    "the whole file and more": "{cmd: x, params: [own, params.yaml: []]}",
    "foreach": "{foreach: [p, q], do: {cmd: x, params: [own.b, 'lr_of_${item}', mine, '2026']}}",
    "foreach of params": "{foreach: '${own.names}', do: {cmd: 'x ${item}',"
    " params: ['lr_of_${item}', mine, '2026']}}",
    "foreach of mappings": "{foreach: {k: {v: p}}, do: {cmd: 'x ${key} ${mine}',"
    " params: ['lr_of_${item.v}', lr_of_q, own, '2026']}}",
    "matrix": "{matrix: {n: [p, q]}, cmd: x, params: ['lr_of_${item.n}', own, mine, '2026']}",
    "matrix of params": "{matrix: {n: '${own.names}'}, cmd: 'x ${mine}',"
    " params: ['lr_of_${item.n}', '2026']}",
    "templates alone": "{cmd: ['x ${own.names[0]} ${ mine }', '${lr_of_p}'],"
    " desc: '${lr_of_q}', params: ['2026']}",
    "templated file": "{vars: [{place: params.yaml}], cmd: x,"
    " params: ['${place}': [own, mine, lr_of_p, lr_of_q, '2026']]}",
    "wildcard": "{cmd: x, params: ['ow*.b', mine, 'lr_of_?', '2026']}",
}


def pipeline_with(folder: Path, stage: str) -> Path:
    """The pipeline with one more stage, which DVC itself takes."""
    committed = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    pipeline = folder / "dvc.yaml"
    pipeline.write_text(f"vars: [{{local: 1}}]\n{committed}\n  own_stage: {stage}\n", "utf-8")
    assert len(Repo.init(str(folder), no_scm=True).index.stages) > 6
    return pipeline


@pytest.mark.parametrize("form", OWN_STAGES)
def test_own_stages_and_their_params_are_left_alone(params, form):
    file = params.path / "params.yaml"
    file.write_text(file.read_text(encoding="utf-8") + OWN_PARAMS, encoding="utf-8")
    pipeline = pipeline_with(params.path, OWN_STAGES[form])
    for schema in SCHEMAS.values():
        load(schema, file, pipeline)


# Further forms, by what they show, each a whole dvc.yaml below the folder of the pipeline.
FORMS_BELOW = {
    "own/dvc.yaml": "stages: {a: {cmd: x, params: [../params.yaml: [own.b]]}}",
    "deep/er/dvc.yaml": "stages: {a: {cmd: x, wdir: .., params: [../params.yaml: [own]]}}",
    "templates/dvc.yaml": "vars: [../params.yaml]\nstages: {a: {cmd: 'x ${own.b}'}}",
}


@pytest.mark.parametrize("place", FORMS_BELOW)
def test_own_pipeline_in_a_folder_below_is_left_alone(params, place):
    """Also where DVC cannot read another one; a key that none of them declares is refused."""
    file, own = params.path / "params.yaml", params.path / place
    file.write_text(file.read_text(encoding="utf-8") + "own: {b: 1}\n", encoding="utf-8")
    for path, content in ((own, FORMS_BELOW[place]), (params.path / "broken/dvc.yaml", "a: [")):
        path.parent.mkdir(parents=True)
        path.write_text(content, encoding="utf-8")
    load_from(params)
    own.unlink()
    assert "unknown key own" in refusal(params)


def test_repeated_parts_of_a_pipeline_are_read_as_dvc_does(params):
    """Anchors and merge keys of YAML."""
    file = params.path / "params.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "own: 1\nmine: 2\n", encoding="utf-8")
    shutil.rmtree(params.path / ".dvc", ignore_errors=True)
    pipeline = pipeline_with(params.path, "&base {cmd: x, params: [own]}")
    text = pipeline.read_text(encoding="utf-8")
    pipeline.write_text(f"{text}  other: {{<<: *base, cmd: y, params: [mine]}}\n", encoding="utf-8")
    load(TrainParameters, file, pipeline)


def test_own_stage_without_params_is_left_alone(params):
    for stage in ("{cmd: x}", "{cmd: x, params: []}", "{foreach: [a], do: {cmd: x}}"):
        shutil.rmtree(params.path / ".dvc", ignore_errors=True)
        pipeline = pipeline_with(params.path, stage)
        load(TrainParameters, params.path / "params.yaml", pipeline)


@pytest.mark.parametrize(
    "stage",
    [
        "{cmd: x, params: [o.yaml: [weigth_decay]]}",
        "{cmd: x, params: [o.yaml: ]}",
        "{cmd: x, wdir: sub, params: [weigth_decay]}",
        "{cmd: x, params: [own.weigth_decay]}",
        "{foreach: [p, q], do: {cmd: x, params: ['lr_of_${item}']}}",
    ],
)
def test_keys_of_other_files_are_none_of_ours(params, stage):
    file = params.path / "params.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "weigth_decay: 0.1\n", encoding="utf-8")
    pipeline = pipeline_with(params.path, stage)
    with pytest.raises(PipelineError, match="unknown key weigth_decay; did you mean weight_decay"):
        load(TrainParameters, file, pipeline)


def test_unknown_key_far_from_all_others_is_told_where_to_declare_it(params):
    with (params.path / "params.yaml").open("a") as file:
        file.write("qqq: 1\n")
    message = refusal(params)
    assert "unknown key qqq; known keys: archive_md5, " in message
    assert "a stage of your own declares its keys in " in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "dvc.yaml: not found"),
        (b"stages: [", "dvc.yaml: not valid YAML: line 1: "),
        (b"stages: {a: {cmd: x}}\nstages: {}\n", "dvc.yaml: not valid YAML: line 2: "),
        (b"- a\n", "dvc.yaml: expected lines of the form"),
        (b"", "dvc.yaml: expected lines of the form"),
        (b"# gr\xf6\xdfer\n", "dvc.yaml: not UTF-8 text"),
        (b"stages:\n", "dvc.yaml: its stages are not of the form that DVC reads"),
        (b"stages: [a]\n", "dvc.yaml: its stages are not of the form that DVC reads"),
        (b"stages: {a: x}\n", "dvc.yaml: its stages are not of the form that DVC reads"),
        (b"stages: {a: {params: 3}}\n", "dvc.yaml: its stages are not of the form that DVC reads"),
        (b"stages: {a: {params: [[b]]}}\n", "dvc.yaml: its stages are not of the form that DVC"),
        (b"stages: {a: {params: [params.yaml: 3]}}\n", "dvc.yaml: its stages are not of the form"),
        (b"vars: []\n", "params.yaml: unknown key dataset"),
    ],
)
def test_pipeline_file_that_dvc_refuses_is_refused_in_one_line(params, content, reason):
    pipeline = params.path / "dvc.yaml"
    if content is None:
        pipeline.unlink()
    else:
        pipeline.write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        load(TrainParameters, params.path / "params.yaml", pipeline)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
