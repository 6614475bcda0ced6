"""Checks that the committed results belong to the committed code: `python -m tools.check_lock`.

Asks DVC what differs from dvc.lock: source files, params, commands, outputs. Data that DVC keeps
may be absent, as on a fresh clone; a file that Git keeps may not. Needs no Git.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.params import read_mapping
from tools.repository import differences


def broken_links(lock: dict[str, Any]) -> Iterator[str]:
    """One line for each output that a later stage read with another content than is recorded."""
    written = {
        out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]
    }
    for name, stage in lock["stages"].items():
        for dep in stage.get("deps", []):
            if written.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: {dep['path']}: not the one that an earlier stage wrote"


def main() -> None:
    """Print what differs; `PipelineError` if anything does."""
    argparse.ArgumentParser(prog="python -m tools.check_lock", description=__doc__).parse_args()
    found = [*map(str, differences()), *broken_links(read_mapping(Path("dvc.lock")))]
    for line in found:
        print(line)
    if found:
        raise PipelineError(
            "dvc.lock and reports/ were not made by this code and these params; run `make repro` "
            "and commit what it writes (`python -m tools.restore` puts back results that are gone)"
        )
    print("check-lock: the committed results belong to the committed code and params")


if __name__ == "__main__":
    run_command("check-lock", main)
