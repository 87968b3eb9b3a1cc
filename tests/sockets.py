"""Where the processes of a command listen, read from the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# 127.0.0.1, and the same as an address of IPv6 (in the words of the kernel, whose bytes go backwards).
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


def listening(process: int) -> list[str]:
    """The addresses at which a process, and all that descend from it, wait for connections."""
    own = {inode for each in family(process) for inode in sockets(each)}
    table = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    return [row[1].partition(":")[0] for row in table if row[3] == "0A" and row[9] in own]


def family(process: int) -> set[int]:
    """A process, and all that descend from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def sockets(process: int) -> Iterator[str]:
    """The inodes of a process' sockets."""
    for descriptor in Path(f"/proc/{process}/fd").glob("*"):
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]
