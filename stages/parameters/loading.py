"""Reads params.yaml into the typed, frozen view of one stage, or says in one line what is wrong."""

import dataclasses
import difflib
import itertools
import math
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stages.running.errors import PipelineError, reason_of

View = TypeVar("View")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with YAML 1.2 floats and without keys that are given twice.

    PyYAML alone reads `1e-5` as a string, and takes the last of several values for one key.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raise a `yaml.YAMLError` for the second of two equal keys."""
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.MarkedYAMLError(f"key {key.value} is given twice", key.start_mark)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a key may hold: a test, and the same in words."""

    holds: Callable[[Any], bool]
    allowed: str


def _field(holds: Callable[[Any], bool], allowed: str) -> Any:
    return dataclasses.field(metadata={"rule": Rule(holds, allowed)})


def _is_number(value: Any) -> bool:
    # compared, since math.isfinite cannot take integers that no float can hold
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and -math.inf < value < math.inf


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(low: float, high: float) -> Any:
    """A key that holds a finite number from `low` to `high`."""
    return _field(lambda v: _is_number(v) and low <= v <= high, f"a number from {low} to {high}")


def positive(high: float) -> Any:
    """A key that holds a finite number above 0, up to `high`."""
    return _field(lambda v: _is_number(v) and 0 < v <= high, f"a number above 0, up to {high}")


def whole(low: int, high: int) -> Any:
    """A key that holds an integer from `low` to `high`."""
    return _field(
        lambda v: _is_whole(v) and low <= v <= high, f"a whole number from {low} to {high}"
    )


def choice(*options: Any) -> Any:
    """A key that holds one of `options`, of the same type."""
    return _field(
        lambda v: any(type(v) is type(o) and v == o for o in options),
        "one of " + ", ".join(map(str, options)),
    )


def switch() -> Any:
    """A key that holds true or false."""
    return _field(lambda v: isinstance(v, bool), "true or false")


def text(pattern: str, allowed: str) -> Any:
    """A key that holds a string that matches `pattern` as a whole."""
    return _field(lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None, allowed)


def auto_or_whole(low: int, high: int) -> Any:
    """A key that holds `auto` or an integer from `low` to `high`."""
    return _field(
        lambda v: v == "auto" or (_is_whole(v) and low <= v <= high),
        f"auto or a whole number from {low} to {high}",
    )


def rising(low: float, high: float, *, integers: bool = False) -> Any:
    """A key that holds a list of numbers from `low` to `high`, none smaller than the one before."""
    is_item = _is_whole if integers else _is_number
    return _field(
        lambda v: (
            isinstance(v, list)
            and all(is_item(x) and low <= x <= high for x in v)
            and all(a <= b for a, b in itertools.pairwise(v))
        ),
        f"a rising list of {'whole numbers' if integers else 'numbers'} from {low} to {high}",
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """Parse a YAML file whose top level is a mapping with string keys."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except FileNotFoundError:
        raise PipelineError(f"{path}: not found; run from the root of the repository") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of dates, numbers
        raise PipelineError(f"{path}: not valid YAML: {reason_of(error)}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise PipelineError(f"{path}: expected lines of the form `key: value`")
    return content


def refuse_unknown_keys(content: dict[str, Any], path: Path, pipeline: Path) -> None:
    """Raise `PipelineError` if `content` has a key that no stage in the pipeline file declares."""
    stages = read_mapping(pipeline)["stages"].values()
    known = {key for stage in stages for key in stage.get("params", [])}
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise PipelineError(f"{path}: unknown key {key}; {hint}")


def load(
    view: type[View], path: Path = Path("params.yaml"), pipeline: Path = Path("dvc.yaml")
) -> View:
    """Read the keys of `view`, a dataclass whose fields were made by the functions above.

    Raises `PipelineError` for a missing or unknown key, a wrong type, or a value out of range.
    """
    content = read_mapping(path)
    refuse_unknown_keys(content, path, pipeline)
    values = {}
    for field in dataclasses.fields(view):  # type: ignore[arg-type]
        rule: Rule = field.metadata["rule"]
        if field.name not in content:
            raise PipelineError(f"{path}: key {field.name} is missing; give it {rule.allowed}")
        value = content[field.name]
        if not rule.holds(value):
            raise PipelineError(
                f"{path}: {field.name}: {_short.repr(value)} is not allowed; give {rule.allowed}"
            )
        values[field.name] = value
    return view(**values)
