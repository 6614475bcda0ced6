"""The engine with the kernels of lesser CPUs than this one: the tests of the engine, run again."""

import os
import subprocess
import sys

import pytest

from cifar100.network import onednn
from tests.conftest import ROOT

# The values of ONEDNN_MAX_CPU_ISA, with the names that the engine gives them
LIMITS = {
    "AVX2": "AVX2",
    "AVX512_CORE": "AVX-512",
    "AVX512_CORE_BF16": "AVX-512 bfloat16",
}
WORST_FIRST = ["SSE4.1", *LIMITS.values(), "AMX bfloat16"]
TESTS = ["tests/test_onednn.py", "tests/test_trunk.py"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("limit", LIMITS)
def test_engine_computes_the_same_with_the_kernels_of_a_lesser_cpu(limit):
    own, name = onednn.instruction_set(), LIMITS[limit]
    if own not in WORST_FIRST or WORST_FIRST.index(own) <= WORST_FIRST.index(name):
        pytest.skip(f"this CPU has {own or 'no oneDNN'}: {name} is not less")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *TESTS],
        cwd=ROOT,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": limit},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
