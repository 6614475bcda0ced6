"""Training speed of PyTorch: `python -m benchmarks.run_pytorch --network … --layout eager`."""

import time

import torch
import torch.nn.functional as F

from benchmarks.runner import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    random_inputs,
    report,
    runner_options,
)
from benchmarks.torch_resnet import torch_resnet
from cifar100.running import cpu

LAYOUTS = {"eager": torch.contiguous_format, "channels-last": torch.channels_last}


def main() -> None:
    """Time steps on all cores with images that are ready in memory."""
    parser = runner_options(__doc__)
    parser.add_argument("--layout", choices=LAYOUTS, default="eager")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="under torch.compile; needs g++")
    options = parser.parse_args()
    threads = len(cpu.available_cores())
    torch.set_num_threads(threads)
    layout = LAYOUTS[options.layout]
    network = torch_resnet(*options.network).to(memory_format=layout)
    optimizer = torch.optim.SGD(
        network.parameters(),
        LEARNING_RATE,
        MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
    )
    forward = torch.compile(network) if options.compile else network
    images, labels = map(torch.from_numpy, random_inputs(BATCH_SIZE))
    images = images.to(memory_format=layout)
    for step in range(options.warmup + options.steps):
        if step == options.warmup:  # by now everything is compiled
            started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = F.cross_entropy(forward(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - started
    report(
        images_per_second=options.steps * BATCH_SIZE / seconds,
        precision=options.precision,
        threads=threads,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
