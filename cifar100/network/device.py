"""Chooses where and in which precision to compute, and says what was chosen."""

import paddle

from cifar100.network import onednn
from cifar100.running import cpu
from cifar100.running.errors import PipelineError


def gpu_count() -> int:
    """How many GPUs this Paddle can use; 0 for a CPU wheel."""
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def why_no_gpu() -> str:
    """Why `gpu_count` is 0."""
    if paddle.is_compiled_with_cuda():
        return "Paddle finds no GPU"
    return "this Paddle is built for the CPU (`make setup PADDLE=gpu` installs the other)"


def gpu_precisions() -> set[str]:
    """The precisions that the GPU computes in."""
    is_supported = {
        "float32": True,
        "float16": paddle.amp.is_float16_supported(),
        "bfloat16": paddle.amp.is_bfloat16_supported(),
    }
    return {name for name, supported in is_supported.items() if supported}


def choose_device(wanted: str) -> str:
    """`auto`, `cpu` or `gpu` to `cpu` or `gpu`; `PipelineError` if there is no GPU to use."""
    gpus = gpu_count()
    if wanted == "gpu" and gpus == 0:
        raise PipelineError(
            f"params.yaml: device: gpu was asked for, but {why_no_gpu()}; or give auto"
        )
    return "gpu" if gpus and wanted != "cpu" else "cpu"


def choose_precision(wanted: str, device: str) -> str:
    """`auto` to what was measured to be fastest on this device; else what is wanted.

    On a CPU bfloat16 is 2.4 to 3 times as fast as float32 with AMX, and 1.6 to 2 times with the
    AVX-512 of AMD (Zen 4); with that of Intel it is slower. Raises `PipelineError` for a precision
    that the device has not.
    """
    if device == "gpu":
        supported = gpu_precisions()
        if wanted == "auto":
            return "float16" if "float16" in supported else "float32"
        if wanted not in supported:
            raise PipelineError(
                f"params.yaml: precision: {wanted} was asked for, but this GPU has none; give "
                "auto or float32"
            )
        return wanted
    instructions = onednn.instruction_set()
    if wanted == "auto":
        fast = ["AMX bfloat16"] if cpu.vendor() != cpu.AMD else ["AMX bfloat16", "AVX-512 bfloat16"]
        return "bfloat16" if instructions in fast else "float32"
    reason = {
        "float16": "this training runs on a CPU; give auto, or float16 on a GPU",
        "bfloat16": f"this CPU has no instructions for it ({instructions}); give auto or float32"
        if onednn.available()
        else f"it needs oneDNN, and here are {onednn.description()}; give auto or float32",
    }
    if wanted == "float16" or (wanted == "bfloat16" and "bfloat16" not in instructions):
        raise PipelineError(f"params.yaml: precision: {wanted} was asked for, but {reason[wanted]}")
    return wanted


def describe(device: str, precision: str, threads: int) -> dict[str, str | int]:
    """What computes, as it is printed and stored: the bytes of a model depend on all of it."""
    if device == "cpu":
        instructions, library = onednn.instruction_set(), onednn.description()
    else:
        instructions = paddle.device.cuda.get_device_name()
        library = f"CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}"
    return {
        "device": device,
        "precision": precision,
        "threads": threads,
        "instruction_set": instructions,
        "library": library,
    }


def gpu_flags(precision: str) -> dict[str, bool]:
    """Flags of Paddle for a GPU that computes in this precision.

    Deterministic algorithms of cuDNN. For float16 also the batch norm that takes maps (N, H, W, C)
    as they are: other precisions are transposed to (N, C, H, W), for which it is inexact.
    """
    return {
        "FLAGS_cudnn_deterministic": True,
        "FLAGS_cudnn_exhaustive_search": False,
        "FLAGS_cudnn_batchnorm_spatial_persistent": precision == "float16",
    }


def make_reproducible(precision: str = "float32") -> None:
    """Set the flags for this precision, before the first tensor; CPUs need none."""
    if paddle.is_compiled_with_cuda():
        paddle.set_flags(gpu_flags(precision))
