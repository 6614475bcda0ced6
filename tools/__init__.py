"""What people type that is no stage of the pipeline, each as `python -m tools.NAME`."""

import sys

from cifar100.running.environment import clear_environment, end_with_the_reader

if sys.argv[0] == "-m":  # and is not imported by something else
    clear_environment()  # before NumPy, Paddle or matplotlib are imported
    end_with_the_reader()
