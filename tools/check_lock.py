"""Checks that the committed results belong to the committed code: `python -m tools.check_lock`.

Asks `dvc status` what differs from dvc.lock: source files, params, commands, outputs. Data that DVC
keeps may be absent, as on a fresh clone; a file that Git keeps may not. The network in pretrained/,
if there is one, has to be that of dvc.lock, and its card to have the scores in reports/.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cifar100.model_folder import PRETRAINED
from stages.export.model_card import FLOAT16
from tools.publish import CARD, COPIES, MAX_CHANGE, METRICS, locked_hashes, md5_of


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
    written = locked_hashes(lock)
    for name, stage in lock["stages"].items():
        for dep in stage.get("deps", []):
            if written.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: {dep['path']}: not the one that an earlier stage wrote"


def pretrained_differences(lock: dict[str, Any]) -> Iterator[str]:
    """One line for each file in pretrained/ that is not of the locked network."""
    if not PRETRAINED.exists():
        return
    locked = locked_hashes(lock)
    for copy, source in COPIES.items():
        if not copy.is_file():
            yield f"{copy}: deleted"
        elif md5_of(copy) != locked.get(source.as_posix()):
            yield f"{copy}: not the {source} of dvc.lock"
    try:
        _, front_matter, _ = re.split(r"^---\n", CARD.read_text(encoding="utf-8"), flags=re.M)
        (result,) = yaml.safe_load(front_matter)["model-index"][0]["results"]
        scores = {metric["name"]: float(metric["value"]) for metric in result["metrics"]}
        top1 = float(json.loads(METRICS.read_text(encoding="utf-8"))["top1"])
        if scores["top-1"] != top1 or round(abs(scores[FLOAT16] - top1), 5) > MAX_CHANGE:
            yield f"{CARD}: not the scores of {METRICS}"
    except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError):
        yield f"{CARD}: not a card that `python -m tools.publish` wrote"


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
    stale = list(pretrained_differences(lock))
    found = [*differences(json.loads(answer.stdout)), *broken_links(lock)]
    for line in [*found, *stale]:
        print(line)
    if found:
        sys.exit(
            "error: check-lock: dvc.lock and reports/ were not made by this code and these params; "
            "run `make repro` and commit what it writes"
        )
    if stale:
        sys.exit(
            f"error: check-lock: {PRETRAINED}/ has not the network of dvc.lock; run "
            f"`python -m tools.publish` and commit it, or delete the folder"
        )
    print("check-lock: the committed results belong to the committed code and params")


if __name__ == "__main__":
    main()
