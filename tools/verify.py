"""Runs the committed pipeline in a fresh clone and compares what comes out: `make verify`.

Every output's hash is held against dvc.lock. `make verify QUICK=1` runs a small network on
synthetic images in two clones and compares these.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ARCHIVE = Path("data/raw/cifar-100-python.tar.gz")
TIMING = "reports/timing.json"  # wall-clock time, the one output that differs between equal runs
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
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if out["path"] != ARCHIVE.as_posix()}


def clone(folder: Path) -> Path:
    """Clone the last commit into `folder`."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ".", str(folder)], check=True)
    return folder


def reproduce(folder: Path, params: list[str]) -> dict[str, str]:
    """Run every stage of the clone in `folder`; return the hashes of what comes out.

    CIFAR100_ARCHIVE names the archive in ./data/raw for it, if there is one and nothing else is
    named.
    """
    environment = dict(os.environ)
    if ARCHIVE.is_file():
        environment.setdefault("CIFAR100_ARCHIVE", str(ARCHIVE.resolve()))
    changes = [word for param in params for word in ("-S", param)]
    # In a cache that a user shares among repositories DVC finds earlier runs and takes their
    # results; nothing would be run.
    command = [*(["dvc", "exp", "run", *changes] if params else ["dvc", "repro"]), "--force"]
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode:
        sys.exit(f"error: verify: {' '.join(command)} failed in a clone; its reason stands above")
    return hashes(folder)


def compare(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line for each output that is not the same in both; the time does not count."""
    return [
        f"{path}: expected md5 {expected.get(path, 'none')}, found {found.get(path, 'none')}"
        for path in sorted({*expected, *found} - {TIMING})
        if expected.get(path) != found.get(path)
    ]


def main() -> None:
    """Print what differs and exit with 1, or say that nothing does."""
    parser = argparse.ArgumentParser(prog="python -m tools.verify", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, on synthetic images, twice")
    parser.add_argument("--keep", type=Path, help="a new folder for the clone, left for a look")
    options = parser.parse_args()
    if options.keep and options.keep.exists():
        parser.error(f"argument --keep: {options.keep} is there already; name a new folder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        if options.quick:
            expected = reproduce(clone(folder / "first"), QUICK)
            found = reproduce(clone(folder / "second"), QUICK)
        else:
            # The clone has the last commit, from which dvc.lock here may differ.
            expected = hashes(clone(folder / "clone"))
            found = reproduce(folder / "clone", [])
    differences = compare(expected, found)
    for line in differences:
        print(line)
    if differences:
        sys.exit(
            f"error: verify: {len(differences)} of {len(expected)} outputs differ; "
            "docs/reproducibility.md says what to expect on other machines"
        )
    same = len(expected) - (TIMING in expected)
    print(f"verify: all {same} outputs have the expected hashes ({TIMING} apart, as it is a time)")


if __name__ == "__main__":
    main()
