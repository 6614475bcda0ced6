"""Connections between the processes of a training, for lines of JSON, and network interfaces."""

import contextlib
import json
import os
import socket
from typing import Any

import psutil

from cifar100.running.errors import PipelineError

KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
MAX_MESSAGE = 2**20  # bytes


def split(endpoint: str) -> tuple[str, int]:
    """Host and port of `host:port`."""
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def keep_alive(link: socket.socket) -> None:
    """Have the kernel notice within 20 seconds that the other machine is gone."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def send(link: socket.socket, message: dict[str, Any]) -> None:
    """Send a line; whoever is gone misses it."""
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(message).encode() + b"\n")


def receive(link: socket.socket) -> dict[str, Any] | None:
    """The next line; None if the connection ends, or if it is no message."""
    content = b""
    try:
        while not content.endswith(b"\n"):
            waiting = link.recv(2**16, socket.MSG_PEEK)  # the next message may be there already
            if not waiting or len(content) > MAX_MESSAGE:
                return None
            content += link.recv(waiting.find(b"\n") + 1 or len(waiting))
        message = json.loads(content)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def own_interface(address: str) -> str | None:
    """The network interface of this machine that has the address; None if there is none."""
    if address.startswith("127."):  # all of these are this machine
        address = "127.0.0.1"
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None


def check_interfaces() -> None:
    """Raise `PipelineError` if GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME names none that is here.

    NCCL's is a list of prefixes, of names after `=`, or of exclusions after `^`.
    """
    here = sorted(psutil.net_if_addrs())
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        wanted = os.environ.get(variable, "")
        exact = variable.startswith("GLOO") or wanted.startswith("=")
        names = wanted.removeprefix("=").split(",")
        fits = [n for n in here if (n in names if exact else n.startswith(tuple(names)))]
        if wanted and not wanted.startswith("^") and not fits:
            raise PipelineError(
                f"{variable}: this machine has no network interface {wanted}; it has "
                + ", ".join(here)
            )
