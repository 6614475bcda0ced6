"""What the tools ask Git and DVC; what keeps these from answering is one line with what to do.

`python -m tools.repository` tells DVC whether there is a Git repository, as `make repro` does;
`python -m tools.repository FOLDER` clones this project into a new folder, as `make demo` does.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.guard import run_command
from cifar100.running.outputs import replacing
from cifar100.running.restore import cache_folder, recorded_outputs


class Difference(NamedTuple):
    """What `dvc status` says of a file of a stage; only the stage and the state of a command."""

    stage: str
    kind: str  # "changed deps" or "changed outs"
    path: str
    state: str  # such as "modified"
    kept_by_dvc: bool

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.stage, self.kind, self.path, self.state)))


LEFT_OUT = shutil.ignore_patterns(  # of a copy: environments, results of this machine, caches
    *(".venv*", ".demo", ".checkpoints", ".downloads", ".hypothesis", "*.egg-info", "build"),
    *("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", "config.local", "cache", "tmp"),
    *("models", "gallery", "index.html", "raw", "processed", "predictions"),
)


# What Git sets for its hooks, and what would lead a Git in another folder back to this repository.
OF_ONE_REPOSITORY = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE"),
)


def environment() -> dict[str, str]:
    """The variables of this process without those that say which repository Git is to use."""
    return {name: value for name, value in os.environ.items() if name not in OF_ONE_REPOSITORY}


def git(*arguments: str, folder: Path = Path()) -> str:
    """What Git prints, as text without the last line end; raises as `git_bytes` does."""
    printed = git_bytes(*arguments, folder=folder)
    return printed.decode(errors="surrogateescape").removesuffix("\n")


def git_bytes(*arguments: str, folder: Path = Path()) -> bytes:
    """The standard output of Git; `PipelineError` with the reason and a remedy if it fails."""
    english = environment() | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=english, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise PipelineError("Git is not installed; install it, as with `apt install git`") from None
    if done.returncode:
        raise PipelineError(_reason(done.stderr.decode(errors="replace"), folder))
    return done.stdout


def _reason(errors: str, folder: Path) -> str:
    if "dubious ownership" in errors or "unsafe repository" in errors:
        top = _root(folder)
        return (
            "Git does not trust this repository, as it belongs to another user; to trust it: "
            f"`git config --global --add safe.directory '{top}'`"
        )
    if "not a git repository" in errors:
        return (
            "this folder is in no Git repository, as after unpacking a ZIP; clone the repository, "
            "or make one: `git init && git add --all && git commit -m Start`"
        )
    lines = [line for line in errors.splitlines() if line.strip()] or ["it gave no reason"]
    return f"Git refused: {lines[-1].strip()}"


def is_in_git(folder: Path = Path()) -> bool:
    """Whether `folder` is in a Git repository, trusted or not."""
    return _root(folder) is not None


def is_shallow() -> bool:
    """Whether Git says that this clone lacks earlier commits."""
    return _answer("--is-shallow-repository") == "true"


def has_commit() -> bool:
    """Whether there is any commit to clone."""
    return bool(_answer("--verify", "HEAD^{commit}"))


def _answer(*question: str) -> str:
    """What `git rev-parse` says; nothing if it fails."""
    try:
        return git("rev-parse", *question)
    except PipelineError:
        return ""


def _root(folder: Path) -> Path | None:
    """The nearest folder with something named .git: a folder, or a file in a worktree."""
    places = [folder.resolve(), *folder.resolve().parents]
    return next((place for place in places if (place / ".git").exists()), None)


def clone(source: str, target: Path, *options: str) -> None:
    """Clone a repository that Git trusts here; for a clone it would ask for more of the same."""
    trusting = ["-c", "safe.directory=*"]
    other_side = ["--upload-pack", " ".join(["git", *trusting, "upload-pack"])]
    git(*trusting, "clone", "--quiet", *other_side, *options, source, str(target.resolve()))


def clone_project(target: Path) -> Path:
    """Clone the last commit into `target`; return the folder in it that is this project.

    That is `target` itself, or a folder in it if this project is a folder of a larger repository.
    Without Git's repository, as after unpacking a ZIP, the files as they are become a repository.
    """
    if not is_in_git():
        shutil.copytree(".", target, ignore=LEFT_OUT)
        author = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
        plain = ["-c", "commit.gpgsign=false", "-c", f"core.hooksPath={os.devnull}"]
        git("init", "--quiet", folder=target)
        git("add", "--all", folder=target)
        git(
            *author,
            *plain,
            "commit",
            "--quiet",
            "--message",
            "The files as they are",
            folder=target,
        )
        return target
    top = git("rev-parse", "--show-toplevel")
    inside = git("rev-parse", "--show-prefix")
    nothing = PipelineError(
        f"this folder is in no commit of the Git repository {top}; commit it first: "
        "`git add --all . && git commit -m Start`"
    )
    if not has_commit():
        raise nothing
    clone(top, target, "--no-hardlinks")
    if not (target / inside / "dvc.yaml").is_file():
        raise nothing
    return target / inside


def differences(folder: Path = Path()) -> list[Difference]:
    """What differs from dvc.lock: source files, params, commands, outputs. Needs no Git.

    Data that DVC keeps may be absent, as on a fresh clone; a file that Git keeps may not. Raises
    `PipelineError` with DVC's reason if it does not answer.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder), config={"core": {"no_scm": True}}) as repo:
            kept = {str(out) for out in repo.index.outs if out.use_cache}
            status = repo.status()
    except DvcException as error:
        raise PipelineError(f"`dvc status` failed: {reason_of(error)}") from None
    found = []
    for place, changes in status.items():
        stage = place.rpartition(":")[2]  # of a pipeline elsewhere: path/dvc.yaml:stage
        for change in changes:
            if isinstance(change, str):  # such as "changed command"
                found.append(Difference(stage, "", "", change, False))
                continue
            for kind, files in change.items():
                for path, state in files.items():
                    if path not in kept or state not in ("deleted", "not in cache"):
                        found.append(Difference(stage, kind, path, str(state), path in kept))
    return found


def prepare(folder: Path = Path()) -> None:
    """Tell DVC whether there is a Git repository here, before it runs anything.

    Without one DVC refuses to start, unless its own configuration of this machine says so. Git has
    no copy of the committed results then, so DVC's cache gets one: DVC deletes them before a run.
    """
    from dvc.config import Config

    configuration = Config(str(folder / ".dvc"), validate=False)
    without = configuration.load_one("local")["core"].get("no_scm")
    if is_in_git(folder):
        if without:
            with configuration.edit("local") as content:
                del content["core"]["no_scm"]
        return
    if not without:
        with configuration.edit("local") as content:
            content["core"]["no_scm"] = True
    keep_outputs(folder)
    print(
        "repository: there is no Git repository here, so DVC runs without one; experiments and "
        "comparisons need one"
    )


def keep_outputs(root: Path) -> None:
    """Copy each output that is as dvc.lock records it into DVC's cache, if that has no copy."""
    cache = cache_folder(root)
    for outs in recorded_outputs(root).values():
        for name, md5 in outs.items():
            path, blob = root / name, cache / md5[:2] / md5[2:]
            if not path.is_file() or blob.exists():
                continue
            content = path.read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                with replacing(blob) as temporary:
                    temporary.write_bytes(content)


def main() -> None:
    """Clone this project into the folder that the command line names, or prepare this one."""
    parser = argparse.ArgumentParser(prog="python -m tools.repository", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="a new folder")
    options = parser.parse_args()
    if options.folder:
        clone_project(options.folder)
    else:
        prepare()


if __name__ == "__main__":
    run_command("repository", main)
