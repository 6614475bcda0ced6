"""A stage that cannot even be imported leaves the results of the last good run."""

import sys

from tests.conftest import RESULTS


def test_results_are_there_after_a_stage_that_cannot_be_imported(workspace):
    names = [*RESULTS, "reports/figures/class_accuracy.png"]
    before = {name: workspace.read(name) for name in names}
    source = workspace.path / "stages/render/charts.py"
    source.write_text("import no_such_package\n", encoding="utf-8")
    assert "No module named 'no_such_package'" in workspace.run("dvc", "repro", ok=False)
    assert {name: workspace.read(name) for name in names} == before


def test_guard_needs_no_package_that_has_to_be_installed(workspace):
    """-S leaves out all that is not Python's own, -I what the environment adds."""
    program = "import sys; sys.path.insert(0, '.'); import cifar100.running.guard, stages.train"
    workspace.run(sys.executable, "-I", "-S", "-c", program)
