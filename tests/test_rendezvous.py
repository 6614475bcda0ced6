"""How the processes of a training meet, compare and watch each other: real sockets, no training."""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar100.running.environment import clear_engine_variables
from cifar100.running.errors import PipelineError
from stages.train import launch, launched
from stages.train.links import check_interfaces
from stages.train.rendezvous import Place, Watch, differences
from tests.processes import wait_until

FACTS = {"lr": "0.1", "paddle": "3.3.1", "data/processed/train.npz": "a" * 64}


@pytest.fixture
def endpoints() -> tuple[str, ...]:
    """Of three processes; the first has a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return (f"127.0.0.1:{port}", "192.0.2.1:6070", "192.0.2.2:6070")


def meet(watches: list[Watch], facts: list[dict[str, str]]) -> list[Any]:
    """What each of them gets, or the message of its error."""

    def one(i: int) -> None:
        try:
            found[i] = watches[i].barrier(facts[i], {"threads": i})
        except PipelineError as error:
            found[i] = str(error)

    found: list[Any] = [None] * len(watches)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(watches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def watches_of(endpoints: tuple[str, ...], ranks: range, wait: float = 20) -> list[Watch]:
    return [Watch(Place(rank, endpoints, wait=wait)) for rank in ranks]


def test_all_learn_a_port_and_what_the_others_say(endpoints):
    watches = watches_of(endpoints, range(3))
    found = meet(watches, [FACTS] * 3)
    assert found[0] == found[1] == found[2]
    port, about = found[0]
    assert 0 < port < 2**16
    assert about == [{"threads": i} for i in range(3)]
    for watch in watches:
        watch.leave()


def test_process_that_does_not_come_is_named_to_all_who_came(endpoints):
    found = meet(watches_of(endpoints, range(2), wait=1), [FACTS] * 2)
    assert found[0] == found[1]
    assert found[0].startswith("rank 2 (192.0.2.2) did not come within 1 s; ")


def test_port_that_is_taken_is_told(endpoints):
    port = int(endpoints[0].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        (told,) = meet(watches_of(endpoints, range(1), wait=1), [FACTS])
    assert told.startswith(f"cannot listen at 127.0.0.1:{port} (")


def test_rank_0_that_does_not_come_is_named(endpoints):
    (watch,) = watches_of(endpoints, range(1, 2), wait=0.5)
    (message,) = meet([watch], [FACTS])
    assert message.startswith("rank 0 (127.0.0.1) did not come")


def test_what_differs_is_named_to_all(endpoints):
    unlike = FACTS | {"lr": "0.2", "data/processed/train.npz": "b" * 64}
    found = meet(watches_of(endpoints, range(3)), [FACTS, FACTS, unlike])
    assert set(found) == {
        "rank 2 (192.0.2.2) differs from rank 0 (127.0.0.1): "
        "data/processed/train.npz has other content; lr is 0.2, not 0.1"
    }


def test_differences_name_missing_files_and_are_cut_short():
    assert differences(FACTS, FACTS) == ""
    assert differences({"a": "1"}, {"b": "1"}) == "a is missing; b is one more"
    many = {str(i): "1" for i in range(10)}
    assert differences(many, {}) == "0 is missing; 1 is missing; 2 is missing; and 7 more"


def test_lists_of_machines_that_differ_are_refused(endpoints):
    other = (*endpoints[:1], "192.0.2.9:6070", endpoints[2])
    watches = [Watch(Place(0, endpoints, wait=20)), Watch(Place(1, other, wait=20))]
    found = meet(watches, [FACTS] * 2)
    assert found[0] == found[1]
    assert "192.0.2.9:6070" in found[0]
    assert "give all machines the same list" in found[0]


@pytest.mark.parametrize("content", [b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"rank": "x"}\n', b""])
def test_connection_of_another_program_is_ignored(endpoints, content):
    def intrude() -> None:
        port = int(endpoints[0].rpartition(":")[2])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
                    link.sendall(content)
                    return
            except OSError:
                time.sleep(0.01)

    first, *others = watches_of(endpoints, range(3))
    found: list[Any] = []
    server = threading.Thread(target=lambda: found.extend(meet([first], [FACTS])))
    server.start()
    intrude()
    found += meet(others, [FACTS] * 2)
    server.join(30)
    assert found[0] == found[1] == found[2]
    for watch in (first, *others):
        watch.leave()


@pytest.mark.parametrize("lost", [0, 2])
def test_loss_of_one_process_is_told_to_all_others(endpoints, lost):
    """The system closes the connections of a process that is killed."""
    watches = watches_of(endpoints, range(3))
    meet(watches, [FACTS] * 3)
    watches[lost]._over.set()
    for link in watches[lost]._links.values():
        link.shutdown(socket.SHUT_RDWR)
    others = [watch for watch in watches if watch.place.rank != lost]
    wait_until(lambda: all(watch.reason for watch in others), 30)
    for watch in watches:
        watch.leave()  # so that none of them ends this process
    name = watches[0].place.name(lost)
    assert {str(watch.reason).split(";")[0] for watch in others} == {f"{name} has ended"}


def end_of(watch: Watch, main: Callable[[], None]) -> BaseException:
    with pytest.raises((Exception, SystemExit)) as raised:
        watch.run(main)
    return raised.value


def fail(error: BaseException) -> None:
    raise error


def test_own_failure_is_told_to_the_others_with_its_reason(endpoints, keep_signals):
    watches = watches_of(endpoints[:2], range(2))
    meet(watches, [FACTS] * 2)
    end = end_of(watches[1], lambda: fail(PipelineError("the mean loss is nan")))
    assert str(end) == "the mean loss is nan"
    wait_until(lambda: watches[0].reason is not None, 30)
    assert watches[0].reason == "rank 1 (192.0.2.1): the mean loss is nan"
    # What fails for the lack of the other is told by its cause
    end = end_of(watches[0], lambda: fail(RuntimeError("Connection closed by peer")))
    assert isinstance(end, PipelineError)
    assert str(end) == "rank 1 (192.0.2.1): the mean loss is nan"


def test_second_process_of_a_machine_leaves_the_telling_to_the_first(
    endpoints, keep_signals, tmp_path
):
    places = [Place(i, endpoints[:2], local=(i, 2), logs=tmp_path, wait=20) for i in (0, 1)]
    watches = [Watch(place) for place in places]
    meet(watches, [FACTS] * 2)
    end = end_of(watches[1], lambda: fail(PipelineError("the mean loss is nan")))
    assert isinstance(end, SystemExit)
    assert not (tmp_path / "told").exists()
    end = end_of(watches[0], lambda: fail(PipelineError("the mean loss is nan")))
    assert isinstance(end, PipelineError)
    assert (tmp_path / "told").exists()


@pytest.fixture
def keep_signals():
    """`Watch.run` ignores requests to end while it fails."""
    import signal

    from cifar100.running.guard import ENDINGS

    before = {ending: signal.getsignal(ending) for ending in ENDINGS}
    yield
    for ending, handler in before.items():
        signal.signal(ending, handler)


@pytest.mark.parametrize("variable", ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"])
def test_interface_that_is_not_there_is_named(monkeypatch, variable):
    monkeypatch.setenv(variable, "eth99")
    with pytest.raises(PipelineError, match=rf"^{variable}: this machine has no .* eth99; it has"):
        check_interfaces()


@pytest.mark.parametrize(("variable", "value"), [("GLOO", "lo"), ("NCCL", "=lo"), ("NCCL", "^eth")])
def test_interface_that_is_there_is_taken(monkeypatch, variable, value):
    monkeypatch.setenv(f"{variable}_SOCKET_IFNAME", value)
    check_interfaces()


def test_variables_of_another_job_are_forgotten(monkeypatch):
    names = ["PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_MASTER", "MASTER_ADDR", "POD_IP"]
    before = dict(os.environ)
    for name in names:
        monkeypatch.setenv(name, "1")
    try:
        clear_engine_variables()
        assert not {*names} & {*os.environ}
    finally:
        os.environ |= before  # with the number of threads of these tests


def test_file_for_the_launcher_says_so_when_it_is_started_by_hand(monkeypatch):
    monkeypatch.delenv("PADDLE_TRAINER_ID", raising=False)
    with pytest.raises(PipelineError, match=r"is for `python -m paddle\.distributed\.launch`"):
        Place.from_environment()


@pytest.mark.parametrize(
    ("machines", "reason"),
    [
        ("198.51.100.1,198.51.100.2", "none of them is this machine"),
        ("127.0.0.1,127.0.0.1", "give each machine one address"),
        ("127.0.0.1,192.0.2.1", "give each machine one address"),
        ("127.0.1.1,192.0.2.1", "give each machine one address"),  # as Debian names itself
        ("127.0.0.2,", "an empty name"),
        ("no.such.host.invalid", "no.such.host.invalid: "),
    ],
)
def test_wrong_list_of_machines_is_refused(monkeypatch, machines, reason):
    monkeypatch.setenv("CIFAR100_MACHINES", machines)
    with pytest.raises(PipelineError, match=r"^CIFAR100_MACHINES: .*") as raised:
        launch.main()
    assert reason in str(raised.value)


@pytest.mark.parametrize("variable", ["CIFAR100_PROCESSES", "CIFAR100_PORT", "CIFAR100_WAIT"])
@pytest.mark.parametrize("value", ["0", "two", "-1"])
def test_wrong_number_is_refused(monkeypatch, variable, value):
    monkeypatch.setenv("CIFAR100_MACHINES", "127.0.0.1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(PipelineError, match=f"^{variable}: '{value}' is not a whole number above"):
        launch.main()


def test_files_with_the_environment_are_deleted(monkeypatch, tmp_path: Path):
    launcher = {
        "PADDLE_TRAINER_ID": "3",
        "PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:6070,127.0.0.1:6071",
        "PADDLE_LOCAL_RANK": "1",
        "PADDLE_LOCAL_SIZE": "2",
        "PADDLE_LOG_DIR": str(tmp_path),
        "POD_NAME": "abcdef",
    }
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    for name in ("backup_env.3.json", "envlog.1", "default.abcdef.log", "workerlog.1"):
        (tmp_path / name).touch()
    launched.delete_environment_files(Place.from_environment())
    assert [path.name for path in tmp_path.iterdir()] == ["workerlog.1"]
