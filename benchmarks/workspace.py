"""Runs commands without tuning from outside, and stages in a copy of the workspace."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cifar100.running.environment import ENGINES
from cifar100.running.params import read_mapping
from tools import children

# Settings of BLAS, threads, allocator and frameworks that would not be those "as installed".
TUNING = (*ENGINES, "MALLOC_", "GLIBC_TUNABLES", "TORCH", "LD_PRELOAD")


def untuned_environment() -> dict[str, str]:
    """The variables of this process without those that tune computation."""
    return {name: value for name, value in os.environ.items() if not name.startswith(TUNING)}


def run(command: list[str], folder: Path = Path()) -> str:
    """Run `command` in `folder`; return what it printed. `PipelineError` if it fails."""
    return children.output(command, cwd=folder, env=untuned_environment())


def lines_of(command: list[str], folder: Path = Path()) -> Iterator[str]:
    """Run `command` in `folder`; print each line when it appears, and yield it."""
    environment = untuned_environment()
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with children.child(command, cwd=folder, env=environment, **pipes) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            yield line
    children.check(command, process.returncode)


def copy_pipeline(target: Path) -> None:
    """Copy the code and the params of the pipeline from the current folder to `target`."""
    for name in ("cifar100", "stages"):
        shutil.copytree(name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(name, target)


def set_params(workspace: Path, **values: Any) -> None:
    """Change values in the params.yaml of `workspace`."""
    path = workspace / "params.yaml"
    content = read_mapping(path) | values
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
