"""Prints which network a second machine needs, from the measured speeds of one: a calculation.

`python -m benchmarks.bandwidth` takes the speeds of results.json, and
`python -m benchmarks.bandwidth resnet18-w64=191` others. docs/scale.md explains the columns.
"""

import argparse
import json
from pathlib import Path

from benchmarks.runner import BATCH_SIZE, depth_and_width, positive
from cifar100.running import cpu

RESULTS = Path(__file__).with_name("results.json")
BYTES = 4  # of a gradient: float32 always
LINKS = (1, 10, 25)  # Gbit/s
MACHINES = 2


def bytes_per_step(parameters: int, machines: int) -> float:
    """What each machine sends in a step, and receives: a ring's all-reduce of all gradients."""
    return BYTES * parameters * 2 * (machines - 1) / machines


def speed_up(seconds: float, parameters: int, machines: int, gigabits: float) -> float:
    """How many times as fast as one, with a step of `seconds` shared out over the machines.

    They exchange after the backward pass, over links of so many Gbit/s in each direction.
    """
    exchange = bytes_per_step(parameters, machines) * 8 / (gigabits * 1e9)
    return seconds / (seconds / machines + exchange)


def needed_gigabits(seconds: float, parameters: int, machines: int, efficiency: float) -> float:
    """The bandwidth at which the speed-up is this share of the number of machines."""
    exchange = seconds / machines * (1 / efficiency - 1)
    return bytes_per_step(parameters, machines) * 8 / exchange / 1e9


def parameters_of(network: str) -> int:
    """How many weights the network trains."""
    from cifar100.network.resnet import ResNet, ResNetConfig
    from stages.train.summary import summarise

    return int(summarise(ResNet(ResNetConfig(*depth_and_width(network))))["parameters"].iloc[-1])


def table(speeds: dict[str, float], batch: int) -> list[str]:
    """The lines of a Markdown table, of networks and their images per second on one machine."""
    links = [f"speed-up at {link} Gbit/s" for link in LINKS]
    head = ["network", "images/s", "step, ms", "MB per step", "pays from, Gbit/s", "90 % from"]
    rows = [head + links, ["---"] * (len(head) + len(links))]
    for network, speed in speeds.items():
        parameters, seconds = parameters_of(network), batch / speed
        needs = (needed_gigabits(seconds, parameters, MACHINES, e) for e in (1 / MACHINES, 0.9))
        megabytes = bytes_per_step(parameters, MACHINES) / 1e6
        rows.append(
            [network, f"{speed:,.4g}", f"{1000 * seconds:,.0f}", f"{megabytes:.1f}"]
            + [f"{need:.2g}" for need in needs]
            + [f"{speed_up(seconds, parameters, MACHINES, link):.2f}" for link in LINKS]
        )
    return ["| " + " | ".join(row) + " |" for row in rows]


def speed_of(text: str) -> tuple[str, float]:
    """`resnet18-w64=191` to its parts; `ValueError` for anything else."""
    network, speed = text.split("=")
    depth_and_width(network)
    if float(speed) <= 0:
        raise ValueError(f"{speed} images per second")
    return network, float(speed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("speeds", nargs="*", type=speed_of, help="network=images per second")
    parser.add_argument("--batch", type=positive, default=BATCH_SIZE, help="images per step")
    options = parser.parse_args()
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))["throughput"]
    speeds = dict(options.speeds) or {
        row["network"]: row["images_per_second"]["median"]
        for row in measured
        if row["runner"] == "project"
    }
    cpu.prepare(1)
    print("\n".join(table(speeds, options.batch)))


if __name__ == "__main__":
    main()
