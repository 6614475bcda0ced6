"""What source files import, by their syntax trees: the ground of the tests of the rooms."""

import ast
from functools import cache
from pathlib import Path

from tests.conftest import ROOT

PACKAGES = ("cifar100", "stages", "tools", "tests", "benchmarks")


def source_files(folder: str) -> list[str]:
    """The Python files below a folder."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py"))


# Imported with each package, and proven to do nothing then: see test_architecture.py.
ROOTS = {"cifar100/__init__.py", "stages/__init__.py"}


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imported_files(path: str) -> set[str]:
    """Files of this repository that the file imports, anywhere in it."""
    return {file for node in ast.walk(tree(path)) for file in files_of(node, path)}


def files_of(node: ast.AST, path: str) -> set[str]:
    """Files of this repository that an import statement in `path` imports; none of another node."""
    names: set[str] = set()
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path} has a relative import"
        names = {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {name.replace(".", "/") + ".py" for name in names}
    packages = {name.replace(".", "/") + "/__init__.py" for name in names}
    return {file for file in files | packages if (ROOT / file).is_file()}


def strings(path: str) -> set[str]:
    """The strings in a file that could be names of files beside it."""
    if not path.endswith(".py"):
        return set()
    values = [node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)]
    return {v for v in values if isinstance(v, str) and v and not {*"/\n"} & {*v} and v != "."}


def named_files(path: str) -> set[str]:
    """Files beside `path` that it names, and modules of stages that it names as `stages.…`."""
    found = {Path(path).with_name(name) for name in strings(path)}
    found |= {Path(f"{v.replace('.', '/')}.py") for v in strings(path) if v.startswith("stages.")}
    return {name.as_posix() for name in found if (ROOT / name).is_file()}


def files_used(stage: str) -> set[str]:
    """Source files that run when the stage runs, and the templates beside them; without ROOTS."""
    todo, seen = {f"stages/{stage}/__main__.py"}, set()
    while todo:
        path = todo.pop()
        seen.add(path)
        found = named_files(path)
        if path.endswith(".py"):
            found |= imported_files(path)
            parents = [Path(path).parent, *Path(path).parent.parents]
            found |= {(parent / "__init__.py").as_posix() for parent in parents if parent != Path()}
        todo |= found - seen - ROOTS
    return seen
