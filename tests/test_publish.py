"""The network in pretrained/: how it gets there, that it is the locked one, and who uses it."""

import json
import re
import shutil
import sys

import pytest
import yaml
from PIL import Image

from cifar100.model_folder import FILES, choose_folder
from cifar100.running.errors import PipelineError
from cifar100.trained.loading import TrainedModel, load_model
from stages.export.model_card import FLOAT16
from tests.conftest import Workspace
from tools.check_lock import pretrained_differences

PROGRAM = """
import numpy as np
from cifar100 import load_model
image = np.zeros((3, 32, 32), np.uint8)
print(load_model().predict([image], top=3) == load_model("pretrained").predict([image], top=3))
"""


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory) -> Workspace:
    """The finished workspace with its network in pretrained/, committed. Copy it."""
    workspace = finished.copy(tmp_path_factory.mktemp("published") / "repository")
    output = workspace.run(sys.executable, "-m", "tools.publish")
    assert output.startswith("publish: pretrained/: ")
    workspace.commit("Publish the network")
    return workspace


@pytest.fixture
def clone(published, tmp_path) -> Workspace:
    """A fresh clone of that, without the data that DVC keeps."""
    published.run("git", "clone", "--quiet", ".", str(tmp_path / "clone"))
    return Workspace(tmp_path / "clone")


def load_here() -> TrainedModel:
    """What predict and `cifar100.load_model` load in this folder."""
    weights, description = (choose_folder() / name for name in FILES)
    return load_model(weights, description)


def differences(workspace: Workspace) -> list[str]:
    lock = yaml.safe_load((workspace.path / "dvc.lock").read_text(encoding="utf-8"))
    return list(pretrained_differences(lock))


def test_clone_has_a_network_that_predicts_and_is_the_locked_one(clone):
    """Before any stage has run there."""
    assert not (clone.path / "models").exists()
    Image.new("RGB", (50, 40), "red").save(clone.path / "cat.png")
    output = clone.run(sys.executable, "-m", "cifar100.predict", "cat.png")
    first, name, *rows = output.splitlines()
    assert first == "predict: the network is that in pretrained/"
    assert name == "cat.png"
    assert len(rows) == 5
    (clone.path / "cat.png").unlink()
    assert clone.run(sys.executable, "-c", PROGRAM, PYTHONPATH=str(clone.path)) == "True\n"
    assert "belong to the committed code" in clone.run(sys.executable, "-m", "tools.check_lock")


def test_card_says_what_rounding_changed(published):
    card = published.read("pretrained/README.md").decode()
    fields = yaml.safe_load(card.split("---\n", 2)[1])
    metrics = fields["model-index"][0]["results"][0]["metrics"]
    scores = {metric["name"]: metric["value"] for metric in metrics}
    stored = json.loads(published.read("reports/metrics.json"))
    rounded = scores["top-1 with float16 weights"]
    assert scores["top-1"] == stored["top1"]
    assert round(abs(rounded - stored["top1"]) * 2000) <= 5  # images of the synthetic test split
    assert f"top-1 is {100 * rounded:.2f} %:\nrounding changes it by" in card
    assert "model.onnx" not in card  # which is not there


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("MAX_BYTES", "MB; expected at most -0"),
        ("MAX_IMAGES", "; expected at most -1 images more or less"),
    ],
)
def test_network_beyond_the_limits_is_refused(workspace, limit, reason):
    program = f"""from cifar100.running.guard import run_command
from tools import publish
publish.{limit} = -1
run_command("publish", publish.main)"""
    output = workspace.run(sys.executable, "-c", program, ok=False)
    (line,) = (line for line in output.splitlines() if line.startswith("error: publish: "))
    assert reason in line
    assert workspace.run("git", "status", "--porcelain") == ""


def test_training_by_hand_does_not_get_into_the_card(workspace):
    history = workspace.path / "reports/history.csv"
    history.write_text(history.read_text().replace("\n1,", "\n7,", 1))
    output = workspace.run(sys.executable, "-m", "tools.publish", ok=False)
    assert "error: publish: reports/history.csv: not there, or not the one" in output


def test_each_change_in_pretrained_is_noticed_without_data(clone, monkeypatch):
    monkeypatch.chdir(clone.path)
    assert not differences(clone)
    reasons = {
        "model.safetensors": "not the models/model.float16.safetensors of dvc.lock",
        "model.json": "not the models/model.json of dvc.lock",
        "README.md": "not a card that `python -m tools.publish` wrote",
    }
    for name, reason in reasons.items():
        path = clone.path / "pretrained" / name
        original = path.read_bytes()
        path.write_bytes(b"-" + original)
        assert differences(clone) == [f"pretrained/{name}: {reason}"]
        path.unlink()
        assert [line.split(": ")[0] for line in differences(clone)] == [f"pretrained/{name}"]
        path.write_bytes(original)
    metrics = json.loads(clone.read("reports/metrics.json"))
    changed = json.dumps(metrics | {"top1": metrics["top1"] + 0.01})
    (clone.path / "reports/metrics.json").write_text(changed, encoding="utf-8")
    assert differences(clone) == ["pretrained/README.md: not the scores of reports/metrics.json"]
    (clone.path / "reports/metrics.json").write_text("{}", encoding="utf-8")
    (line,) = differences(clone)
    assert line.startswith("reports/metrics.json: ")
    (clone.path / "reports/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    card = (clone.path / "pretrained/README.md").read_text(encoding="utf-8")
    changed = re.sub(rf"(name: {FLOAT16}\n +value: )[\d.]+", r"\g<1>0.9", card)
    (clone.path / "pretrained/README.md").write_text(changed, encoding="utf-8")
    assert changed != card
    assert differences(clone) == ["pretrained/README.md: not the scores of reports/metrics.json"]
    shutil.rmtree(clone.path / "pretrained")
    assert not differences(clone)


@pytest.mark.slow
def test_check_lock_names_the_folder_and_the_way_out(clone):
    """After another run that nobody published."""
    lock = (clone.path / "dvc.lock").read_text(encoding="utf-8")
    stages = yaml.safe_load(lock)["stages"]
    (half,) = (o["md5"] for o in stages["export"]["outs"] if "float16" in o["path"])
    (clone.path / "dvc.lock").write_text(lock.replace(half, "a" * 32), encoding="utf-8")
    output = clone.run(sys.executable, "-m", "tools.check_lock", ok=False)
    assert output.splitlines()[-2:] == [
        "pretrained/model.safetensors: not the models/model.float16.safetensors of dvc.lock",
        "error: check-lock: pretrained/ has not the network of dvc.lock; run "
        "`python -m tools.publish` and commit it, or delete the folder",
    ]


@pytest.mark.slow
def test_network_of_another_run_is_not_published(published, tmp_path):
    workspace = published.copy(tmp_path / "repository")
    before = workspace.read("pretrained/model.safetensors")
    for name in ("models/model.float16.safetensors", "reports/metrics.json"):
        path = workspace.path / name
        original = path.read_bytes()
        path.write_bytes(original + b" ")
        line = workspace.run(sys.executable, "-m", "tools.publish", ok=False)
        assert line == (
            f"error: publish: {name}: not there, or not the one that dvc.lock has; "
            "run `dvc repro`\n"
        )
        path.write_bytes(original)
    assert workspace.read("pretrained/model.safetensors") == before


def test_own_network_goes_before_the_one_in_git(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=r"^no network here: neither models/ nor pretrained/"):
        choose_folder()
    shutil.copytree(published.path / "pretrained", "pretrained")
    assert choose_folder().name == "pretrained"
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.onnx").touch()  # a training is under way: DVC removed the network
    assert choose_folder().name == "pretrained"
    for name in FILES:
        shutil.copy(published.path / "models" / name, "models")
    assert choose_folder().name == "models"
    (tmp_path / "models/model.json").unlink()
    with pytest.raises(PipelineError, match=r"^models/model\.json: not found; run `dvc repro`$"):
        load_here()


def test_missing_or_damaged_pretrained_is_one_line(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / "pretrained").mkdir()
        shutil.copy(published.path / "pretrained" / name, "pretrained")
        with pytest.raises(PipelineError, match=r": not found; run `git restore pretrained`$"):
            load_here()
        shutil.rmtree("pretrained")
    for name in FILES:
        shutil.copytree(published.path / "pretrained", "pretrained")
        path = tmp_path / "pretrained" / name
        content = path.read_bytes()
        for damaged in (b"", content[:-100], b"version https://git-lfs.github.com/spec/v1\n"):
            path.write_bytes(damaged)
            with pytest.raises(PipelineError, match=rf"pretrained/{name}: ") as caught:
                load_here()
            assert "git restore" in str(caught.value)
            assert "\n" not in str(caught.value)
        shutil.rmtree("pretrained")
