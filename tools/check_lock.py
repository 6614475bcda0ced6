"""Checks that the committed results belong to the committed code: `python -m tools.check_lock`.

Asks `dvc status` what differs from dvc.lock: source files, params, commands, outputs. Data that DVC
keeps may be absent, as on a fresh clone; a file that Git keeps may not.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def differences(status: dict[str, list[Any]]) -> Iterator[str]:
    """One line for each difference in the output of `dvc status --json` that matters."""
    for stage, changes in status.items():
        for change in changes:
            if isinstance(change, str):  # such as "changed command"
                yield f"{stage}: {change}"
                continue
            for kind, files in change.items():
                for path, state in files.items():
                    if state in ("deleted", "not in cache") and is_ignored_by_git(path):
                        continue
                    yield f"{stage}: {kind}: {path}: {state}"


def broken_links(lock: dict[str, Any]) -> Iterator[str]:
    """One line for each output that a later stage read with another content than is recorded."""
    written = {
        out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]
    }
    for name, stage in lock["stages"].items():
        for dep in stage.get("deps", []):
            if written.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: {dep['path']}: not the one that an earlier stage wrote"


def is_ignored_by_git(path: str) -> bool:
    """Whether Git leaves `path` to DVC."""
    return subprocess.run(["git", "check-ignore", "--quiet", path], check=False).returncode == 0


def main() -> None:
    """Print what differs and exit with 1, or say that nothing does."""
    argparse.ArgumentParser(prog="python -m tools.check_lock", description=__doc__).parse_args()
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    if answer.returncode:
        sys.exit(f"error: check-lock: dvc status failed: {answer.stderr.strip()}")
    lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    found = [*differences(json.loads(answer.stdout)), *broken_links(lock)]
    for line in found:
        print(line)
    if found:
        sys.exit(
            "error: check-lock: dvc.lock and reports/ were not made by this code and these params; "
            "run `make repro` and commit what it writes"
        )
    print("check-lock: the committed results belong to the committed code and params")


if __name__ == "__main__":
    main()
