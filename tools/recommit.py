"""Records in dvc.lock that a change of prose changes no result: `python -m tools.recommit`.

A stage is recorded without being run if, and only if, each of its source files is the same program
as in the commit that dvc.lock was made from: equal without comments, docstrings and layout. A file
that is not Python has to have the same bytes.
"""

import argparse
import ast
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from tools.repository import clone as clone_of
from tools.repository import differences, git, is_shallow

LOCK = "dvc.lock"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Record each stage whose source files changed in prose alone; exit with 1 for any other."""
    argparse.ArgumentParser(prog="python -m tools.recommit", description=__doc__).parse_args()
    stages = changed_files()
    if not stages:
        print("recommit: nothing changed")
        return
    base = commit_of_lock()
    with tempfile.TemporaryDirectory() as temporary:
        top, inside = git("rev-parse", "--show-toplevel"), git("rev-parse", "--show-prefix")
        clone_of(top, Path(temporary), "--shared", "--no-checkout")
        git("checkout", "--quiet", "--detach", base, folder=Path(temporary))
        clone = Path(temporary) / inside
        check_lock_is_of(clone, base, stages)
        for stage, deps in stages.items():
            for dep in deps:
                for file in compare_folders(clone, dep):
                    print(f"recommit: {stage}: {file}: the same program")
    record(list(stages))
    print(f"recommit: {LOCK} now has {', '.join(stages)} as if run; commit it")


def changed_files() -> dict[str, list[str]]:
    """The changed source files and folders of each stage; refuses if anything else changed."""
    stages: dict[str, list[str]] = {}
    for found in differences():
        if found.kind != "changed deps" or found.kept_by_dvc or found.state != "modified":
            refuse(str(found))
        stages.setdefault(found.stage, []).append(found.path)
    return stages


def record(names: list[str]) -> None:
    """Do what `dvc commit --force` does, also on a clone that lacks the files that DVC keeps."""
    from dvc.repo import Repo

    with Repo() as repo, repo.lock:
        for stage in repo.index.stages:
            if stage.name in names:
                complete = all(file.exists for file in [*stage.deps, *stage.outs])
                stage.save(allow_missing=True, run_cache=complete)
                stage.dump(update_pipeline=False)


def commit_of_lock() -> str:
    """The commit that dvc.lock was made from: the last one that changed it."""
    if git("status", "--porcelain", "--", LOCK):
        refuse(f"{LOCK} has changes that are in no commit; commit or restore it first")
    commit = git("log", "-1", "--format=%H", "--", LOCK)
    if not commit:
        refuse(f"{LOCK} is in no commit")
    return commit


def check_lock_is_of(clone: Path, base: str, stages: dict[str, list[str]]) -> None:
    """Refuse if dvc.lock does not have the hashes of the source files in the commit `base`."""
    for found in differences(clone):
        if found.kind == "changed deps" and found.path in stages.get(found.stage, []):
            refuse(f"{found.stage}: {found.path}: {LOCK} was made from {another_content(base)}")


def another_content(base: str) -> str:
    """Words for a lock that does not fit the commit that it seems to be made from."""
    words = f"another content than in {base[:7]}"
    if is_shallow():
        words += ", the first commit of this shallow clone; `git fetch --unshallow` gets the others"
    return words


def compare_folders(clone: Path, dep: str) -> list[str]:
    """The files of a folder, or the one file, that changed in prose; refuses any other change."""
    old, new = files_below(clone, dep), files_below(Path(), dep)
    for name in sorted(old ^ new):
        refuse(f"{name}: {'added' if name in new else 'deleted'}")
    changed = []
    for name in sorted(new):
        before, after = (clone / name).read_bytes(), Path(name).read_bytes()
        if before == after:
            continue
        if not name.endswith(".py"):
            refuse(f"{name}: changed, and is not Python")
        difference = first_difference(before, after)
        if difference:
            refuse(f"{name}: {difference}")
        changed.append(name)
    return changed


def files_below(root: Path, dep: str) -> set[str]:
    """The files that DVC sees in a folder, or the one file, relative to `root`."""
    found = [root / dep, *(root / dep).rglob("*")]
    return {
        path.relative_to(root).as_posix()
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    }


def first_difference(before: bytes, after: bytes) -> str:
    """Where two Python programs differ, in words; empty if they are the same program."""
    try:
        old, new = program(before), program(after)
    except (SyntaxError, ValueError) as error:
        return f"not valid Python ({error})"
    if ast.dump(old) == ast.dump(new):
        return ""
    lines = zip_longest(ast.unparse(old).splitlines(), ast.unparse(new).splitlines(), fillvalue="")
    was, now = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
    return f"not the same program: was `{was.strip()}`, is `{now.strip()}`"


def program(source: bytes) -> ast.Module:
    """The syntax tree without docstrings; with them if the program reads any by `__doc__`."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    if any("__doc__" in (getattr(n, "id", ""), getattr(n, "attr", "")) for n in nodes):
        return tree
    for node in nodes:
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            rest = node.body[1:]
            node.body = rest if rest or isinstance(node, ast.Module) else [ast.Pass()]
    return tree


def refuse(reason: str) -> NoReturn:
    """Raise `PipelineError`: nothing is recorded."""
    raise PipelineError(f"{reason}; nothing was recorded, so run `dvc repro`")


if __name__ == "__main__":
    run_command("recommit", main)
