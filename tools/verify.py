"""Runs the committed pipeline in a fresh clone and compares what comes out: `make verify`.

Every output's hash is held against dvc.lock. `make verify QUICK=1` runs a small network on
synthetic images in two clones and compares these.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.params import read_mapping
from tools import children
from tools.publish import locked_hashes
from tools.repository import clone_project, environment, is_in_git

ARCHIVE = Path("data/raw/cifar-100-python.tar.gz")
TIMING = "reports/timing.json"  # wall-clock time, the one output that differs between equal runs
METRICS = "reports/metrics.json"
MACHINE = ("device", "precision", "threads", "processes", "instruction_set", "library")
QUICK = [
    "dataset=synthetic",
    "val_per_class=10",
    "depth=20",
    "width=8",
    "epochs=2",
    "batch_size=64",
    "lr=0.1",
    "progressive_sizes=[16]",
    "progressive_fraction=0.5",
]


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each output in dvc.lock but the archive, which may be packed differently."""
    found = locked_hashes(read_mapping(folder / "dvc.lock"))
    return {path: md5 for path, md5 in found.items() if path != ARCHIVE.as_posix()}


def local_archive() -> Path | None:
    """The file or folder that CIFAR100_ARCHIVE names, or else the downloaded one, if it is there.

    The path is absolute, so that it holds in a clone too.
    """
    archive = Path(os.path.expanduser(os.environ.get("CIFAR100_ARCHIVE", "").strip() or ARCHIVE))
    return archive.resolve() if archive.exists() else None


def reproduce(folder: Path, params: list[str]) -> dict[str, str]:
    """Run every stage of the clone in `folder`; return the hashes of what comes out.

    CIFAR100_ARCHIVE names the archive in ./data/raw for it, if there is one and nothing else is
    named. A relative path is taken from here.
    """
    variables, archive = environment(), local_archive()
    if archive:
        variables["CIFAR100_ARCHIVE"] = str(archive)
    changes = [word for param in params for word in ("-S", param)]
    # In a cache that a user shares among repositories DVC finds earlier runs and takes their
    # results; nothing would be run.
    command = ["exp", "run", *changes] if params else ["repro"]
    children.run([sys.executable, "-m", "dvc", *command, "--force"], cwd=folder, env=variables)
    return hashes(folder)


def compare(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line for each output that is not the same in both; the time does not count."""
    return [
        f"{path}: expected md5 {expected.get(path, 'none')}, found {found.get(path, 'none')}"
        for path in sorted({*expected, *found} - {TIMING})
        if expected.get(path) != found.get(path)
    ]


def read_run(folder: Path) -> dict[str, Any]:
    """What the reports in `folder` say of their run: its top-1, and the `MACHINE` of it."""
    timing, metrics = (read_mapping(folder / name) for name in (TIMING, METRICS))
    return {name: timing.get(name, "not recorded") for name in MACHINE} | {"top1": metrics["top1"]}


def explain(committed: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Lines for the reader of differences: what differs in the machine, and by how much the top-1.

    Both are what `read_run` returns.
    """
    others = [
        f"{name.replace('_', ' ')} {committed[name]} there, {own[name]} here"
        for name in MACHINE
        if committed[name] != own[name]
    ]
    machine = (
        f"another machine made the committed run, so other bytes are expected: {'; '.join(others)}"
        if others
        else "device, precision, threads and instruction set are those of the committed run"
    )
    points = 100 * (own["top1"] - committed["top1"])
    return [
        f"verify: {machine}",
        f"verify: test top-1 {committed['top1']:.2%} there, {own['top1']:.2%} here: "
        f"{points:+.2f} points",
    ]


def main() -> None:
    """Say that nothing differs, or print what does and raise `PipelineError`."""
    parser = argparse.ArgumentParser(prog="python -m tools.verify", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, on synthetic images, twice")
    parser.add_argument("--keep", type=Path, help="a new folder for the clone, left for a look")
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        parser.error(f"argument --keep: {options.keep} is there already; name a new folder")
    if options.keep and not is_in_git() and Path.cwd() in options.keep.resolve().parents:
        parser.error(
            f"argument --keep: {options.keep} is in the folder that is copied; name another"
        )
    notes: list[str] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = options.keep or Path(temporary)
        if options.quick:
            expected = reproduce(clone_project(folder / "first"), QUICK)
            found = reproduce(clone_project(folder / "second"), QUICK)
        else:
            project = clone_project(folder / "clone")
            # The clone has the last commit, from which dvc.lock here may differ.
            expected, committed = hashes(project), read_run(project)
            found = reproduce(project, [])
            notes = explain(committed, read_run(project))
    differences = compare(expected, found)
    for line in [*differences, *(notes if differences else [])]:
        print(line)
    if differences:
        raise PipelineError(
            f"{len(differences)} of {len(expected)} outputs differ; "
            "docs/reproducibility.md says what to expect on other machines"
        )
    same = len(expected) - (TIMING in expected)
    print(f"verify: all {same} outputs have the expected hashes ({TIMING} apart, as it is a time)")


if __name__ == "__main__":
    run_command("verify", main)
