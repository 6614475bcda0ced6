"""Reads params.yaml into the model of one stage, or says in one line what is wrong."""

import contextlib
import difflib
import os
import re
import reprlib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML

from cifar100.running.errors import PipelineError, reason_of

Model = TypeVar("Model", bound="StageParameters")


class StageParameters(BaseModel):
    """Base of the models: frozen, strict types, finite numbers, no other keys.

    Strict: `true` is no integer and "5" no number; an integer is fine where a float is expected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def replace(self: Model, **values: Any) -> Model:
        """A copy with other values, which are checked like those of params.yaml."""
        return type(self)(**(self.model_dump() | values))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def load(
    model: type[Model], path: Path = Path("params.yaml"), pipeline: Path = Path("dvc.yaml")
) -> Model:
    """Read the keys of `model` from the params file `path`.

    Raises `PipelineError` for a missing key, a key that `pipeline` does not declare, a wrong type,
    a value out of range, and values that do not fit together.
    """
    content = read_mapping(path)
    _refuse_undeclared_keys(content, path, pipeline)
    try:
        return model(**{key: content[key] for key in model.model_fields if key in content})
    except ValidationError as error:
        raise PipelineError(f"{path}: {_fault(model, content, error)}") from None


def read_mapping(path: Path) -> dict[Any, Any]:
    """Parse a YAML file whose top level is a mapping, with the parser that DVC itself uses.

    Raises `PipelineError` for a file that is missing, is not UTF-8 or YAML, has another type at
    its top level, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run from the root of the repository") from None
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{path}: not UTF-8 text from byte {error.start} on; save it as UTF-8"
        ) from None
    try:
        content = YAML(typ="safe").load(text)
    except Exception as error:  # of many types: of the parser, of numbers, dates, deep nesting
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        reason = reason_of(Exception(problem) if problem else error)
        raise PipelineError(f"{path}: not valid YAML: {where}{reason}") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: expected lines of the form `key: value`")
    return content


def declared_keys(pipeline: Path) -> set[str]:
    """The top-level keys of params.yaml that `pipeline` uses, or a dvc.yaml in a folder below it.

    They are patterns of `fnmatch`. A dvc.yaml that cannot be read is DVC's to refuse, if it is not
    `pipeline` itself.
    """
    params_file = os.path.abspath(pipeline.parent / "params.yaml")
    declared = _declared_in(pipeline, params_file)
    for folder, below, files in os.walk(pipeline.parent):
        below[:] = [name for name in below if not name.startswith(".")]
        if pipeline.name in files and Path(folder) != pipeline.parent:
            with contextlib.suppress(PipelineError, OSError):
                declared |= _declared_in(Path(folder, pipeline.name), params_file)
    return declared


def _declared_in(pipeline: Path, params_file: str) -> set[str]:
    """The top-level keys of `params_file` that one dvc.yaml uses.

    These stand in the `params:` of a stage, in each form that DVC takes, or in a template `${…}`
    anywhere. Where a template makes up a part of a key the pattern has `*`; it is `*` alone for a
    stage that tracks the whole file.
    """
    declared: set[str] = set()
    try:
        for stage in read_mapping(pipeline).get("stages", {}).values():
            stage = stage.get("do", stage)  # with foreach
            for entry in stage.get("params") or []:
                files = entry if isinstance(entry, dict) else {"params.yaml": [entry]}
                for file, keys in files.items():
                    place = os.path.join(pipeline.parent, stage.get("wdir") or "", file)
                    if os.path.abspath(place) == params_file or "${" in place:
                        declared |= set(keys or ["*"])
        declared = {re.sub(r"\$\{.*?\}", "*", key).split(".")[0] for key in declared}
    except (AttributeError, TypeError):
        raise PipelineError(
            f"{pipeline}: its stages are not of the form that DVC reads; `dvc stage list` says why"
        ) from None
    return declared | set(re.findall(r"\$\{\s*([^\s.{}\[]+)", pipeline.read_text("utf-8")))


def _refuse_undeclared_keys(content: dict[Any, Any], path: Path, pipeline: Path) -> None:
    known = declared_keys(pipeline)
    for key in map(str, content):
        if not any(fnmatchcase(key, pattern) for pattern in known):
            shown = key if re.fullmatch(r"[\w.-]{1,60}", key) else _shown(key)
            near = difflib.get_close_matches(key, known, n=1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"known keys: {', '.join(sorted(known))}; "
                f"a stage of your own declares its keys in {pipeline}"
            )
            raise PipelineError(f"{path}: unknown key {shown}; {hint}")


def _fault(model: type[Model], content: dict[Any, Any], error: ValidationError) -> str:
    """The first fault, and what is allowed instead."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # keys that do not fit together
        return str(first["ctx"]["error"])
    key = first["loc"][0]
    allowed = _in_words(model.model_json_schema()["properties"][key])
    if key not in content:
        return f"key {key} is missing; give it {allowed}"
    return f"{key}: {_shown(content[key])} is not allowed; give {allowed}"


def _shown(value: Any) -> str:
    try:
        return _short.repr(value)
    except ValueError:  # Python writes no integers of more than 4,300 digits
        return "a number of thousands of digits"


def _in_words(schema: dict[str, Any]) -> str:
    """What a key may hold, from its JSON schema."""
    match schema:
        case {"description": words}:
            return words
        case {"anyOf": options}:
            return " or ".join(map(_in_words, options))
        case {"const": only}:
            return str(only)
        case {"enum": options}:
            return "one of " + ", ".join(map(str, options))
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "array", "items": items}:
            one = _in_words(items).removeprefix("a ")
            return f"a rising list of {one.replace('number', 'numbers')}"
    name = "a whole number" if schema["type"] == "integer" else "a number"
    if "exclusiveMinimum" in schema:
        return f"{name} above {schema['exclusiveMinimum']}, up to {schema['maximum']}"
    return f"{name} from {schema['minimum']} to {schema['maximum']}"
