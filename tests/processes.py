"""What tests of killed trainings ask the system about processes."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Look until `condition` holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """The processes that this one started and that are not waited for yet."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in listed.split()]


def descendants(pid: int) -> list[int]:
    """The process itself, its children, their children, and so on."""
    return [pid, *(found for child in children(pid) for found in descendants(child))]


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def words(pid: int) -> str:
    """The command of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def training_process(dvc: int) -> int:
    """The process of the stage train below this DVC."""
    *_, stage = (pid for pid in descendants(dvc) if "stages/train" in words(pid))
    return stage
