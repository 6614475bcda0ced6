"""Chooses the device: a GPU where Paddle can use one, else the CPU."""

import paddle

from stages.running.errors import PipelineError


def gpu_count() -> int:
    """How many GPUs this Paddle can use; 0 for a CPU wheel."""
    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def choose_device(wanted: str) -> str:
    """`auto`, `cpu` or `gpu` to `cpu` or `gpu`; `PipelineError` if there is no GPU to use."""
    gpus = gpu_count()
    if wanted == "gpu" and gpus == 0:
        reason = (
            "Paddle finds no GPU"
            if paddle.is_compiled_with_cuda()
            else "this Paddle is built for the CPU (`make setup PADDLE=gpu` installs the other)"
        )
        raise PipelineError(f"params.yaml: device: gpu was asked for, but {reason}; or give auto")
    return "gpu" if gpus and wanted != "cpu" else "cpu"


def make_reproducible() -> None:
    """Have cuDNN choose deterministic algorithms; the CPU's are."""
    if paddle.is_compiled_with_cuda():
        paddle.set_flags(
            {"FLAGS_cudnn_deterministic": True, "FLAGS_cudnn_exhaustive_search": False}
        )
