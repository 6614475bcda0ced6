"""`python -m stages.train`: the stage, under a guard that needs no other package."""

import os

from cifar100.running.guard import run_stage

if __name__ == "__main__":
    several = "CIFAR100_MACHINES" in os.environ
    run_stage("train", "stages.train.launch" if several else "stages.train.main")
