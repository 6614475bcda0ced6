"""Runs a stage or a tool and says what it computed before it chose the CPU: on a GPU that would be.

`python -m tests.first_device MODULE` calls `MODULE.main`, and prints as JSON the names and how it
ended: empty, or the message of a `PipelineError`.
"""

import importlib
import json
import sys
from typing import Any

from cifar100.running import cpu
from cifar100.running.errors import PipelineError

cpu.prepare(threads=1)

import paddle  # noqa: E402


def main() -> None:
    """Compute without a choice: what a test expects to be noticed."""
    paddle.zeros([1])
    paddle.to_tensor([1.0])
    paddle.set_device("cpu")
    paddle.ones([1])


def computed_first(module: str) -> tuple[list[str], str]:
    """The operators and uploads of `module.main` before it sets the device to the CPU."""
    found: list[str] = []
    message = ""
    is_on_cpu = False

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal is_on_cpu
        name = frame.f_code.co_name
        if event == "call" and name == "set_device":
            is_on_cpu |= frame.f_locals["device"] == "cpu"
        elif event == "call" and name == "to_tensor" and not is_on_cpu:
            found.append(name)
        elif event == "c_call" and not is_on_cpu:
            owner = getattr(argument, "__self__", None)
            if getattr(owner, "__name__", "").endswith(".ops"):  # of Paddle's C extension
                found.append(argument.__name__)

    sys.argv[1:] = []
    run = importlib.import_module(module).main
    sys.setprofile(note)
    try:
        run()
    except PipelineError as error:
        message = str(error)
    finally:
        sys.setprofile(None)
    assert is_on_cpu
    return found, message


if __name__ == "__main__":
    result = computed_first(sys.argv[1])
    print(json.dumps(result))
