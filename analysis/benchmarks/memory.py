"""Peak memory of a rollout above the arrays that it returns, for each seat, with short fragments and with long ones.

Each case is a process of its own. The kernel's high-water mark of resident memory (VmHWM) is reset right before the
rollout and read right after it, so everything counts: numpy, torch, Python. A smaller rollout comes first, so that
libraries that load on first use do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from popcomm.analysis.benchmarks.common import Measurement

SEAT_KIB = 20  # the most above the arrays, for each seat of all worlds
SYMBOLS = {"kind": "symbols", "vocab_size": 64, "length": 5}
SIZES = ((100, 64, 32), (100, 64, 256), (1000, 8, 64), (1000, 8, 256))  # agents, worlds, steps of a fragment
CASES: dict[str, dict[str, Any]] = {
    f"{name}, {agents} agents x {worlds} worlds x {length} steps": {
        "messages": messages,
        "agents": agents,
        "worlds": worlds,
        "length": length,
    }
    for name, messages in (("silent", None), ("symbols", SYMBOLS))
    for agents, worlds, length in SIZES
} | {
    "symbols, 100 members x 64 worlds x 256 steps": {
        "messages": SYMBOLS,
        "agents": 100,
        "worlds": 64,
        "length": 256,
        "members": 100,
    }
}


def run(quick: bool = False) -> list[Measurement]:
    """All cases; Linux only, like the mark that is read."""
    cases = dict(list(CASES.items())[:1]) if quick else CASES
    return [result for name, case in cases.items() for result in measure(name, case)]


def measure(name: str, case: dict[str, Any]) -> list[Measurement]:
    """The arrays, the peak in their terms, and what is above them for each seat.

    Raises:
        RuntimeError: the process that was measured failed; the text has what it said.
    """
    command = [sys.executable, "-m", "popcomm.analysis.benchmarks.memory", json.dumps(case)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"the rollout of '{name}' failed:\n{answer.stderr}")
    peak, arrays = json.loads(answer.stdout.splitlines()[-1])
    seats = case["agents"] * case["worlds"]
    return [
        Measurement("memory", f"{name}: arrays", arrays / 2**20, "MiB"),
        Measurement("memory", f"{name}: peak of the rollout / arrays", peak / arrays, "times"),
        Measurement(
            "memory", f"{name}: above them", (peak - arrays) / 2**10 / seats, "KiB a seat", SEAT_KIB, at_most=True
        ),
    ]


def rollout_memory(case: dict[str, Any]) -> tuple[int, int]:
    """(growth of resident memory at its peak, bytes of the returned arrays) of one rollout in this process."""
    import torch

    from popcomm.rllib.fragment import nbytes

    torch.set_num_threads(1)
    _runner({**case, "worlds": 1, "length": 1}).sample()
    runner = _runner(case)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    batch = runner.sample()
    return status("VmHWM") - before, nbytes(batch)


def _runner(case: dict[str, Any]) -> Any:
    from popcomm.rllib import PopulationPPOConfig
    from popcomm.rllib.env_runner import PopulationEnvRunner

    config = (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": case["agents"]})
        .communication(messages=case["messages"], topology={"kind": "k_nearest", "k": 4})
        .population(agent="mlp", members=case.get("members", 1))
        .env_runners(num_worlds_per_env_runner=case["worlds"], rollout_fragment_length=case["length"])
        .debugging(seed=0)
    )
    config.validate()
    return PopulationEnvRunner(config=config, worker_index=0)


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    print(json.dumps(rollout_memory(json.loads(sys.argv[1]))))
