"""What DVC's own commands make of the repository: artifacts, plots, metrics and experiments."""

import json
import subprocess
import sys
from pathlib import Path

import dvc.api
import pytest
from dvc.repo import Repo
from PIL import Image

from tests.conftest import ROOT, Workspace, clone_working_tree

LABELS = ["cifar100", "resnet", "paddlepaddle"]


def test_registry_finds_the_network_with_its_labels():
    with Repo(str(ROOT)) as repo:
        artifacts = repo.artifacts.read()["dvc.yaml"]
    assert {name: artifact.type for name, artifact in artifacts.items()} == {
        "resnet": "model",
        "pretrained": "model",
    }
    for artifact in artifacts.values():
        assert artifact.labels[:3] == LABELS


def demo_command() -> str:
    """The `dvc exp run` of `make demo`."""
    recipe = subprocess.check_output(["make", "--dry-run", "demo"], cwd=ROOT, text=True)
    (line,) = [line for line in recipe.splitlines() if "dvc exp run" in line]
    return line[line.index("dvc exp run") :]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_of_dvc_work_on_a_fresh_clone_after_the_demo(tmp_path):
    workspace = clone_working_tree(tmp_path / "repository")
    workspace.run("bash", "-c", demo_command())
    top1 = json.loads(workspace.read("reports/metrics.json"))["top1"]

    changes = json.loads(workspace.run("dvc", "metrics", "diff", "--json"))
    committed = json.loads((ROOT / "reports/metrics.json").read_text(encoding="utf-8"))
    assert changes["reports/metrics.json"]["top1"]["new"] == top1
    assert changes["reports/metrics.json"]["top1"]["old"] == committed["top1"]

    (shown,) = [
        experiment["revs"][0]
        for row in json.loads(workspace.run("dvc", "exp", "show", "--json"))
        for experiment in row["experiments"] or []
    ]
    assert shown["name"] == "demo"
    assert shown["data"]["metrics"]["reports/metrics.json"]["data"]["top1"] == top1
    assert shown["data"]["params"]["params.yaml"]["data"]["dataset"] == "synthetic"

    for command in (["show"], ["diff", "HEAD", "workspace"]):
        out = f"page-{command[0]}"
        workspace.run("dvc", "plots", *command, "--out", out)
        page = workspace.read(f"{out}/index.html").decode()
        for drawn in ("val_top1", "Class confusion", "learning_curves.png", "Reliability"):
            assert drawn in page, (command, drawn)

    workspace.run(sys.executable, "-m", "tools.publish")
    workspace.run("git", "add", "--all", ".", ":!page-show", ":!page-diff")
    workspace.run("git", "commit", "--quiet", "--message", "Demo")
    for name in ("resnet", "pretrained"):
        workspace.run("git", "tag", "--annotate", f"{name}@v1.0.0", "--message", name)
    predict_with_artifact(str(workspace.path), "resnet", tmp_path / "with data")
    workspace.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    predict_with_artifact(str(tmp_path / "clone"), "pretrained", tmp_path / "of Git alone")


def predict_with_artifact(url: str, name: str, folder: Path) -> None:
    """What is fetched is enough to use the network, with nothing but the package."""
    folder.mkdir()
    user = Workspace(folder)
    fetched = user.run("dvc", "artifacts", "get", url, name, "--rev", "v1.0.0", "--out", "network")
    assert "Downloaded" in fetched
    assert dvc.api.artifacts_show(name, repo=url)["path"] in ("models", "pretrained")
    Image.new("RGB", (32, 32), "red").save(folder / "red.png")
    command = [sys.executable, "-m", "cifar100.predict", "red.png", "--models", "network", "--json"]
    line = user.run(*command, PYTHONPATH=str(ROOT))
    assert len(json.loads(line)["predictions"]) == 5
