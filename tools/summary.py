"""Prints the layers of a network: `python -m tools.summary --depth 50 --width 64`."""

import argparse

import pandas as pd

from cifar100.running import cpu
from cifar100.running.guard import run_command


def to_text(table: pd.DataFrame) -> str:
    """The table for a terminal, with thousands separators."""
    return table.to_string(index=False, formatters=dict.fromkeys(table.columns[2:], "{:,}".format))


def main() -> None:
    """Print the summary of the network that the options describe."""
    cpu.prepare(threads=1)
    # Paddle reads the environment when it is imported, so all that imports it comes after that.
    import paddle

    from cifar100.network.resnet import BLOCKS_PER_GROUP, ResNet, ResNetConfig
    from stages.train.summary import summarise

    parser = argparse.ArgumentParser(prog="python -m tools.summary", description=__doc__)
    parser.add_argument("--depth", type=int, choices=BLOCKS_PER_GROUP, default=18)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--stem", choices=("cifar", "imagenet"), default="cifar")
    options = parser.parse_args()
    if options.width < 1:
        parser.error("argument --width: expected a whole number of at least 1")
    paddle.set_device("cpu")  # no GPU is needed, and it may be another one's
    print(to_text(summarise(ResNet(ResNetConfig(options.depth, options.width, options.stem)))))


if __name__ == "__main__":
    run_command("summary", main)
