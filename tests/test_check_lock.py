import re
import shutil
import sys

from tests.conftest import Workspace
from tools.check_lock import broken_links
from tools.publish import locked_hashes


def check_lock(workspace: Workspace, ok: bool = True) -> str:
    return workspace.run(sys.executable, "-m", "tools.check_lock", ok=ok)


def test_stage_of_a_user_without_outputs_or_with_an_address_is_passed_over():
    """DVC records no `outs` for the first, and an etag in place of an md5 for the second."""
    stages = {
        "train": {"cmd": "train", "outs": [{"path": "model", "md5": "a"}]},
        "notify": {"cmd": "notify", "deps": [{"path": "model", "md5": "a"}]},
        "fetch": {
            "cmd": "fetch",
            "deps": [{"path": "https://example.org/list", "etag": "b"}],
            "outs": [{"path": "s3://bucket/list", "etag": "c"}, {"path": "list", "md5": "d"}],
        },
    }
    assert locked_hashes({"stages": stages}) == {"model": "a", "list": "d"}
    assert list(broken_links({"stages": stages})) == []
    stages["notify"]["deps"] = [{"path": "model", "md5": "other"}]
    (line,) = broken_links({"stages": stages})
    assert line.startswith("notify: model: ")
    assert list(broken_links({"schema": "2.0"})) == []  # of a project that has not run yet


def test_check_lock_needs_no_data_and_notices_each_change(finished, tmp_path):
    clone = Workspace(tmp_path / "clone")
    finished.run("git", "clone", "--quiet", str(finished.path), str(clone.path))
    # of the committed run, if it is there: see test_publish.py
    shutil.rmtree(clone.path / "pretrained", ignore_errors=True)
    assert "belong to the committed code" in check_lock(clone)
    changes = {
        "stages/train/loop.py": "train: changed deps: stages/train: modified",
        "reports/metrics.json": "evaluate: changed outs: reports/metrics.json: modified",
        "reports/figures/class_confusion.png": "render: changed outs: reports/figures",
    }
    for name, line in changes.items():
        original = clone.read(name)
        (clone.path / name).write_bytes(original + b"\n")
        assert line in check_lock(clone, ok=False)
        (clone.path / name).unlink()
        lost = line if name.startswith("stages") else line.replace("modified", "deleted")
        assert lost in check_lock(clone, ok=False)
        (clone.path / name).write_bytes(original)
    clone.set_params(lr="0.07")
    assert "train: changed deps: params.yaml: {'lr': 'modified'}" in check_lock(clone, ok=False)
    clone.set_params(lr="0.1")
    lock = (clone.path / "dvc.lock").read_text(encoding="utf-8")
    model = re.search(r"path: models/model.safetensors\n +hash: md5\n +md5: (\w+)", lock)
    assert model is not None
    stale = lock[: model.start(1)] + "a" * 32 + lock[model.end(1) :]
    (clone.path / "dvc.lock").write_text(stale, encoding="utf-8")
    assert "models/model.safetensors: not the one that an earlier" in check_lock(clone, ok=False)
    (clone.path / "dvc.lock").write_text(lock, encoding="utf-8")
    pipeline = (clone.path / "dvc.yaml").read_text(encoding="utf-8")
    changed = pipeline.replace("python stages/render", "python stages/render --fast")
    (clone.path / "dvc.yaml").write_text(changed, encoding="utf-8")
    assert "render: changed command" in check_lock(clone, ok=False)
