"""Brings the processes of a training together, compares them, and watches that none of them dies.

Each process holds a connection to the one with rank 0 for as long as it trains. A connection that
ends says that its process or machine is gone, also where an exchange would wait for it for ever.
"""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar100.running.errors import PipelineError
from cifar100.running.guard import ENDINGS, end_now
from stages.train.links import keep_alive, receive, send, split

WAIT = 300.0  # seconds in which all have to come
SECONDS_TO_LEARN = 3.0  # why an exchange failed: the connection tells at almost the same time
SECONDS_TO_END = (2.0, 5.0)  # by itself, and when interrupted, once another one is gone
MAX_DIFFERENCES = 3  # named in a message
AGAIN = "run the same command on all machines again to resume"

TOLD = "told"  # a file in the launcher's folder for logs: the user knows why the training ended

Facts = dict[str, str]


@dataclass(frozen=True)
class Place:
    """A process's place in a launch, as Paddle's launcher says it in the environment.

    endpoints: host:port of each rank · local: the rank on this machine, and how many there are ·
    gpu: its number on this machine · logs: the launcher's folder for logs, in which names of files
    hold the `pod` · wait: seconds in which all have to come.
    """

    rank: int
    endpoints: tuple[str, ...]
    local: tuple[int, int] = (0, 1)
    gpu: int = 0
    logs: Path | None = None
    pod: str = ""
    wait: float = WAIT

    @classmethod
    def from_environment(cls) -> "Place":
        """Raises `PipelineError` if Paddle's launcher did not start this process."""
        variables = os.environ
        try:
            return cls(
                rank=int(variables["PADDLE_TRAINER_ID"]),
                endpoints=tuple(variables["PADDLE_TRAINER_ENDPOINTS"].split(",")),
                local=(int(variables["PADDLE_LOCAL_RANK"]), int(variables["PADDLE_LOCAL_SIZE"])),
                gpu=int(variables.get("FLAGS_selected_gpus", "0").split(",")[0]),
                logs=Path(variables["PADDLE_LOG_DIR"]),
                pod=variables.get("POD_NAME", ""),
                wait=float(variables.get("CIFAR100_WAIT", WAIT)),
            )
        except (KeyError, ValueError) as error:
            raise PipelineError(
                f"this file is for `python -m paddle.distributed.launch` to start ({error}); "
                "docs/scale.md has the line"
            ) from None

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self.endpoints)

    def name(self, rank: int) -> str:
        """How messages call a process."""
        return f"rank {rank} ({self.endpoints[rank].rpartition(':')[0]})"


class Watch:
    """The connections of a process: to rank 0, or of rank 0 to all others.

    reason: why the training ends, in words for the user, once another process is gone.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.launcher = os.getppid()
        self.reason: str | None = None
        self._links: dict[int, socket.socket] = {}
        self._known = threading.Event()  # the reason is
        self._over = threading.Event()  # this process ends, well or not
        self._lock = threading.Lock()

    def barrier(self, facts: Facts, about: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
        """Wait for all processes, and compare their facts with those of rank 0.

        Returns a free port on the machine of rank 0, and what each rank says about itself. From
        then on the loss of a process ends this one. Raises `PipelineError` for a process that does
        not come in time, and for facts that differ.
        """
        hello = {"rank": self.place.rank, "endpoints": self.place.endpoints, "facts": facts}
        answer = self._gather(hello, about) if self.place.rank == 0 else self._ask(hello, about)
        for rank, link in self._links.items():
            link.settimeout(None)
            threading.Thread(target=self._listen, args=(rank, link), daemon=True).start()
        return answer["port"], answer["about"]

    def _gather(self, hello: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        """What rank 0 does at the barrier: let all come, compare, and answer."""
        place = self.place
        host, port = split(place.endpoints[0])
        deadline = time.monotonic() + place.wait
        said: dict[int, dict[str, Any]] = {0: hello | {"about": about}}
        try:
            server = socket.create_server((host, port))
        except OSError as error:
            raise PipelineError(
                f"cannot listen at {host}:{port} ({error.strerror}); it has to be an address of "
                "this machine, and a free port"
            ) from None
        with server:
            while len(said) < place.size:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    missing = ", ".join(place.name(r) for r in range(place.size) if r not in said)
                    self._refuse(
                        f"{missing} did not come within {place.wait:.0f} s; start the training "
                        "there too, with the same list of machines"
                    )
                keep_alive(link)
                link.settimeout(5)
                message = receive(link)
                if message is None or not isinstance(message.get("rank"), int):
                    link.close()  # of a program that is none of ours
                    continue
                rank = message["rank"]
                if rank in self._links:  # was started again
                    self._links[rank].close()
                self._links[rank], said[rank] = link, message
                if message["endpoints"] != list(place.endpoints):
                    self._refuse(
                        f"rank {rank} was started for {', '.join(message['endpoints'])}, and rank "
                        f"0 for {', '.join(place.endpoints)}; give all machines the same list"
                    )
        for rank in range(1, place.size):
            different = differences(hello["facts"], said[rank]["facts"])
            if different:
                self._refuse(f"{place.name(rank)} differs from {place.name(0)}: {different}")
        with socket.create_server((host, 0)) as free:
            answer = {
                "port": free.getsockname()[1],
                "about": [said[rank]["about"] for rank in range(place.size)],
            }
        for link in self._links.values():
            send(link, answer)
        return answer

    def _refuse(self, reason: str) -> None:
        """End before the training begins, and have those who came say why."""
        for link in self._links.values():
            send(link, {"error": reason})
        raise PipelineError(reason)

    def _ask(self, hello: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        """What all other ranks do at the barrier: go to rank 0 and wait for its answer."""
        place = self.place
        deadline = time.monotonic() + place.wait
        while True:
            try:
                link = socket.create_connection(split(place.endpoints[0]), timeout=5)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PipelineError(
                        f"{place.name(0)} did not come to {place.endpoints[0]} within "
                        f"{place.wait:.0f} s ({error.strerror or error}); start the training there "
                        "too, with the same list of machines"
                    ) from None
                time.sleep(0.2)
        keep_alive(link)
        self._links[0] = link
        send(link, hello | {"about": about})
        link.settimeout(place.wait + 10)  # for those who come later
        answer = receive(link)
        if answer is None:
            raise PipelineError(f"{place.name(0)} has ended before the training began")
        if "error" in answer:
            raise PipelineError(answer["error"])
        return answer

    def _listen(self, rank: int, link: socket.socket) -> None:
        """Wait for the end of another process, which says why it ends if it can."""
        message = receive(link) or {"error": f"{self.place.name(rank)} has ended; {AGAIN}"}
        if "error" not in message:
            return
        with self._lock:
            if self.reason is not None or self._over.is_set():
                return
            self.reason = str(message["error"])
            self._known.set()
            self._tell({"error": self.reason})
        by_itself, when_interrupted = SECONDS_TO_END
        if self._over.wait(by_itself):
            return
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._over.wait(when_interrupted):  # it waits in an exchange that cannot end
            self._note()
            end_now("train", self.reason if self._speaks() else None)

    def _tell(self, message: dict[str, Any]) -> None:
        for link in self._links.values():
            send(link, message)

    def _speaks(self) -> bool:
        """Whether this process tells the user of its end; one on each machine does.

        If the launcher was killed, whoever started it tells.
        """
        return self.place.local[0] == 0 and os.getppid() == self.launcher

    def _note(self) -> None:
        """Leave a mark that the user was told, for the process that started the launcher."""
        if self.place.logs is not None and self._speaks():
            with contextlib.suppress(OSError):
                (self.place.logs / TOLD).touch()

    def leave(self) -> None:
        """Say that this process has done its part."""
        self._over.set()
        self._tell({"done": True})

    def run(self, main: Callable[[], None]) -> None:
        """Call `main` and leave; if it fails, say so to the others.

        Raises what it raised, or `PipelineError` with the reason if the loss of another process
        was the cause, or `SystemExit` if another process on this machine tells the user.
        """
        try:
            try:
                main()
                self.leave()
            except BaseException:
                _ignore_requests_to_end()
                raise
        except BaseException as error:  # perhaps a request to end that came after the first error
            _ignore_requests_to_end()
            own = isinstance(error, PipelineError)
            if self._links and not own and not isinstance(error, KeyboardInterrupt):
                self._known.wait(SECONDS_TO_LEARN)
            with self._lock:
                self._over.set()
            if self.reason is None:
                said = f": {error}" if own else f" was {_ending(error)}; {AGAIN}"
                self._tell({"error": self.place.name(self.place.rank) + said})
            if self._links and not self._speaks():
                raise SystemExit(1) from None
            self._note()
            if self.reason is not None and not own:
                raise PipelineError(self.reason) from None
            raise


def _ignore_requests_to_end() -> None:
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)


def _ending(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"ended by {error!r:.200}"


def differences(mine: Facts, theirs: Facts) -> str:
    """What differs in `theirs`, in words; "" if nothing does."""
    found = []
    for name in sorted(mine.keys() | theirs.keys()):
        here, there = mine.get(name), theirs.get(name)
        if here == there:
            continue
        if there is None:
            found.append(f"{name} is missing")
        elif here is None:
            found.append(f"{name} is one more")
        elif re.fullmatch("[0-9a-f]{64}", here):
            found.append(f"{name} has other content")
        else:
            found.append(f"{name} is {there}, not {here}")
    more = len(found) - MAX_DIFFERENCES
    return "; ".join(found[:MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
