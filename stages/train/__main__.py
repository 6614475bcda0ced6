"""`python -m stages.train`: the stage, under a guard that needs no other package."""

import os

from cifar100.running.guard import run_stage

if __name__ == "__main__":
    several = os.environ.get("CIFAR100_MACHINES")
    run_stage("train", "stages.train.launch" if several else "stages.train.main")
