"""`python -m tools.recommit` with real Git and DVC, on a pipeline of two stages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Workspace, made_once
from tools.recommit import first_difference

CODE = '''"""Doubles a number."""

FACTOR = 2


def double(number: int) -> int:
    """Twice as much."""
    # by multiplying
    return FACTOR * number
'''
MAIN = """import sys
from pathlib import Path

from room.code import double

source, template, target = map(Path, sys.argv[1:])
number = double(int(source.read_text()))
target.write_text(template.read_text().replace("NUMBER", str(number)))
"""
PIPELINE = """stages:
  first:
    cmd: python main.py in.txt room/first.txt out.txt
    deps: [in.txt, room, main.py]
    params: [seed]
    outs: [out.txt]
  second:
    cmd: python main.py out.txt words/second.txt report.txt
    deps: [out.txt, room/code.py, words, main.py]
    outs:
      - report.txt: {cache: false}
"""
FILES = {
    "room/__init__.py": "",
    "room/code.py": CODE,
    "room/first.txt": "NUMBER",
    "words/second.txt": "The number is NUMBER.",
    "main.py": MAIN,
    "in.txt": "21",
    "params.yaml": "seed: 0\n",
    "dvc.yaml": PIPELINE,
    ".dvcignore": "__pycache__/\n",
    ".gitignore": "__pycache__/\n/out.txt\n",
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = made_once(tmp_path_factory, "recommit", run_small_pipeline)
    return Workspace(folder / "repository")


def run_small_pipeline(folder: Path) -> None:
    workspace = Workspace(folder / "repository")
    for name, text in FILES.items():
        (workspace.path / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.path / name).write_text(text, encoding="utf-8")
    workspace.run("git", "init", "--quiet")
    workspace.run("git", "config", "user.name", "Test")
    workspace.run("git", "config", "user.email", "test@example.org")
    workspace.run("dvc", "init", "--quiet")
    workspace.run("dvc", "repro", "--quiet")
    workspace.commit("Run the pipeline")
    assert workspace.read("report.txt") == b"The number is 84."


@pytest.fixture
def repository(recorded: Workspace, tmp_path: Path) -> Workspace:
    return recorded.copy(tmp_path / "repository")


def recommit(repository: Workspace, ok: bool = True) -> str:
    path = os.pathsep.join([str(ROOT), str(repository.path)])
    return repository.run(sys.executable, "-m", "tools.recommit", ok=ok, PYTHONPATH=path)


def edit(repository: Workspace, name: str, old: str, new: str) -> None:
    text = (repository.path / name).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (repository.path / name).write_text(text.replace(old, new), encoding="utf-8")


def refused(repository: Workspace, line: str) -> None:
    """Nothing is recorded, and one line says why."""
    lock = repository.read("dvc.lock")
    output = recommit(repository, ok=False)
    assert line in output
    assert len(output.splitlines()) == 1
    assert repository.read("dvc.lock") == lock


def test_change_of_prose_is_recorded_and_runs_nothing(repository):
    edit(repository, "room/code.py", '"""Twice as much."""', '"""The number and the number."""')
    edit(repository, "room/code.py", "# by multiplying", "# by a product")
    edit(repository, "room/code.py", "FACTOR * number", "(FACTOR  *  number)")
    assert "modified" in repository.run("dvc", "status")
    output = recommit(repository)
    assert "first: room/code.py: the same program" in output
    assert "second: room/code.py: the same program" in output
    assert "up to date" in repository.run("dvc", "status")
    assert "Running stage" not in repository.run("dvc", "repro")
    repository.commit("Correct the prose")
    edit(repository, "room/code.py", "# by a product", "# as a product")  # of the new commit
    assert "the same program" in recommit(repository)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '"""A room."""'),
        ("class A:\n    pass", 'class A:\n    """A class."""'),
        ("x = [1,\n     2]", "x = [1, 2]  # two"),
        ("x = 2", "x = 3"),
        ("x = 2", "x = 2.0"),
        ("x = 'a'", "x = b'a'"),
        ("def f(x): ...", "def f(x=1): ..."),
        ("def f():\n    'a'\n    'b'", "def f():\n    'a'\n    'c'"),
        ("print(__doc__)", '"""Words."""\nprint(__doc__)'),
        ("print(f.__doc__)", '"""Words."""\nprint(f.__doc__)'),
        ("x = 1", "x = (1"),
        ("x = 1", "x = 1\0"),
    ],
)
def test_programs_are_the_same_if_only_words_and_layout_differ(before, after):
    same = {'"""A room."""', 'class A:\n    """A class."""', "x = [1, 2]  # two"}
    assert (first_difference(before.encode(), after.encode()) == "") == (after in same)


def test_without_changes_nothing_is_recorded(repository):
    lock = repository.read("dvc.lock")
    assert recommit(repository) == "recommit: nothing changed\n"
    assert repository.read("dvc.lock") == lock


@pytest.mark.parametrize(
    ("name", "old", "new", "line"),
    [
        ("room/code.py", "FACTOR = 2", "FACTOR = 3", "was `FACTOR = 2`, is `FACTOR = 3`"),
        ("room/first.txt", "NUMBER", "NUMBER\n", "room/first.txt: changed, and is not Python"),
        ("params.yaml", "0", "1", "first: changed deps: params.yaml: {'seed': 'modified'}"),
        ("out.txt", "42", "43", "first: changed outs: out.txt: modified"),
        ("dvc.yaml", "python main.py in.txt", "python ./main.py in.txt", "changed command"),
    ],
)
def test_any_other_change_is_refused(repository, name, old, new, line):
    edit(repository, "room/code.py", "# by multiplying", "# by a product")
    edit(repository, name, old, new)
    refused(repository, line)


def test_file_that_was_added_deleted_or_renamed_is_refused(repository):
    (repository.path / "room/more.py").write_text("", encoding="utf-8")
    refused(repository, "room/more.py: added")
    (repository.path / "room/more.py").unlink()
    (repository.path / "room/first.txt").unlink()
    refused(repository, "room/first.txt: deleted")


def test_lock_that_no_commit_has_or_of_another_commit_is_refused(repository):
    edit(repository, "room/code.py", "FACTOR = 2", "FACTOR = 3")
    repository.commit("Change the factor without running anything")
    edit(repository, "dvc.lock", "schema: '2.0'", "schema: '2.0' # touched")
    refused(repository, "dvc.lock has changes that are in no commit")
    repository.commit("Touch the lock: now it is not made from the last commit that changed it")
    edit(repository, "room/code.py", "# by multiplying", "# by a product")
    refused(repository, "dvc.lock was made from another content than in")


def test_clone_without_data_can_record_a_change_of_prose(repository, tmp_path):
    clone = Workspace(tmp_path / "clone")
    repository.run("git", "clone", "--quiet", str(repository.path), str(clone.path))
    edit(clone, "room/code.py", "# by multiplying", "# by a product")
    before = clone.read("dvc.lock").count(b"md5: ")
    assert "the same program" in recommit(clone)
    assert clone.read("dvc.lock").count(b"md5: ") == before
    (repository.path / "room/code.py").write_bytes(clone.read("room/code.py"))
    (repository.path / "dvc.lock").write_bytes(clone.read("dvc.lock"))
    assert "up to date" in repository.run("dvc", "status")


def test_outside_of_a_repository_one_line_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tools.recommit"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": Workspace(ROOT).environment()["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: recommit: `dvc status` failed: you are not inside of a ")
