"""Several machines train as one: network namespaces joined by a cable, real DVC, real kills."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import ROOT, SMALL, Workspace, save_for_training, some_classes, some_samples
from tests.processes import descendants, is_running, wait_until, words

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the CPU wheels for other systems have no gloo"
)

ADDRESSES = ("10.213.77.1", "10.213.77.2")
OUTPUTS = ("models/model.safetensors", "models/model.json", "reports/history.csv")
SECONDS = 500  # that a training in these tests may take


@dataclass
class Machine:
    """A folder to train in, below a network of its own if there is a namespace."""

    path: Path
    namespace: str | None = None

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command as a user would; its output goes to a file."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        variables = Workspace(self.path).environment() | environment
        with self.output.open("w") as output:
            return subprocess.Popen(
                [*inside, *command],
                cwd=self.path,
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    @property
    def output(self) -> Path:
        return self.path.with_suffix(".output")

    @property
    def told(self) -> str:
        return self.output.read_text()

    @property
    def errors(self) -> list[str]:
        return [line for line in self.told.splitlines() if line.startswith("error: ")]

    def outputs(self) -> list[bytes]:
        return [(self.path / name).read_bytes() for name in OUTPUTS]


def trainer(pid: int, number: int = 0) -> int:
    """The process below `pid` that trains; of several on a machine the one with this number."""
    return [each for each in descendants(pid) if words(each).split()[1:2] == ["-u"]][number]


def files_in(folder: Path) -> dict[str, int]:
    """All files and when they were changed, but for what Python compiles."""
    listed = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in listed if path.is_file()}


# On one machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A folder with code, params and data to train for a second, without Git and DVC."""
    path = tmp_path / "repository"
    for room in ("stages", "cifar100"):
        shutil.copytree(ROOT / room, path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, path)
    (path / "data/processed").mkdir(parents=True)
    classes = some_classes()
    save_for_training(path / "data/processed", some_samples(classes), classes)
    Workspace(path).set_params(**SMALL | {"width": "2"})
    return Machine(path)


STAGE = (sys.executable, "-m", "stages.train")


def two_processes() -> dict[str, str]:
    """The variables that have this machine train in two, at a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "CIFAR100_MACHINES": "127.0.0.1",
        "CIFAR100_PROCESSES": "2",
        "CIFAR100_PORT": str(port),
    }


def test_two_processes_train_with_one_variable(machine, tmp_path):
    """Variables of another job's cluster change nothing, nor does its environment stay anywhere."""
    other = {"PADDLE_TRAINER_ID": "1", "PADDLE_MASTER": "192.0.2.1:6070", "POD_IP": "192.0.2.2"}
    (tmp_path / "tmp").mkdir()
    running = machine.start(
        *STAGE, SECRET="do-not-store", TMPDIR=str(tmp_path / "tmp"), **two_processes(), **other
    )
    wait_until(lambda: "epoch" in machine.told, SECONDS)
    (logs,) = (tmp_path / "tmp").glob("cifar100-launch-*")
    assert not list(logs.glob("backup_env*"))
    assert running.wait(SECONDS) == 0, machine.told
    assert "processes: 2" in machine.told
    assert "LAUNCH" not in machine.told
    assert len(re.findall("(?m)^epoch", machine.told)) == 2
    assert all(machine.outputs())
    found = subprocess.run(["grep", "-r", "do-not-store", tmp_path], capture_output=True)
    assert found.returncode == 1, found.stdout


@pytest.mark.slow
def test_machine_that_does_not_come_is_named_in_one_line(machine):
    lonely = two_processes() | {"CIFAR100_MACHINES": "127.0.0.2,127.0.0.3"}
    del lonely["CIFAR100_PROCESSES"]
    running = machine.start(*STAGE, CIFAR100_WAIT="1", **lonely)
    assert running.wait(SECONDS) == 1
    (line,) = machine.errors
    assert line.startswith("error: train: rank 1 (127.0.0.3) did not come within 1 s; start")
    assert "Traceback" not in machine.told


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_killed_process_ends_the_other_and_both_resume(machine, lost):
    Workspace(machine.path).set_params(epochs="20")
    assert machine.start(*STAGE, **two_processes()).wait(SECONDS) == 0
    expected = machine.outputs()
    shutil.rmtree(machine.path / ".checkpoints")  # where the finished training is kept
    running = machine.start(*STAGE, **two_processes())
    wait_until(lambda: "epoch   3" in machine.told, SECONDS)
    os.kill(trainer(running.pid, lost), signal.SIGKILL)
    killed = time.monotonic()
    assert running.wait(SECONDS) == 1
    assert time.monotonic() - killed < 20
    (line,) = machine.errors
    assert "run the same command on all machines again to resume" in line
    assert "Traceback" not in machine.told
    assert machine.start(*STAGE, **two_processes()).wait(SECONDS) == 0
    assert "train: resuming after epoch" in machine.told
    assert machine.outputs() == expected


# On two machines


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str]]:
    """Two networks joined by a cable, as of two machines; skips with the reason if that fails."""
    names = (f"cifar100-a-{os.getpid()}", f"cifar100-b-{os.getpid()}")
    cable = (f"veth-a{os.getpid()}", f"veth-b{os.getpid()}")
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add {cable[0]} type veth peer name {cable[1]}"]
    for name, end, address in zip(names, cable, ADDRESSES, strict=True):
        commands += [
            f"link set {end} netns {name}",
            f"-n {name} addr add {address}/24 dev {end}",
            f"-n {name} link set {end} up",
            f"-n {name} link set lo up",
        ]
    try:
        for command in commands:
            if shutil.which("ip") is None:
                pytest.skip("there is no `ip`: install iproute2")
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"`ip {command}` fails, it needs root: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            if shutil.which("ip") is not None:
                subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.fixture
def pair(namespaces, finished, tmp_path) -> tuple[Machine, Machine]:
    """Two machines with the same commit and data, on which a training with another seed is due."""
    machines = []
    for name, namespace in zip("ab", namespaces, strict=True):
        workspace = finished.copy(tmp_path / name)
        workspace.set_params(seed="1", epochs="3")
        machines.append(Machine(workspace.path, namespace))
    return machines[0], machines[1]


DVC = ("dvc", "repro", "train")
BOTH = {"CIFAR100_MACHINES": ",".join(ADDRESSES), "CIFAR100_WAIT": "120"}


def start_both(pair: tuple[Machine, Machine], **environment: str) -> list["subprocess.Popen[str]"]:
    """DVC on the first machine, the stage on the second."""
    return [
        machine.start(*command, **BOTH | environment)
        for machine, command in zip(pair, (DVC, STAGE), strict=True)
    ]


def train_together(pair: tuple[Machine, Machine]) -> list[bytes]:
    """The outputs on the first machine."""
    for running in start_both(pair):
        assert running.wait(SECONDS) == 0, pair[0].told + pair[1].told
    return pair[0].outputs()


@pytest.mark.slow
def test_two_machines_train_as_one(pair):
    """The same bytes twice, as good as one process with the same batches, outputs on one only."""
    before, earlier = files_in(pair[1].path), pair[0].outputs()
    found = train_together(pair)
    assert not {*found} & {*earlier}
    assert files_in(pair[1].path) == before
    assert pair[1].told == ""
    assert "processes: 2" in pair[0].told
    assert pair[0].start("dvc", "status", "train").wait(60) == 0
    assert "up to date" in pair[0].told
    assert train_together_again(pair) == found

    alone = pair[0]
    shutil.rmtree(alone.path / ".checkpoints")
    assert alone.start("dvc", "repro", "--force", "--single-item", "train").wait(SECONDS) == 0
    assert alone.outputs()[0] != found[0]
    one, two = (last_row(content) for content in (alone.outputs()[2], found[2]))
    assert abs(one["val_loss"] - two["val_loss"]) < 0.15
    assert abs(one["val_top1"] - two["val_top1"]) < 0.05


def train_together_again(pair: tuple[Machine, Machine]) -> list[bytes]:
    """From the beginning, although the training is finished and DVC has its results."""
    shutil.rmtree(pair[0].path / ".checkpoints")
    commands = (("dvc", "repro", "--force", "--single-item", "train"), STAGE)
    started = [m.start(*command, **BOTH) for m, command in zip(pair, commands, strict=True)]
    for running in started:
        assert running.wait(SECONDS) == 0, pair[0].told + pair[1].told
    return pair[0].outputs()


def last_row(history: bytes) -> dict[str, float]:
    head, *_, last = history.decode().splitlines()
    return dict(zip(head.split(","), map(float, last.split(",")), strict=True))


@pytest.mark.slow
def test_weights_are_the_same_on_both_machines(namespaces, tmp_path):
    """With Paddle's launcher as users start it by hand, on a file that keeps all weights."""
    classes = some_classes()
    save_for_training(tmp_path, some_samples(classes), classes)
    machines = [
        Machine(tmp_path / name, namespace)
        for name, namespace in zip("ab", namespaces, strict=True)
    ]
    started = []
    for machine, address in zip(machines, ADDRESSES, strict=True):
        machine.path.mkdir()
        launcher = [sys.executable, "-m", "paddle.distributed.launch", "--ips", ",".join(ADDRESSES)]
        launcher += ["--host", address, "--log_dir", str(machine.path / "log")]
        script = [str(ROOT / "tests/launched.py"), str(tmp_path)]
        started.append(machine.start(*launcher, *script, PYTHONPATH=str(ROOT)))
    for running, machine in zip(started, machines, strict=True):
        assert running.wait(SECONDS) == 0, machine.told
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    for training in ("resumed", "unlike"):
        assert first[training].any()
        np.testing.assert_array_equal(first[training], second[training])
    whole, resumed = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "resumed0"))
    assert whole.keys() == resumed.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_killed_machine_ends_the_other_and_both_resume(pair, lost):
    """Whichever is killed, the first says so in one line, and no result of its last run is lost."""
    expected = train_together(pair)
    for machine in pair:  # another training, so that results of this one are there to lose
        Workspace(machine.path).set_params(seed="2")
    started = start_both(pair)
    wait_until(lambda: "epoch   2" in pair[0].told, SECONDS)
    os.kill(trainer(started[lost].pid), signal.SIGKILL)
    killed = time.monotonic()
    for running in started:
        assert running.wait(SECONDS) != 0
    assert time.monotonic() - killed < 20
    for machine in pair:
        (line,) = [line for line in machine.errors if "train:" in line]
        assert "again to resume" in line
        assert "Traceback" not in machine.told
    if lost == 1:
        assert f"rank 1 ({ADDRESSES[1]}) has ended" in pair[0].told
    assert pair[0].outputs() == expected

    resumed = train_together(pair)
    assert "train: resuming after epoch" in pair[0].told
    assert train_together_again(pair) == resumed


@pytest.mark.slow
def test_cut_cable_ends_both(pair):
    """No connection ends then; the kernels notice that nothing is answered any more."""
    started = start_both(pair)
    wait_until(lambda: "epoch   2" in pair[0].told, SECONDS)
    namespace = pair[0].namespace
    cable = f"veth-a{os.getpid()}"
    subprocess.run(["ip", "-n", str(namespace), "link", "set", cable, "down"], check=True)
    try:
        for running in started:
            assert running.wait(60) != 0
    finally:
        subprocess.run(["ip", "-n", str(namespace), "link", "set", cable, "up"], check=True)
    for machine in pair:
        (line,) = [line for line in machine.errors if "train:" in line]
        assert "has ended; run the same command" in line


@pytest.mark.slow
def test_killed_dvc_leaves_no_process_on_either_machine(pair):
    started = start_both(pair)
    wait_until(lambda: "epoch   2" in pair[0].told, SECONDS)
    processes = [each for running in started for each in descendants(running.pid)]
    os.kill(started[0].pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, processes)), 60)


@pytest.mark.slow
def test_machines_that_differ_are_told_apart_before_the_training(pair):
    Workspace(pair[1].path).set_params(lr="0.2")
    started = start_both(pair)
    for running in started:
        assert running.wait(SECONDS) != 0
    for machine in pair:
        (line,) = [line for line in machine.errors if "train:" in line]
        assert "lr is 0.2, not 0.1" in line


@pytest.mark.slow
def test_interface_that_is_not_there_is_one_line(pair):
    running = pair[1].start(*STAGE, **BOTH, GLOO_SOCKET_IFNAME="eth99")
    assert running.wait(SECONDS) == 1
    (line,) = pair[1].errors
    assert "GLOO_SOCKET_IFNAME: this machine has no network interface eth99" in line
