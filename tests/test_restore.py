"""What is read of DVC's own files without DVC, held against DVC."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from cifar100.running.errors import PipelineError
from cifar100.running.restore import cache_folder, recorded_outputs
from tests.conftest import ROOT
from tools.restore import is_alive, run_under_way, stages_that_lost_outputs


def test_lock_is_read_as_a_parser_of_yaml_reads_it(tmp_path):
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    expected = {s: {out["path"]: out["md5"] for out in lock[s]["outs"]} for s in lock}
    assert recorded_outputs(ROOT) == expected


def test_names_that_yaml_has_to_quote_are_read(tmp_path):
    from dvc.utils.serialize import dump_yaml

    names = ["a b.txt", "it's: one", 'a "b"', "#c", "größe.csv", "- d", "e\\f", "true", "12"]
    outs = [{"path": name, "hash": "md5", "md5": "0123" * 8, "size": 1} for name in names]
    dump_yaml(tmp_path / "dvc.lock", {"schema": "2.0", "stages": {"x@1": {"outs": outs}}})
    assert recorded_outputs(tmp_path) == {"x@1": dict.fromkeys(names, "0123" * 8)}
    assert stages_that_lost_outputs(tmp_path) == ["x@1"]


@pytest.mark.parametrize("content", [None, "", "<<<<<<< HEAD\n", "stages: {}\n", "\0", "outs: 1\n"])
def test_lock_that_is_none_records_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "dvc.lock").write_text(content, encoding="utf-8")
    assert recorded_outputs(tmp_path) == {}


@pytest.mark.parametrize(
    ("repository", "local", "user"),
    [
        ("", None, None),
        ("[core]\n    analytics = false\n[cache]\n    dir = ../../shared\n", None, None),
        ("[cache]\n    dir = /of/the/repository\n", "[cache]\n    dir = /of this machine\n", None),
        ("['remote \"a\"']\n    url = s3://b\n", None, '[cache]\n    dir = "/of the user"\n'),
        ("[cache]\n    dir = ~nobody-of-this-name/c\n", None, None),
        ("", "['remote \"a\"']\n    url = /b\n[cache]\n    type = copy\n    dir = ~/c\n", None),
    ],
)
def test_cache_is_where_dvc_has_it(tmp_path, monkeypatch, repository, local, user):
    from dvc.repo import Repo

    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = tmp_path / "project"
    files = {".dvc/config": repository, ".dvc/config.local": local, "../user/config": user}
    for name, content in files.items():
        if content is not None:
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(content, encoding="utf-8")
    repo = Repo(str(project), config={"core": {"no_scm": True}})
    assert os.path.normpath(cache_folder(project)) == repo.cache.local.path


def test_nothing_is_put_back_beneath_a_run(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run_under_way() == ""
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(parents=True)
    for pid, words in ((os.getpid(), f"process {os.getpid()}: dvc repro"), (2**22 + 1, "")):
        lock.write_text(json.dumps({"write": {"/a": {"pid": pid, "cmd": "dvc repro"}}, "read": {}}))
        assert run_under_way() == words
    lock.write_text("cut o")
    assert run_under_way() == ""


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_process_that_ended_is_no_run_on_any_system(monkeypatch, system):
    import psutil  # not below: it asks which system this is when it is imported

    assert psutil.pid_exists(os.getpid())
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", system)
        found = is_alive(os.getpid()), is_alive(2**22 + 1)
    assert found == (True, False)


def test_quiet_call_leaves_a_run_and_a_missing_lock_alone(tmp_path, monkeypatch, capsys):
    """As `make plots` and `make compare` do while a training runs."""
    from tools import restore

    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["restore", "--quiet"])
    restore.main()  # nothing is recorded
    shutil.copy(ROOT / "dvc.lock", "dvc.lock")
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(parents=True)
    writer = {"pid": os.getpid(), "cmd": "dvc repro"}
    lock.write_text(json.dumps({"write": {"/a": writer}, "read": {}}))
    restore.main()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.argv", ["restore"])
    with pytest.raises(PipelineError, match="a run is under way"):
        restore.main()


def test_folder_without_a_lock_is_one_line(tmp_path, monkeypatch):
    from tools import restore

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["restore"])
    with pytest.raises(PipelineError, match="run from the root of the repository"):
        restore.main()
