"""Where oneDNN is found, what is said where it is not, and what computes then."""

import shutil
import subprocess

import numpy as np
import paddle
import pytest

from cifar100.network import onednn
from cifar100.network.device import choose_precision, describe
from cifar100.network.onednn import binding
from cifar100.network.resnet import ResNetConfig
from cifar100.running.errors import PipelineError
from tests.engine import some_images, some_network

FILE = binding.FILES[0]
VERSION = """
typedef struct {{ int major, minor, patch; const char *hash; unsigned runtime; }} version;
static version it = {{{major}, 4, 2, "", {runtime}}};
const version *{function}(void) {{ return &it; }}
"""


def stub(folder, function="dnnl_version", major=3, runtime=2) -> None:
    """Compile a library that has a version and nothing else."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc to compile a library with")
    source = folder / "stub.c"
    source.write_text(VERSION.format(function=function, major=major, runtime=runtime))
    command = ["gcc", "-shared", "-fPIC", "-o", folder / FILE, source]
    subprocess.run(command, check=True)


def test_no_library_is_a_reason(tmp_path):
    assert binding.load(tmp_path) == (None, "this build of Paddle has no oneDNN for its CPU")
    (tmp_path / FILE).mkdir()
    assert binding.load(tmp_path) == (None, "this build of Paddle has no oneDNN for its CPU")


@pytest.mark.parametrize("content", [b"", b"this is no library\n" * 100, b"\x7fELF" + bytes(100)])
def test_file_that_is_no_library_is_a_reason_of_one_line(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    found, reason = binding.load(tmp_path)
    assert found is None
    assert reason.startswith(f"{FILE} cannot be loaded (")
    assert "\n" not in reason


@pytest.mark.parametrize(("major", "runtime"), [(2, 2), (4, 2), (3, 1), (3, 4)])
def test_other_versions_and_threads_are_a_reason(tmp_path, major, runtime):
    """The interface of another major version differs; without OpenMP threads would be others."""
    stub(tmp_path, major=major, runtime=runtime)
    reason = f"{FILE} is oneDNN {major}.4.2; 3.x with OpenMP is needed"
    assert binding.load(tmp_path) == (None, reason)


@pytest.mark.parametrize("function", ["other_version", "dnnl_version"])
def test_binding_without_the_functions_that_are_needed_is_a_reason(tmp_path, function):
    stub(tmp_path, function=function)
    found, reason = binding.load(tmp_path)
    assert found is None
    assert reason.startswith(f"{FILE} cannot be loaded (")
    assert "\n" not in reason


@pytest.mark.skipif(not onednn.available(), reason=onednn.description())
def test_binding_of_paddle_is_described():
    assert onednn.description().startswith("oneDNN 3.")
    assert onednn.instruction_set()
    found = describe("cpu", "float32", 2)
    assert found["library"] == onednn.description()
    assert found["instruction_set"] == onednn.instruction_set()
    assert found["threads"] == 2


@pytest.mark.skipif(not onednn.available(), reason=onednn.description())
def test_without_the_library_paddles_layers_give_the_same_logits(monkeypatch):
    config, images, logits = ResNetConfig(20, 4), some_images(3, 32, 32), []
    for found in (binding._library, None):
        monkeypatch.setattr(binding, "_library", found)
        network = some_network(config)
        network.eval()
        assert (network.engine is None) == (found is None)
        with paddle.no_grad():
            logits.append(network(images).numpy())
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-4)


def test_without_the_library_the_start_says_so(tmp_path, monkeypatch):
    found, reason = binding.load(tmp_path)
    monkeypatch.setattr(binding, "_library", found)
    monkeypatch.setattr(binding, "_found", reason)
    assert choose_precision("auto", "cpu") == "float32"
    assert choose_precision("float32", "cpu") == "float32"
    assert describe("cpu", "float32", 2) == {
        "device": "cpu",
        "precision": "float32",
        "threads": 2,
        "instruction_set": "",
        "library": "Paddle's own layers, because this build of Paddle has no oneDNN for its CPU",
    }
    with pytest.raises(
        PipelineError, match=r"precision: bfloat16 .* it needs oneDNN, and here are"
    ):
        choose_precision("bfloat16", "cpu")
