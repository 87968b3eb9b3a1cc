"""Learners that meet on loopback listen there alone.

torch's TCPStore, in which the processes of a group find one another, listens on every interface of its machine,
wherever it was told to be; and gloo and NCCL on that of the machine's name. Those of one machine have no need to.
"""

from __future__ import annotations

import errno
import importlib
import ipaddress
import os
import socket
from typing import Any

from torch.distributed import TCPStore

# Which torch's backends read when a group begins; "=" asks NCCL for that very name.
INTERFACES = {"GLOO_SOCKET_IFNAME": "", "NCCL_SOCKET_IFNAME": "="}


def stay_on_loopback() -> None:
    """From now on a group of processes that begins on loopback stays there; others are left alone."""
    rendezvous = importlib.import_module("torch.distributed.rendezvous")  # the package's name of it is a function
    rendezvous.TCPStore = store  # type: ignore[attr-defined]


def store(host_name: str, port: int, *, is_master: bool = False, **kwargs: Any) -> TCPStore:
    """torch's TCPStore, which on a loopback address listens there alone; the user's own choice of interfaces wins."""
    if is_loopback(host_name):
        for variable, prefix in INTERFACES.items():
            if interface := _interface():
                os.environ.setdefault(variable, prefix + interface)
        if is_master and (listener := _listener(host_name, port)):
            kwargs["master_listen_fd"] = listener.detach()  # the store closes it
    return TCPStore(host_name=host_name, port=port, is_master=is_master, **kwargs)


def is_loopback(host_name: str) -> bool:
    """Whether a name or an address is of this machine alone."""
    if host_name == "localhost":
        return True
    try:
        return ipaddress.ip_address(host_name.strip("[]")).is_loopback
    except ValueError:  # another name
        return False


def _listener(host_name: str, port: int) -> socket.socket | None:
    """None: the place is taken, maybe by a store of this process, which torch's can share.

    Raises:
        OSError: nobody may listen there, or it is no place of this machine.
    """
    family, kind, _, _, address = socket.getaddrinfo(host_name.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return listener


def _interface() -> str:
    """The loopback interface: lo, or lo0; "": it has no such name."""
    return next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), "")
