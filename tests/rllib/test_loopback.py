"""Where learners of one machine wait for one another."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from popcomm.rllib import loopback
from popcomm.rllib.loopback import is_loopback
from tests.sockets import LOOPBACK

# A process of its own, for what is replaced stays so, and a group is one of its process.
MEET = """
import json, os, socket
import torch.distributed as dist
from popcomm.rllib.loopback import stay_on_loopback
from tests.sockets import listening

if {stays}:
    stay_on_loopback()
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
for _ in range(2):  # groups, one after the other, at one place
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{{port}}", rank=0, world_size=1)
    told = [listening(os.getpid()), [os.environ.get(f"{{name}}_SOCKET_IFNAME") for name in ("GLOO", "NCCL")]]
    dist.destroy_process_group()
print(json.dumps(told))
"""


def meet(stays: bool) -> tuple[set[str], list[str | None]]:
    """Where a group of one listens, and on which interfaces gloo and NCCL were told to."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_SOCKET_IFNAME")}
    command = [sys.executable, "-c", MEET.format(stays=stays)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    places, interfaces = json.loads(found.stdout)
    return set(places), interfaces


def test_a_group_that_begins_on_loopback_listens_nowhere_else() -> None:
    places, (gloo, nccl) = meet(stays=True)
    assert places
    assert places <= LOOPBACK
    assert gloo in ("lo", "lo0")
    assert nccl == f"={gloo}"


def test_torch_alone_listens_everywhere() -> None:
    """If this fails torch has changed, and `popcomm.rllib.loopback` can go."""
    assert not meet(stays=False)[0] <= LOOPBACK


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_addresses_of_this_machine_alone_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "0.0.0.0", "::", "head", "fe80::1"])
def test_others_are_left_alone(host: str) -> None:
    assert not is_loopback(host)


def test_where_it_may_not_listen_is_no_reason_to_listen_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    for variable in loopback.INTERFACES:
        monkeypatch.setenv(variable, "lo")
    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(PermissionError):
        loopback.store("127.0.0.1", 29_500, is_master=True, world_size=1)
