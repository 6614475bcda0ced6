"""What a speed depends on beside the code: the CPU's name, its instruction set, its memory.

Only the standard library, so that the runners of PyTorch can import it.
"""

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# From the fastest for matrix products in bfloat16 down; oneDNN needs all flags of a line.
INSTRUCTION_SETS = {
    "AMX bfloat16": {"amx_tile", "amx_bf16"},
    "AVX-512 bfloat16": {"avx512_bf16"},
    "AVX-512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "AVX2": {"avx2", "fma"},
}


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, with family and model number, as virtual machines shorten the name."""
    fields = cpu_fields(cpuinfo)
    if not fields:
        return platform.processor()
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def instruction_set(cpuinfo: Path = CPUINFO) -> str:
    """The best of `INSTRUCTION_SETS` that the processor has, else the name of its architecture."""
    flags = set(cpu_fields(cpuinfo).get("flags", "").split())
    found = (name for name, needed in INSTRUCTION_SETS.items() if needed <= flags)
    return next(found, platform.machine())


def precision_of_peer(cpuinfo: Path = CPUINFO) -> str:
    """In which precision PyTorch's steps take less time here, as measured (docs/performance.md)."""
    instructions, vendor = instruction_set(cpuinfo), cpu_fields(cpuinfo).get("vendor_id")
    with_avx512 = instructions == "AVX-512 bfloat16" and vendor == "AuthenticAMD"
    return "bfloat16" if with_avx512 or instructions == "AMX bfloat16" else "float32"


def cpu_fields(cpuinfo: Path) -> dict[str, str]:
    """What the file says of one core, by its own names; {} where there is no such file."""
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}


def memory_gib() -> float:
    """The machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
