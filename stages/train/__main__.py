"""`python stages/train`, or `python -m stages.train`: the stage, under a guard.

DVC runs the first one, which starts where PYTHONSAFEPATH is set too. The guard needs no package.
"""

import os
import sys

# To the root of the repository, where Python has put this folder
sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cifar100.running.guard import run_stage

if __name__ == "__main__":
    if os.environ.get("CIFAR100_MACHINES"):
        run_stage("train", "stages.train.launch", seconds_to_end=60)  # the launcher takes up to 40
    else:
        run_stage("train", "stages.train.main")
