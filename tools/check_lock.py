"""Checks that the committed results belong to the committed code: `python -m tools.check_lock`.

Asks DVC what differs from dvc.lock: source files, params, commands, outputs. Data that DVC keeps
may be absent, as on a fresh clone; a file that Git keeps may not. Needs no Git. A network in
pretrained/ has to be that of dvc.lock, and its card to have the scores in reports/.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cifar100.model_folder import PRETRAINED
from cifar100.results.scores import read_metrics
from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.params import read_mapping
from stages.export.model_card import FLOAT16
from tools.publish import CARD, COPIES, METRICS_FILE, largest_change, locked_hashes, md5_of
from tools.repository import differences


def broken_links(lock: dict[str, Any]) -> Iterator[str]:
    """One line for each output that a later stage read with another content than is recorded."""
    written = locked_hashes(lock)
    for name, stage in lock.get("stages", {}).items():
        for dep in stage.get("deps", []):
            if written.get(dep["path"], dep.get("md5")) != dep.get("md5"):  # an address has none
                yield f"{name}: {dep['path']}: not the one that an earlier stage wrote"


def pretrained_differences(lock: dict[str, Any]) -> Iterator[str]:
    """One line for each file in pretrained/ that is not of the locked network."""
    if not PRETRAINED.exists():
        return
    locked = locked_hashes(lock)
    for copy, source in COPIES.items():
        if not copy.is_file():
            yield f"{copy}: deleted"
        elif md5_of(copy.read_bytes()) != locked.get(source.as_posix()):
            yield f"{copy}: not the {source} of dvc.lock"
    try:
        top1, limit = read_metrics(METRICS_FILE.parent)["top1"], largest_change()
    except PipelineError as error:
        yield str(error)
        return
    try:
        _, front_matter, _ = re.split(r"^---\n", CARD.read_text(encoding="utf-8"), flags=re.M)
        (result,) = yaml.safe_load(front_matter)["model-index"][0]["results"]
        scores = {metric["name"]: float(metric["value"]) for metric in result["metrics"]}
        if scores["top-1"] != top1 or round(abs(scores[FLOAT16] - top1), 5) > limit:
            yield f"{CARD}: not the scores of {METRICS_FILE}"
    except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError):
        yield f"{CARD}: not a card that `python -m tools.publish` wrote"


def main() -> None:
    """Print what differs; `PipelineError` if anything does."""
    argparse.ArgumentParser(prog="python -m tools.check_lock", description=__doc__).parse_args()
    lock = read_mapping(Path("dvc.lock"))
    stale = list(pretrained_differences(lock))
    found = [*map(str, differences()), *broken_links(lock)]
    for line in [*found, *stale]:
        print(line)
    if found:
        raise PipelineError(
            "dvc.lock and reports/ were not made by this code and these params; run `make repro` "
            "and commit what it writes (`python -m tools.restore` puts back results that are gone)"
        )
    if stale:
        raise PipelineError(
            f"{PRETRAINED}/ has not the network of dvc.lock; run `python -m tools.publish` and "
            "commit it, or delete the folder"
        )
    print("check-lock: the committed results belong to the committed code and params")


if __name__ == "__main__":
    run_command("check-lock", main)
