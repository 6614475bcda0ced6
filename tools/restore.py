"""Puts back results that a failed run removed: `python -m tools.restore`.

DVC deletes the outputs of a stage before it starts the command. The stage puts them back when it
fails; this does it for one that could not even start. It needs no package, only a Python.
"""

import argparse
import json
import os
from pathlib import Path

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.restore import LOCK, dvc_folder, recorded_outputs, restore_outputs


def main() -> None:
    """Restore each stage of which an output is missing; print the files that are back."""
    parser = argparse.ArgumentParser(prog="python -m tools.restore", description=__doc__)
    parser.add_argument(
        "--quiet", action="store_true", help="say nothing if there is nothing to be done now"
    )
    options = parser.parse_args()
    recorded, run = recorded_outputs(), run_under_way()
    if options.quiet and (run or not recorded):
        return
    if not recorded:
        raise PipelineError(f"{LOCK}: records nothing; run from the root of the repository")
    if run:
        raise PipelineError(f"a run is under way ({run}); wait for its end")
    found: dict[str, str] = {}
    for stage in stages_that_lost_outputs():
        found |= restore_outputs(stage)
    for path, reason in found.items():
        if not reason:
            print(f"restore: {path}")
    failed = [f"{path}: {reason}" for path, reason in found.items() if reason]
    if failed:
        raise PipelineError(f"{len(failed)} files could not be written: {failed[0]}")
    if not found and not options.quiet:
        print("restore: nothing to put back that is in DVC's cache or in Git")


def stages_that_lost_outputs(root: Path = Path()) -> list[str]:
    """The stages of dvc.lock of which an output is not there."""
    recorded = recorded_outputs(root).items()
    return [stage for stage, outs in recorded if any(not (root / name).exists() for name in outs)]


def run_under_way() -> str:
    """The process of DVC that writes outputs now, in words; empty if there is none."""
    try:
        content = json.loads((dvc_folder() / "tmp/rwlock").read_text(encoding="utf-8"))
        writers = [(int(writer["pid"]), writer["cmd"]) for writer in content["write"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    alive = [f"process {pid}: {command}" for pid, command in writers if is_alive(pid)]
    return alive[0] if alive else ""


def is_alive(pid: int) -> bool:
    """Whether there is such a process; on Windows, where asking would end it, DVC's psutil knows.

    Without that package the answer there is yes.
    """
    if os.name != "posix":
        try:
            import psutil
        except ImportError:
            return True
        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    run_command("restore", main)
