import os
import sys

import paddle
import pytest

from cifar100.network.device import choose_device
from cifar100.running import cpu
from cifar100.running.errors import PipelineError


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", "fpu avx2 fma avx512f avx512bw avx512dq avx512vl", "7"),
        ("AuthenticAMD", "fpu avx2 fma", "5"),
        ("AuthenticAMD", "fpu sse2", None),
        ("GenuineIntel", "fpu avx2 fma avx512f avx512bw avx512dq avx512vl", None),
    ],
)
def test_blas_code_path_follows_vendor_and_flags(tmp_path, vendor, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    block = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n"
    cpuinfo.write_text(block + block.replace("processor\t: 0", "processor\t: 1"))
    assert cpu.blas_code_path(cpuinfo) == expected


def test_blas_code_path_is_left_alone_without_cpuinfo(tmp_path):
    assert cpu.blas_code_path(tmp_path / "absent") is None


def test_code_path_chosen_by_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cpu.prepare(threads=1)
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "4"
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="affinity is set on Linux only")
def test_workers_get_equal_shares_of_the_cores(monkeypatch):
    given = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 8})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: given.append(cores))
    cpu.pin(0, 2)
    cpu.pin(1, 2)
    assert given == [[2, 3], [5, 7]]


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this Paddle can use GPUs")
def test_gpu_without_a_gpu_build_is_refused():
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(PipelineError, match=r"device: gpu was asked for, .* PADDLE=gpu"):
        choose_device("gpu")
