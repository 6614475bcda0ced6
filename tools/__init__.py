"""What people type that is no stage of the pipeline, each as `python -m tools.NAME`."""

import sys

from cifar100.command import prepare_command

if sys.argv[0] == "-m":  # and is not imported by something else
    prepare_command("tools")
