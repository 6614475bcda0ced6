"""The same bytes again, from the same threads, whatever the caller's shell holds."""

import json
import os
import sys

import pytest

from cifar100.network import onednn
from tests.engine import PRECISIONS, run_apart

pytestmark = [
    pytest.mark.skipif(not onednn.available(), reason=onednn.description()),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

# What a shell may hold for other programs; each of them changes what threads do, or what is added
# up in which order.
HOSTILE = {
    "OMP_NUM_THREADS": "7",
    "OMP_PROC_BIND": "true",
    "OMP_PLACES": "cores",
    "OMP_DYNAMIC": "true",
    "OMP_THREAD_LIMIT": "1",
    "OMP_DISPLAY_ENV": "true",
    "GOMP_CPU_AFFINITY": "0",
    "KMP_AFFINITY": "verbose,granularity=fine,compact",
    "KMP_BLOCKTIME": "0",
    "KMP_HW_SUBSET": "1c",
    "KMP_ALL_THREADS": "1",
    "MKL_NUM_THREADS": "5",
    "MKL_DYNAMIC": "TRUE",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_VERBOSE": "1",
    "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
    "DNNL_DEFAULT_FPMATH_MODE": "BF16",
    "PADDLE_TRAINER_ID": "1",
    "PADDLE_TRAINERS_NUM": "2",
    "PADDLE_MASTER": "192.0.2.1:6070",
    "PADDLE_TRAINER_ENDPOINTS": "192.0.2.1:6070,192.0.2.2:6070",
    "PADDLE_CURRENT_ENDPOINT": "192.0.2.2:6070",
    "PADDLE_DISTRI_BACKEND": "nccl",
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "6070",
    "ONEDNN_VERBOSE": "all",
    "OPENBLAS_NUM_THREADS": "3",
    "FLAGS_use_mkldnn": "1",
    "FLAGS_check_nan_inf": "1",
    "GLOO_SOCKET_IFNAME": "ib0",
    "MALLOC_PERTURB_": "165",
    "MALLOC_ARENA_MAX": "1",
    "PYTHONHASHSEED": "7",
    "PYTHONOPTIMIZE": "1",
    "LC_ALL": "tr_TR.UTF-8",
    "TZ": "Asia/Kathmandu",
    "TMPDIR": "/nowhere",
}


def found_with(threads: int, **environment: str) -> dict:
    """Digests, threads and cores of a process that uses so many threads; it writes no warning."""
    return json.loads(run_apart("digests", threads, **environment))


@pytest.fixture(scope="module")
def found() -> dict[int, dict]:
    """What processes with 1 and with 2 threads find."""
    return {threads: found_with(threads) for threads in (1, 2)}


@pytest.mark.parametrize("threads", [1, 2])
def test_second_run_gives_the_same_bytes(found, threads):
    assert found_with(threads) == found[threads]
    assert found[threads]["threads"] == threads
    assert len({found[threads][name] for name in ("logits", *PRECISIONS)}) == 1 + len(PRECISIONS)


def test_variables_of_the_caller_do_not_reach_the_result(found):
    """Neither the bytes nor how many threads there are, nor the cores that they may use."""
    assert found[2]["cores"] == [sorted(os.sched_getaffinity(0))]
    assert found_with(2, **HOSTILE) == found[2]


def test_logits_in_float32_do_not_depend_on_the_number_of_threads(found):
    assert found[1]["logits"] == found[2]["logits"]
