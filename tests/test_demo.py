"""`make demo` has to show that learning works, and leave mistakes to look at."""

import json
import subprocess

import pytest

from tests.conftest import ROOT, clone_working_tree


@pytest.mark.slow
def test_demo_learns_most_and_leaves_mistakes(tmp_path):
    recipe = subprocess.check_output(["make", "--dry-run", "demo"], cwd=ROOT, text=True)
    (line,) = [line for line in recipe.splitlines() if "dvc exp run" in line]
    workspace = clone_working_tree(tmp_path / "repository")
    workspace.run("bash", "-c", line[line.index("dvc exp run") :])
    assert 0.8 <= json.loads(workspace.read("reports/metrics.json"))["top1"] <= 0.95
