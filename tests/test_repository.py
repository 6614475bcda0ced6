"""Wherever people keep a repository, and however they got it, it works, or one line says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Workspace, clone_working_tree

OTHER_USER = 65534


@pytest.fixture(scope="module")
def unrun(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A repository without results of its own. Copy it; do not change it."""
    return clone_working_tree(tmp_path_factory.mktemp("unrun") / "repository")


def tool(place: Path, name: str, *options: str, ok: bool = True, **environment: str) -> str:
    command = [sys.executable, "-m", f"tools.{name}", *options]
    return Workspace(place).run(*command, ok=ok, **environment)


def in_a_larger_one(unrun: Workspace, folder: Path) -> Path:
    larger = Workspace(folder / "larger")
    project = larger.path / "deep/my project"
    shutil.copytree(unrun.path, project, ignore=shutil.ignore_patterns(".git"))
    larger.run("git", "init", "--quiet")
    larger.run("git", "config", "user.name", "Test")
    larger.run("git", "config", "user.email", "test@example.org")
    larger.commit("Start")
    return project


def worktree(unrun: Workspace, folder: Path) -> Path:
    main = unrun.copy(folder / "main")
    main.run("git", "worktree", "add", "--quiet", str(folder / "worktree"))
    return folder / "worktree"


def shallow(unrun: Workspace, folder: Path) -> Path:
    source = unrun.copy(folder / "source")
    source.run("git", "commit", "--quiet", "--allow-empty", "--message", "One more")
    url = f"file://{source.path}"
    source.run("git", "clone", "--quiet", "--depth", "1", url, str(folder / "shallow"))
    return folder / "shallow"


def detached(unrun: Workspace, folder: Path) -> Path:
    copy = unrun.copy(folder / "detached")
    copy.run("git", "checkout", "--quiet", "--detach")
    return copy.path


def windows_line_ends(unrun: Workspace, folder: Path) -> Path:
    source, target = str(unrun.path), folder / "clone"
    unrun.run("git", "clone", "--quiet", "-c", "core.autocrlf=true", source, str(target))
    return target


def with_a_strange_name(unrun: Workspace, folder: Path) -> Path:
    return unrun.copy(folder / """it's a "größe" $HOME [x] ☃ #1""").path


def with_a_long_name(unrun: Workspace, folder: Path) -> Path:
    return unrun.copy(folder / ("y" * 200) / ("z" * 200)).path


def unpacked(unrun: Workspace, folder: Path) -> Path:
    shutil.copytree(unrun.path, folder / "zip", ignore=shutil.ignore_patterns(".git"))
    return folder / "zip"


PLACES = [
    *(in_a_larger_one, worktree, shallow, detached, windows_line_ends, unpacked),
    *(with_a_strange_name, with_a_long_name),
]


QUICKLY = (in_a_larger_one, windows_line_ends, unpacked, with_a_strange_name)


@pytest.mark.parametrize(
    "place", [p if p in QUICKLY else pytest.param(p, marks=pytest.mark.slow) for p in PLACES]
)
def test_project_is_cloned_whole_from_wherever_it_lies(unrun, tmp_path, place):
    """As `make demo` and `make verify` do first."""
    project = place(unrun, tmp_path)
    if (project / ".git").exists():
        assert Workspace(project).run("git", "status", "--porcelain") == ""
    output = tool(project, "repository", str(tmp_path / "target"))
    assert output == ""
    inside = "deep/my project" if place is in_a_larger_one else "."
    clone = tmp_path / "target" / inside
    committed = unrun.run("git", "ls-files").splitlines()
    assert all((clone / name).read_bytes() == unrun.read(name) for name in committed)
    assert Workspace(clone).run("git", "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_lock_is_checked_wherever_the_project_lies(finished, tmp_path, place):
    """And a committed file that is changed is noticed there."""
    project = place(finished, tmp_path)
    shutil.rmtree(project / "pretrained", ignore_errors=True)  # of another run than this lock
    assert "belong to the committed code" in tool(project, "check_lock")
    (project / "reports/metrics.json").write_text("{}")
    assert "reports/metrics.json: modified" in tool(project, "check_lock", ok=False)


@pytest.mark.slow
@pytest.mark.parametrize("place", [in_a_larger_one, worktree, with_a_strange_name])
def test_runs_and_comparisons_work_wherever_the_project_lies(finished, tmp_path, place):
    project = Workspace(place(finished, tmp_path))
    if place is worktree:  # which shares Git's part, and has a DVC cache of its own
        shutil.copytree(finished.path / ".dvc/cache", project.path / ".dvc/cache")
        project.run("dvc", "checkout")
    project.run("dvc", "exp", "run", "--name", "plain", "-S", "figure_dpi=45")
    assert "plain against HEAD" in tool(project.path, "compare", "HEAD", "plain")
    project.run("dvc", "plots", "diff", "HEAD", "workspace")
    project.run("git", "checkout", "--quiet", ".")
    with (project.path / "cifar100/network/resnet.py").open("a", encoding="utf-8") as file:
        file.write("\n# Words.\n")
    project.run("dvc", "checkout")
    assert "resnet.py: the same program" in tool(project.path, "recommit")


NO_REPOSITORY = "this folder is in no Git repository, as after unpacking a ZIP"


@pytest.mark.slow
def test_from_a_zip_the_stages_run_and_what_needs_git_says_so(finished, tmp_path):
    project = Workspace(unpacked(finished, tmp_path))
    before = (project.path / "reports/metrics.json").read_bytes()
    shutil.rmtree(project.path / ".dvc/cache")
    assert "DVC runs without one" in tool(project.path, "repository")
    named = (("compare", ["HEAD"]), ("plots", ["page.html", "HEAD"]), ("seeds", []), ("ladder", []))
    for name, options in named:
        assert f"error: {name}: {NO_REPOSITORY}" in tool(project.path, name, *options, ok=False)
    # Git has no copy of the committed results, so that a failure would lose them.
    project.set_params(calibration_bins="0")
    assert "params.yaml: calibration_bins" in project.run("dvc", "repro", ok=False)
    assert project.read("reports/metrics.json") == before
    project.set_params(calibration_bins="15")
    project.run("dvc", "repro", "--force", "--single-item", "render")
    project.run("git", "init", "--quiet")
    tool(project.path, "repository")
    assert "no_scm" not in (project.path / ".dvc/config.local").read_text(encoding="utf-8")


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give files away")
def test_repository_of_another_user_is_one_line_with_the_remedy(unrun, tmp_path):
    project = unrun.copy(tmp_path / "theirs").path
    for path in [project, *project.rglob("*")]:
        os.chown(path, OTHER_USER, OTHER_USER, follow_symlinks=False)
    remedy = f"`git config --global --add safe.directory '{project}'`"
    settings = {"GIT_CONFIG_GLOBAL": str(tmp_path / "settings"), "GIT_CONFIG_NOSYSTEM": "1"}
    for name in (("repository", str(tmp_path / "clone")), ("plots", "page.html", "HEAD")):
        line = tool(project, *name, ok=False, **settings)
        assert line.endswith(f"belongs to another user; to trust it: {remedy}\n")
        assert len(line.splitlines()) == 1
    subprocess.run(remedy.strip("`"), shell=True, env=os.environ | settings, check=True)
    assert tool(project, "repository", str(tmp_path / "clone"), **settings) == ""


def test_folder_that_no_commit_has_is_one_line(unrun, tmp_path):
    larger = Workspace(tmp_path / "larger")
    shutil.copytree(unrun.path, larger.path / "new", ignore=shutil.ignore_patterns(".git"))
    larger.run("git", "init", "--quiet")
    target = str(tmp_path / "target")
    line = f"error: repository: this folder is in no commit of the Git repository {larger.path}; "
    assert line in tool(larger.path / "new", "repository", target, ok=False)
    settings = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    larger.run("git", *settings, "commit", "--quiet", "--allow-empty", "--message", "Empty")
    assert line in tool(larger.path / "new", "repository", target, ok=False)


def test_hook_of_git_sees_its_own_repository(unrun, tmp_path):
    """Git tells its hooks, and all that these start, which repository they are of."""
    other = unrun.copy(tmp_path / "other")
    other.run("git", "commit", "--quiet", "--allow-empty", "--message", "Of the other one")
    told = {"GIT_DIR": str(other.path / ".git"), "GIT_INDEX_FILE": "nowhere"}
    assert tool(unrun.path, "repository", str(tmp_path / "target"), **told) == ""
    log = Workspace(tmp_path / "target").run("git", "log", "--format=%s")
    assert log == "Start\n"


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["data", "models", "reports/figures"])
def test_link_that_dvc_refuses_is_one_line_before_the_work(workspace, tmp_path, folder):
    before = workspace.read("reports/figures/class_accuracy.png")
    shutil.move(workspace.path / folder, tmp_path / "disk")
    (workspace.path / folder).symlink_to(tmp_path / "disk")
    output = workspace.run("dvc", "repro", "--force", "--single-item", "evaluate", ok=False)
    assert f"error: evaluate: {folder} is a link to {tmp_path}/disk, and DVC refuses" in output
    assert workspace.read("reports/figures/class_accuracy.png") == before


@pytest.mark.slow
def test_cache_and_checkpoints_may_lie_on_another_disk(workspace, tmp_path):
    (workspace.path / ".checkpoints").mkdir(exist_ok=True)
    for folder in (".dvc/cache", ".checkpoints"):
        shutil.move(workspace.path / folder, tmp_path / Path(folder).name)
        (workspace.path / folder).symlink_to(tmp_path / Path(folder).name)
    assert workspace.run("git", "status", "--porcelain") == ""
    workspace.run("dvc", "repro", "--force", "--single-item", "train")
    assert "up to date" in workspace.run("dvc", "status")


@pytest.mark.slow
def test_checkout_that_cannot_be_written_is_one_line(unrun, tmp_path):
    project = unrun.copy(tmp_path / "project").path
    script = "mount --bind . . && mount -o remount,bind,ro . && cd . && "
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*namespace, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
        pytest.skip("a read-only folder can only be made where user namespaces are allowed")
    place = Workspace(project)
    check = f"{script} cd '{project}' && exec {sys.executable} -m tools.check_lock"
    line = place.run(*namespace, check, ok=False)
    assert line.startswith("error: check-lock: ")
    assert "Read-only file system" in line
    assert len(line.splitlines()) == 1
    setup = f"{script} cd '{project}' && exec sh tools/environment.sh .venv python3"
    line = place.run(*namespace, setup, ok=False)
    assert line.startswith("error: setup: this folder cannot be written; ")
    assert len(line.splitlines()) == 1


def test_git_that_is_not_installed_is_one_line(unrun, tmp_path):
    line = tool(unrun.path, "repository", str(tmp_path / "target"), ok=False, PATH=str(tmp_path))
    assert line.startswith("error: repository: Git is not installed; ")


def test_this_repository_names_its_line_ends():
    """Git for Windows converts what a repository does not name; then nothing is as committed."""
    listed = ["git", "ls-files", "--eol"]
    lines = subprocess.check_output(listed, cwd=ROOT, text=True).splitlines()
    assert len(lines) > 100
    for line in lines:
        index, _, attributes = line.split("\t")[0].split(maxsplit=2)
        assert (index, "eol=lf" in attributes) == ("i/lf", True) or index in ("i/-text", "i/none")
