"""What Paddle's launcher starts on each machine: the stage, as one process of several.

Only this file takes the launcher's variables for its own. `python -m stages.train` forgets them,
so those that another job has left in a shell change nothing.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.train.rendezvous import Place

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # was the folder of this file, which the launcher runs by its path

from cifar100.running.cpu import available_cores  # noqa: E402
from cifar100.running.environment import clear_environment  # noqa: E402
from cifar100.running.guard import run_command  # noqa: E402


def main() -> None:
    """Train in the group of all processes of the launch."""
    from stages.train.launch import end_with_parent
    from stages.train.rendezvous import Place, Watch

    end_with_parent()
    os.chdir(ROOT)
    place = Place.from_environment()
    delete_environment_files(place)
    clear_environment()
    take_own_cores(*place.local)
    watch = Watch(place)
    watch.run(lambda: importlib.import_module("stages.train.main").main(watch))


def delete_environment_files(place: "Place") -> None:
    """Delete the files in which the launcher has written down the whole environment."""
    if place.logs is not None:
        rank, local = place.rank, place.local[0]
        for pattern in (f"backup_env.{rank}.json", f"envlog.{local}", f"*.{place.pod}.log"):
            for path in place.logs.glob(pattern):
                path.unlink(missing_ok=True)


def take_own_cores(local_rank: int, local_size: int) -> None:
    """Leave the other processes on this machine their share of its cores."""
    cores = available_cores()[local_rank::local_size]
    if local_size > 1 and cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    run_command("train", main)
