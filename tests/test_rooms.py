"""What a change of the code makes DVC run again, in a finished pipeline."""

import re
import sys

import pytest


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def append(workspace, name: str, line: str) -> None:
    with (workspace.path / name).open("a", encoding="utf-8") as file:
        file.write(line)


def test_change_of_the_download_runs_it_alone_if_the_archive_is_the_same(workspace):
    append(workspace, "stages/download/sources.py", "\nATTEMPTS_MORE = 1\n")
    assert stages_run(workspace.run("dvc", "repro")) == ["download"]


@pytest.mark.slow
def test_correction_of_prose_in_the_network_runs_nothing_after_recommit(workspace):
    append(workspace, "cifar100/network/resnet.py", "\n# Words.\n")
    output = workspace.run(sys.executable, "-m", "tools.recommit")
    for stage in ("train", "evaluate", "export"):
        assert f"recommit: {stage}: cifar100/network/resnet.py: the same program" in output
    assert stages_run(workspace.run("dvc", "repro")) == []
    workspace.commit("Correct the prose")
    append(workspace, "cifar100/network/resnet.py", "\nNUMBER = 1\n")
    refusal = workspace.run(sys.executable, "-m", "tools.recommit", ok=False)
    assert "resnet.py: not the same program" in refusal
