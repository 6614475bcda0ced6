"""Disks that are full, that cannot be written, or that have lost the cache."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_failures import one_error_line

# A file system of its own for one folder, which is gone when the command ends.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
SCRIPT = """
cp -a {folder} before
mount -t tmpfs -o size={size}k none {folder}
cp -a before/. {folder}
{then}
python -m stages.{stage}
code=$?
cp -a {folder} after
exit $code
"""

needs_namespace = pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="a small file system can only be mounted where user namespaces are allowed",
)


def used(folder: Path) -> int:
    """KiB of whole pages."""
    return sum(4 * (-(-file.stat().st_size // 4096) + 1) for file in folder.rglob("*"))


def contents(folder: Path) -> dict[str, str]:
    """The digest of each file, at any depth; "" for a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


FULL, READ_ONLY = "No space left on device", "Read-only file system"
slow = pytest.mark.slow


@needs_namespace
@pytest.mark.parametrize(
    ("stage", "folder", "problem"),
    [
        ("preprocess", "data/processed", FULL),
        ("preprocess", "data/processed", READ_ONLY),
        pytest.param("train", ".checkpoints", FULL, marks=slow),
        ("train", ".checkpoints", READ_ONLY),
        pytest.param("train", "models", FULL, marks=slow),
        pytest.param("train", "models", READ_ONLY, marks=slow),
        pytest.param("evaluate", "data/predictions", FULL, marks=slow),
        pytest.param("evaluate", "data/predictions", READ_ONLY, marks=slow),
        pytest.param("render", "reports", FULL, marks=slow),
        pytest.param("render", "reports", READ_ONLY, marks=slow),
        pytest.param("export", "models", FULL, marks=slow),
        pytest.param("export", "models", READ_ONLY, marks=slow),
    ],
)
def test_disk_that_takes_nothing_more_keeps_what_it_has(workspace, stage, folder, problem):
    path = workspace.path / folder
    path.mkdir(exist_ok=True)
    script = SCRIPT.format(
        folder=folder,
        stage=stage,
        size=used(path) + (8 if problem == FULL else 10_000),
        then="" if problem == FULL else f"mount -o remount,ro {folder}",
    )
    line = one_error_line(workspace.run(*NAMESPACE, script, ok=False))
    assert line.startswith(f"error: {stage}: ")
    assert problem in line
    assert contents(workspace.path / "after") == contents(workspace.path / "before")


@slow
@needs_namespace
@pytest.mark.parametrize("copies", [0, 1])
def test_inference_program_is_whole_however_little_room_there_is(workspace, copies):
    """With room for model.onnx and none or one copy of inference/, where the old one is smaller."""
    models = workspace.path / "models"
    inference = contents(models / "inference")
    room = (models / "model.onnx").stat().st_size // 1024 + copies * used(models / "inference")
    shutil.rmtree(models / "inference")
    (models / "inference").mkdir()
    (models / "inference/model.json").write_text("old")
    script = SCRIPT.format(folder="models", stage="export", size=used(models) + room + 16, then="")
    output = workspace.run(*NAMESPACE, script, ok=copies == 1)
    if copies == 0:
        assert one_error_line(output).startswith("error: export: models/inference: Paddle cannot")
        assert contents(workspace.path / "after") == contents(workspace.path / "before")
    else:
        assert contents(workspace.path / "after/inference") == inference


@slow
def test_lost_cache_is_filled_again_with_the_same_bytes(workspace):
    names = ["models/model.safetensors", "data/predictions/test.npz"]
    before = [workspace.read(name) for name in names]
    for folder in (".dvc/cache", "data/processed", "data/predictions"):
        shutil.rmtree(workspace.path / folder)
    workspace.run("dvc", "repro")
    assert [workspace.read(name) for name in names] == before
