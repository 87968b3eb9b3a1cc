"""Trainings of `popcomm train` in forked processes of their own, without Ray, that fail at a file operation on purpose.

Python tells audit hooks of every file that it opens, renames, makes or removes. A run does that at the boundary of each
part of each checkpoint, line of progress, file of events and lineage, always in the same order: "at the n-th" is a
moment that can be told again.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import ray
import torch._dynamo
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from popcomm import manifest
from popcomm.cli import train
from popcomm.cli.progress import PlainDisplay
from popcomm.rllib import PopulationPPO

DOCUMENT: dict[str, Any] = {
    "environment": {"env": "swarm_v0", "env_config": {"num_agents": 4, "max_steps": 6}},
    "communication": {"messages": {"kind": "symbols", "vocab_size": 8, "length": 2}},
    "population": {"agent": "mlp", "members": 4},
    "survival": {"strategy": {"kind": "top_k", "k": 2}, "every": 2},
    "env_runners": {"num_env_runners": 0, "num_worlds_per_env_runner": 4, "rollout_fragment_length": 5},
    "training": {"num_epochs": 1},
    "recording": {
        "conversation_every": 2,
        "conversation_worlds": 2,
        "picture_every": 0,
        "checkpoint_every": 1,
        "keep_checkpoints": 2,
    },
    "debugging": {"seed": 3},
    "stop": {"training_iteration": 4},
}
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
WRITING = ("open", "os.mkdir")
CLOCKS = ("time_s", "charts/SPS", "charts/agent_SPS")  # what no two runs have alike
FAILED = 3
# What takes seconds to import is imported once, and not in each process anew: torch's optimizers ask for the second.
assert (PopulationPPO, torch._dynamo) != (None, None)

Fault = Callable[[str], None]  # is told of the operation


def kill(operation: str) -> None:
    """As kill -9, or a machine that loses its power, but for what the disk had not written yet."""
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full(operation: str) -> None:
    """Raises the error of a disk that is full, on which files can still be removed."""
    if operation not in WRITING:
        return
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Ended(NamedTuple):
    """How a run ended: its exit code (that of a signal is negative), what it printed, and its file operations."""

    code: int
    printed: str
    operations: list[str]


def run(run_dir: Path, resume: bool = False, fault: Fault | None = None, at: int = 0, lasting: bool = False) -> Ended:
    """Train in a forked process.

    Args:
        run_dir: the run folder; beside it are files with what it printed and did.
        resume: go on in it.
        fault: what happens at the operation number `at`, from 1, and if it is `lasting` at all after it.
    """
    log, done = run_dir.with_suffix(".log"), run_dir.with_suffix(".operations")
    child = os.fork()
    if child == 0:
        os._exit(_child(run_dir, resume, fault, at, lasting, log, done))
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(), done.read_text().splitlines())


def first_checkpoint(whole: Ended) -> int:
    """The number of the operation after which a run has a checkpoint. whole: a run to which nothing happened."""
    # Files within it are renamed before, too.
    return next(
        i for i, done in enumerate(whole.operations, 1) if re.fullmatch(r"os\.rename /checkpoints/\.[^/]+", done)
    )


def moments(whole: Ended, count: int | None, seed: int, fault: Fault = kill) -> list[int]:
    """Operations at which a run has something to go on from and still has something to do, drawn by the seed.

    Args:
        whole: a run to which nothing happened.
        count: how many; None, or more than there are: all of them.
        fault: a full disk harms nobody who only removes files from then on.
    """
    # The last operations give up the folder.
    last = len(whole.operations) - 4
    if fault is disk_full:
        last = max(i for i, done in enumerate(whole.operations[:last], 1) if done.startswith(WRITING))
    all_of_them = range(first_checkpoint(whole) + 2, last + 1)
    if count is None or count >= len(all_of_them):
        return list(all_of_them)
    return sorted(random.Random(seed).sample(all_of_them, count))


def _child(run_dir: Path, resume: bool, fault: Fault | None, at: int, lasting: bool, log: Path, done: Path) -> int:
    count, active = 0, True
    operations = os.open(done, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    inside = str(run_dir.resolve())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not active or event not in EVENTS or not str(arguments[0]).startswith(inside):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        os.write(operations, f"{event} {str(arguments[0])[len(inside) :]}\n".encode())
        if fault is not None and (count == at or (lasting and count > at)):
            fault(event)

    with log.open("w") as printed, without_ray():
        console = Console(file=printed, highlight=False, width=250)
        sys.addaudithook(hook)
        try:
            train.run(copy.deepcopy(DOCUMENT), run_dir, resume, PlainDisplay(console))
        except Exception as error:
            printed.write(f"{type(error).__name__}: {error}\n")
            return FAILED
        finally:
            active = False
    return 0


@contextlib.contextmanager
def without_ray() -> Iterator[None]:
    """Trainings whose env runner and learner are in this process need nothing of Ray but a place to put weights."""

    @contextlib.contextmanager
    def nothing(config: Any, copies: int = 1) -> Iterator[None]:
        yield

    replaced = {
        (ray, "put"): lambda value, **how: value,
        (ray, "get"): lambda value, **how: value,
        (train, "ray_session"): nothing,
        (train, "_report"): lambda run_dir: None,
    }
    before = {place: getattr(*place) for place in replaced}
    for (owner, name), value in replaced.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)


class Records(NamedTuple):
    """All that a run leaves behind, but for clocks: to be held against that of another."""

    weights: str
    progress: list[dict[str, float]]
    conversations: list[dict[str, Any]]
    events: list[tuple[str, int, float]]
    lineage: list[dict[str, Any]]


def records(run_dir: Path) -> Records:
    """Of a run that has ended."""
    found = manifest.find(run_dir / "checkpoints").path
    assert found is not None
    lines = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text().splitlines()]
    parts = [pd.read_parquet(part) for part in sorted((run_dir / "conversations").glob("*.parquet"))]
    rows = [row for part in parts for row in json.loads(part.to_json(orient="records"))]
    return Records(
        str(manifest.read(found)["weights"]),
        [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines],
        rows,
        _events(run_dir / "tensorboard"),
        json.loads(pd.read_parquet(run_dir / "lineage.parquet").to_json(orient="records")),
    )


def _events(folder: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of the scalars of all processes, in the order of TensorBoard, which hides what was purged."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    names = [name for name in sorted(read.Tags()["scalars"]) if name not in CLOCKS]
    return [(name, event.step, event.value) for name in names for event in read.Scalars(name)]
