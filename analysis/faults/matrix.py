"""Faults of processes, environments and memory in real trainings on Ray: what the user reads, and what they cost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DOCUMENT: dict[str, Any] = {
    "environment": {"env": "popcomm.analysis.faults.faulty_env:FaultyEnv"},
    "communication": {"messages": {"kind": "symbols", "vocab_size": 4, "length": 1}},
    "population": {"agent": "mlp"},
    "env_runners": {
        "num_env_runners": 2,
        "num_worlds_per_env_runner": 4,
        "rollout_fragment_length": 8,
        "sample_timeout_s": 30,
    },
    "training": {"num_epochs": 1},
    "recording": {"conversation_every": 0, "picture_every": 0, "checkpoint_every": 5},
    "debugging": {"seed": 3},
    "stop": {"training_iteration": 40},
}
LIMIT_SECONDS = 300.0
RUNNER, LEARNER = "PopulationEnvRunner", "_WrappedExecutable"  # Ray's name for whatever class learns


class Told(NamedTuple):
    """What came of a fault.

    said: the line in which the user reads of it.
    code: the exit code of `popcomm train`.
    seconds: from the fault to the next iteration with all that take part; None where the training ended.
    """

    fault: str
    said: str
    code: int
    seconds: float | None


class Fault(NamedTuple):
    """How it is brought about, and what the user is to read."""

    said: str  # a regular expression
    sets: Mapping[str, Any] = {}
    action: Callable[[int], None] | None = None  # on the process, after its first lines of progress
    code: int = 0


def _actors(process: int, of: str) -> list[int]:
    """Processes of Ray's actors of a class among the descendants of a process, by their names."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in found.splitlines()[1:]]
    family = {process}
    while more := {int(pid) for pid, parent, _ in rows if int(parent) in family} - family:
        family |= more
    return [int(pid) for pid, _, name in rows if int(pid) in family and of in name]


def _kill_one(process: int) -> None:
    os.kill(_actors(process, RUNNER)[0], signal.SIGKILL)


def _kill_all(process: int) -> None:
    for runner in _actors(process, RUNNER):
        os.kill(runner, signal.SIGKILL)


def _kill_learner(process: int) -> None:
    os.kill(_actors(process, LEARNER)[-1], signal.SIGKILL)


ENV = "environment.env_config."
# Long enough for who was lost to come back.
LONGER = {"stop.training_iteration": 200}
FAULTS = {
    "an env runner is killed": Fault(r"env runner \d is lost: .* 1 of 2 sample", LONGER, _kill_one),
    "all env runners are killed": Fault(
        r"env runner \d is lost: .* 0 of 2 sample",
        LONGER | {"fault_tolerance.max_empty_iterations": 100},
        _kill_all,
    ),
    "an env runner is killed, and stays away": Fault(
        r"env runner \d is lost: .* stays away",
        {
            **LONGER,
            "fault_tolerance.restart_failed_env_runners": False,
            "fault_tolerance.ignore_env_runner_failures": True,
        },
        _kill_one,
    ),
    "a learner is killed": Fault(
        r"popcomm: learner 1 of 1 is lost: its process ended; .* --resume goes on from checkpoint_0",
        LONGER | {"env_runners.num_env_runners": 1, "learners.num_learners": 1, "recording.checkpoint_every": 1},
        _kill_learner,
        code=1,
    ),
    "the environment raises": Fault(r"RuntimeError: the bridge fell down", {ENV + "fault": "raise"}, code=1),
    "the environment raises, and worlds are made anew": Fault(
        r"Its worlds are made anew",
        {ENV + "fault": "raise", ENV + "flag": "once", "fault_tolerance.restart_failed_sub_environments": True},
    ),
    "the environment hangs": Fault(
        r"took more than 5 s for a step", {ENV + "fault": "hang", "env_runners.step_timeout_s": 5}, code=1
    ),
    "the environment hangs, without step_timeout_s": Fault(
        r"NoSamplesError: .*does its environment hang",
        {
            ENV + "fault": "hang",
            "env_runners.num_env_runners": 1,
            "env_runners.sample_timeout_s": 5,
            "fault_tolerance.max_empty_iterations": 2,
        },
        code=1,
    ),
    "the environment ends its process once": Fault(
        r"env runner \d is lost: its process ended", LONGER | {ENV + "fault": "exit", ENV + "flag": "once"}
    ),
    "the environment ends its process always": Fault(
        r"NoSamplesError: .*is lost: its process ended", {ENV + "fault": "exit", ENV + "at": 1}, code=1
    ),
    "the environment pays nan": Fault(r"a_0.* nan", {ENV + "fault": "nan", ENV + "flag": "once"}, code=1),
}


def try_out(name: str, folder: Path) -> Told:
    """Train with a fault. folder: an empty one.

    Raises:
        AssertionError: the user reads something else, or the training ends otherwise.
    """
    fault, run_dir = FAULTS[name], folder / "run"
    file = folder / "faulty.yaml"
    file.write_text(yaml.safe_dump(DOCUMENT))
    sets = {key: str(folder / "flag") if key.endswith("flag") else value for key, value in fault.sets.items()}
    given = [part for key, value in sets.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "popcomm.cli.main", "train", str(file), "--run-dir", str(run_dir), *given]
    with (folder / "log").open("w") as log:
        # Ray would give its processes what others leave over; here it is them who are waited for.
        environment = {**os.environ, "RAY_worker_niceness": "0"}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            if fault.action is not None:
                _wait_for_lines(run_dir, 3, process)
                fault.action(process.pid)
            code = process.wait(LIMIT_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
    printed = " ".join((folder / "log").read_text().split())
    found = re.search(fault.said, printed)
    assert found, f"{name}: nothing of '{fault.said}' in\n{printed[-3000:]}"
    assert code == fault.code, f"{name}: exit code {code}\n{printed[-3000:]}"
    return Told(name, found[0][-200:], code, _recovery(run_dir) if code == 0 else None)


def _wait_for_lines(run_dir: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if len(_progress(run_dir)) >= lines:
            return
        time.sleep(0.1)
    raise AssertionError(f"the training made no progress:\n{(run_dir.parent / 'log').read_text()[-3000:]}")


def _progress(run_dir: Path) -> list[dict[str, float]]:
    file = run_dir / "progress.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _recovery(run_dir: Path) -> float | None:
    """Seconds from the last line with all runners before some were missing to the next one with all."""
    lines = _progress(run_dir)
    full = max(line["charts/env_runners"] for line in lines)
    missing = [i for i, line in enumerate(lines) if line["charts/env_runners"] < full]
    if not missing or lines[-1]["charts/env_runners"] < full:
        return None
    return lines[missing[-1] + 1]["time_s"] - lines[max(0, missing[0] - 1)]["time_s"]
