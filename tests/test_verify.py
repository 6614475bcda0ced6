import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT, Workspace
from tools.verify import ARCHIVE, TIMING, compare, explain, hashes, local_archive, read_run

STAGES = ["download", "preprocess", "train", "evaluate", "render", "export"]


def verify(workspace: Workspace, *options: str, cache: str, ok: bool = True) -> str:
    """Run it as a user whose repositories share a DVC cache; return all its output."""
    configuration = workspace.path.parent / "configuration"
    configuration.mkdir()
    (configuration / "config").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    command = [sys.executable, "-m", "tools.verify", *options]
    return workspace.run(*command, ok=ok, DVC_GLOBAL_CONFIG_DIR=str(configuration))


def test_difference_is_named_and_the_time_does_not_count(tmp_path):
    lock = {
        "stages": {
            "download": {"outs": [{"path": "data/raw/cifar-100-python.tar.gz", "md5": "1"}]},
            "train": {
                "outs": [
                    {"path": "models/model.safetensors", "md5": "2"},
                    {"path": "reports/timing.json", "md5": "3"},
                ]
            },
        }
    }
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    expected = hashes(tmp_path)
    assert expected == {"models/model.safetensors": "2", "reports/timing.json": "3"}
    assert compare(expected, expected | {"reports/timing.json": "4"}) == []
    (line,) = compare(expected, expected | {"models/model.safetensors": "5"})
    assert line == "models/model.safetensors: expected md5 2, found 5"
    assert len(compare(expected, {})) == 1


def test_differences_are_explained_by_the_machine_and_the_score():
    """Of the committed run, and of one on a CPU without its instructions."""
    committed = read_run(ROOT)
    machine, top1 = explain(committed, committed)
    assert "are those of the committed run" in machine
    assert top1.endswith(f"{committed['top1']:.2%} here: +0.00 points")
    other = "float32" if committed["precision"] != "float32" else "bfloat16"
    own = committed | {"precision": other, "top1": committed["top1"] - 0.0123}
    machine, top1 = explain(committed, own)
    assert machine.endswith(f"expected: precision {committed['precision']} there, {other} here")
    assert top1.endswith(" here: -1.23 points")


def test_folder_that_is_there_already_is_not_touched(tmp_path):
    command = [sys.executable, "-m", "tools.verify", "--keep", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"{tmp_path} is there already; name a new folder")
    assert not list(tmp_path.iterdir())


def test_clone_is_not_kept_inside_of_what_is_copied(workspace, tmp_path):
    """Without Git, as after unpacking a ZIP, the files as they are are copied."""
    project = tmp_path / "zip"
    shutil.copytree(workspace.path, project, ignore=shutil.ignore_patterns(".git", ".dvc"))
    command = [sys.executable, "-m", "tools.verify", "--quick", "--keep", "clone"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "argument --keep: clone is in the folder that is copied; name another"
    )
    assert not (project / "clone").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quick_runs_all_twice_and_finds_no_difference(workspace):
    kept = workspace.path.parent / "kept"
    cache = str(workspace.path.parent / "cache")
    output = verify(workspace, "--quick", "--keep", str(kept), cache=cache)
    assert re.findall(r"Running stage '(\w+)'", output) == 2 * STAGES
    outputs = len(set(hashes(kept / "second")) - {TIMING})
    assert f"verify: all {outputs} outputs have the expected hashes" in output


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_output_that_differs_from_the_last_commit_fails(workspace):
    right = workspace.read("dvc.lock")
    md5 = hashes(workspace.path)["models/model.json"]
    (workspace.path / "dvc.lock").write_bytes(right.replace(md5.encode(), b"f" * 32))
    workspace.commit("Expect another model.json")
    (workspace.path / "dvc.lock").write_bytes(right)
    output = verify(workspace, cache=str(workspace.path / ".dvc/cache"), ok=False)
    assert re.findall(r"Running stage '(\w+)'", output) == STAGES
    assert f"models/model.json: expected md5 {'f' * 32}, found {md5}\n" in output
    assert "instruction set are those of the committed run" in output
    assert "here: +0.00 points" in output
    assert re.search(r"error: verify: 1 of \d+ outputs differ", output)


def test_archive_is_found_from_a_relative_path_and_else_where_it_was_downloaded(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIFAR100_ARCHIVE", "~nobody-of-this-name/copy.tar.gz")
    assert local_archive() is None
    monkeypatch.setenv("CIFAR100_ARCHIVE", "copy.tar.gz")
    assert local_archive() is None
    (tmp_path / "copy.tar.gz").touch()
    assert local_archive() == (tmp_path / "copy.tar.gz").resolve()
    (tmp_path / ARCHIVE).parent.mkdir(parents=True)
    (tmp_path / ARCHIVE).touch()
    for nothing in ("", " "):
        monkeypatch.setenv("CIFAR100_ARCHIVE", nothing)
        assert local_archive() == (tmp_path / ARCHIVE).resolve()
    monkeypatch.delenv("CIFAR100_ARCHIVE")
    assert local_archive() == (tmp_path / ARCHIVE).resolve()
