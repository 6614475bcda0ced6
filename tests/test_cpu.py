"""What the process learns of its CPU: vendor, cores, threads, the variables for its libraries."""

import os
import platform

import pytest

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


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
def test_vendor_is_that_of_the_processor(tmp_path, monkeypatch, vendor):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: of it: AMD\n\n")
    assert cpu.vendor(cpuinfo) == vendor
    windows = f"AMD64 Family 25 Model 17 Stepping 1, {vendor}"
    monkeypatch.setattr(platform, "processor", lambda: windows)
    assert cpu.vendor(tmp_path / "absent") == vendor


def test_vendor_of_a_processor_that_names_none_is_empty(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n")
    assert cpu.vendor(cpuinfo) == ""
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert cpu.vendor(tmp_path / "absent") != cpu.AMD


def test_variables_that_change_threads_or_arithmetic_are_replaced(monkeypatch):
    """Others stay as they are: this one limits the instruction set, for tests and comparisons."""
    monkeypatch.setattr(os, "environ", {"OMP_PROC_BIND": "true", "MKL_CBWR": "AUTO", "HOME": "/"})
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "3")
    monkeypatch.setitem(os.environ, "ONEDNN_MAX_CPU_ISA", "AVX2")
    cpu.prepare(threads=1)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert os.environ["HOME"] == "/"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # of cuBLAS' two reproducible ones
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert not {"OMP_PROC_BIND", "MKL_CBWR"} & set(os.environ)


def test_auto_is_one_thread_per_core_that_may_be_used(monkeypatch):
    monkeypatch.setattr(cpu, "available_cores", lambda: [2, 3, 5])
    assert cpu.choose_threads("auto") == 3
    assert [cpu.choose_threads(wanted) for wanted in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(PipelineError, match=r"threads: 4 was asked for, but there are 3 cores"):
        cpu.choose_threads(4)


# What /proc/self/cgroup and /proc/self/mountinfo hold, the files of the control groups, the cores.
V1 = "21 1 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "22 1 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V2 = "30 1 0:3 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"
HYBRID = V1 + "31 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
CPU = "sys/fs/cgroup/cpu,cpuacct/"
QUOTAS = {
    "version 2, a container": ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, no limit": ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    "version 2, a nested group": (
        "0::/user.slice/job.scope\n",
        V2,
        {
            "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/job.scope/cpu.max": "200000 100000\n",
        },
        2,
    ),
    "version 2, a group above has less": (
        "0::/a/b/c\n",
        V2,
        {
            "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/a/b/c/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/other/cpu.max": "10000 100000\n",
        },
        0.5,
    ),
    "version 2, a part of the tree is mounted": (
        "0::/docker/abc/inner\n",
        V2.replace(" / /sys", " /docker/abc /sys"),
        {"sys/fs/cgroup/inner/cpu.max": "300000 100000\n"},
        3,
    ),
    "version 1": (
        "4:cpu,cpuacct:/\n3:memory:/\n",
        V1 + MEMORY,
        {CPU + "cpu.cfs_quota_us": "250000\n", CPU + "cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "version 1, no limit": (
        "4:cpu,cpuacct:/\n",
        V1,
        {CPU + "cpu.cfs_quota_us": "-1\n", CPU + "cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "version 1, a nested group": (
        "4:cpu,cpuacct:/docker/abc\n",
        V1,
        {
            CPU + "docker/abc/cpu.cfs_quota_us": "100000\n",
            CPU + "docker/abc/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 1, a name from outside of the container": (
        "4:cpu,cpuacct:/docker/abc\n",
        V1.replace(" / /sys", " /docker/abc /sys"),
        {CPU + "cpu.cfs_quota_us": "200000\n", CPU + "cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "both versions": (
        "4:cpu,cpuacct:/a\n0::/a\n",
        HYBRID,
        {CPU + "a/cpu.cfs_quota_us": "300000\n", CPU + "a/cpu.cfs_period_us": "100000\n"},
        3,
    ),
    "only the memory is limited": ("3:memory:/a\n", V1 + MEMORY, {}, None),
    "words that make no sense": (
        "x\n::\n0::/\n",
        "a - b\n" + V2,
        {"sys/fs/cgroup/cpu.max": "?"},
        None,
    ),
    "a period of nothing": ("0::/\n", V2, {"sys/fs/cgroup/cpu.max": "5 0\n"}, None),
    "nothing": (None, None, {}, None),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_quota_of_control_groups_is_read(tmp_path, case):
    names, mounts, files, quota = QUOTAS[case]
    for name, content in {
        "proc/self/cgroup": names,
        "proc/self/mountinfo": mounts,
        **files,
    }.items():
        if content is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    assert cpu.core_quota(tmp_path) == quota


def test_quota_and_affinity_limit_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 8, 9})
    for quota, cores in ((None, 4), (0.5, 1), (1.5, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(cpu, "core_quota", lambda quota=quota: quota)
        assert cpu.available_cores() == [3, 5, 8, 9][:cores]
