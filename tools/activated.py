"""Copied into the environment by `make`, where Python imports it at each start.

`.venv/bin/dvc repro` then starts the Python of the environment, activated or not, and a shell that
can run a command: without these DVC would delete the outputs of a stage and fail to start it.
"""

import os
import sys

SHELLS = ("sh", "dash", "ash", "busybox", "bash", "ksh", "mksh", "zsh", "fish")

folder = os.path.dirname(sys.executable)
path = os.environ.get("PATH", os.defpath)
if path.split(os.pathsep)[0] != folder:
    os.environ["PATH"] = folder + os.pathsep + path
shell = os.environ.get("SHELL", "")
if os.path.basename(shell) not in SHELLS or not os.access(shell, os.X_OK):
    os.environ.pop("SHELL", None)  # DVC takes /bin/sh then
