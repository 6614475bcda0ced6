"""How long the stages beside train take on the real data, in a copy of the workspace."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.workspace import copy_pipeline, run
from tools.verify import local_archive

MODELS = Path("models")
HISTORY = Path("reports/history.csv")


def stage_seconds() -> dict[str, float]:
    """Seconds of each stage's command, its start included; {} without a copy of the archive.

    The archive is the one that CIFAR100_ARCHIVE names, or the downloaded one: a download would
    measure the network. What the other stages need of a training comes from models/ and reports/.
    """
    archive = local_archive()
    if archive is None:
        print("no stages measured: set CIFAR100_ARCHIVE to a copy of the archive")
        return {}
    stages = ["download", "preprocess"]
    if (MODELS / "model.safetensors").is_file() and HISTORY.is_file():
        stages += ["evaluate", "render", "export"]
    else:
        print("the others not measured: models/ holds no trained network (`make repro`)")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        copy_pipeline(workspace)
        if "evaluate" in stages:
            shutil.copytree(MODELS, workspace / MODELS)
            (workspace / "reports").mkdir()
            shutil.copy(HISTORY, workspace / HISTORY)
        os.environ["CIFAR100_ARCHIVE"] = str(archive)
        for stage in stages:
            started = time.perf_counter()
            run([sys.executable, "-m", f"stages.{stage}"], workspace)
            seconds[stage] = round(time.perf_counter() - started, 2)
            print(f"{stage}: {seconds[stage]:.1f} s", flush=True)
    return seconds
