"""The package `cifar100`, built and installed, in a folder that is not the repository."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

# Of an environment that has the packages that this one has, and our wheel.
pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import cifar100
assert "paddle" not in sys.modules
from cifar100 import load_model
(predictions,) = load_model(sys.argv[1], threads=1).predict(["picture.png"], top=3)
print(cifar100.__file__, len(predictions), *predictions[0])
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    run("git", "clone", "--quiet", ROOT, source, cwd=folder)
    names = run("git", "ls-files", "cifar100", "pyproject.toml", cwd=ROOT).splitlines()
    for name in names:  # as they are now, committed or not
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder]
    run(*build, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    packages = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"cifar100"}
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment/bin/python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours = run(sys.executable, "-c", where, cwd=folder).strip()
    theirs = Path(run(python, "-c", where, cwd=folder).strip())
    (theirs / "packages.pth").write_text(ours, encoding="utf-8")
    run(*pip, "--python", python, "install", *offline, wheel, cwd=folder)
    return python


@pytest.fixture
def models(finished, tmp_path: Path) -> Path:
    """A folder with a trained model and a picture."""
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).write_bytes(finished.read(f"models/{name}"))
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    return tmp_path


def test_pictures_are_classified(python, models):
    command = [python, "-m", "cifar100.predict", "picture.png", "--models", models, "--json"]
    line = json.loads(run(*command, cwd=models))
    assert line["picture"] == "picture.png"
    assert len(line["predictions"]) == 5


def test_model_is_loaded_and_predicts(python, models):
    file, count, *keys = run(python, "-c", PROGRAM, models, cwd=models).split()
    assert str(ROOT) not in file
    assert count == "3"
    assert keys == ["class", "superclass", "probability"]
