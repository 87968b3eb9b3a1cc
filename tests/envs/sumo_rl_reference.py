"""sumo-rl itself and traffic_v0 with the same actions: a program, since libsumo is in no process that has pyarrow.

python -m tests.envs.sumo_rl_reference FILE.npz writes, for each NET/REWARD and both, "seen" [T + 1, N, O] float32
(what lights see, padded with NaN) and "rewards" [T, N] float32.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SEED, STEPS = 11, 40
USUAL = "diff-waiting-time"
CELLS = [
    *((net, USUAL) for net in ("grid4x4", "arterial4x4", "cologne8", "ingolstadt21", "cologne3")),
    *(("cologne3", reward) for reward in ("queue", "pressure", "average-speed")),
]


def sumo_rl() -> Any:
    """The package, made to work with today's PettingZoo, and with libsumo in place of a socket."""
    spec = find_spec("sumo")
    assert spec is not None
    assert spec.origin is not None
    os.environ |= {"SUMO_HOME": str(Path(spec.origin).parent), "LIBSUMO_AS_TRACI": "quiet"}
    sys.modules["pyarrow"] = None  # type: ignore[assignment]  # pandas imports it, and libsumo has another
    utils = import_module("pettingzoo.utils")
    utils.agent_selector = utils.AgentSelector  # type: ignore[attr-defined]
    return import_module("sumo_rl.environment.env")


def theirs(net: str, reward: str, actions: np.ndarray) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """What each light sees in each step, and rewards [T, N]."""
    from popcomm.envs.sumo_nets import RESCO, resco_folder

    place = resco_folder() / net
    env = sumo_rl().SumoEnvironment(
        str(place / f"{net}.net.xml"), str(next(iter(place.glob("*.rou.xml")))), begin_time=RESCO[net],
        reward_fn=reward, sumo_warnings=False, add_system_info=False, add_per_agent_info=False,
        additional_sumo_cmd="--no-step-log --duration-log.disable",
    )  # fmt: skip
    seen, rewards = [list(env.reset(seed=SEED).values())], []
    for chosen in actions:
        observations, earned, _, _ = env.step(dict(zip(env.ts_ids, chosen.tolist(), strict=True)))
        seen.append([observations[name] for name in env.ts_ids])
        rewards.append([earned[name] for name in env.ts_ids])
    env.close()
    return seen, np.array(rewards, dtype=np.float32)


def ours(world: Any, actions: np.ndarray) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """The same of the part of a TrafficWorld that is in a process, without its padding."""
    from popcomm.envs.sumo_part import SumoPart

    part = SumoPart(world._rules, 0, 1, 1, lambda *note: None)
    plan, most = world.plan, max(world.plan.num_phases)

    def bare() -> list[np.ndarray]:
        rows = []
        for seen, phases, lanes in zip(part._arrays["observations"], plan.num_phases, plan.incoming, strict=True):
            flag, density, queue = np.split(seen[most:], [1, 1 + plan.most_lanes])
            assert not seen[phases:most].any()
            assert not density[len(lanes) :].any()
            rows.append(np.concatenate((seen[:phases], flag, density[: len(lanes)], queue[: len(lanes)])))
        return rows

    part._open(SEED)
    seen, rewards = [bare()], []
    for chosen in actions:
        part.step_all({"signal": chosen[None]}, None, True)
        seen.append(bare())
        rewards.append(part._arrays["rewards"].copy())
    part.close()
    return seen, np.array(rewards)


def padded(rows: list[list[np.ndarray]]) -> np.ndarray:
    width = max(len(one) for one in rows[0])
    return np.array([[np.pad(one, (0, width - len(one)), constant_values=np.nan) for one in row] for row in rows])


def main(file: str) -> None:
    sumo_rl()
    from popcomm.envs.traffic_v0 import TrafficWorld

    found, rng = {}, np.random.default_rng(SEED)
    for net, reward in CELLS:
        world = TrafficWorld(net=net, reward=reward)
        phases = np.array(world.plan.num_phases)
        actions = (rng.random((STEPS, len(phases))) * phases).astype(np.int64)
        for who, (seen, rewards) in {
            "sumo-rl": theirs(net, reward, actions), "ours": ours(world, actions)
        }.items():  # fmt: skip
            found[f"{net}/{reward}/{who}/seen"], found[f"{net}/{reward}/{who}/rewards"] = padded(seen), rewards
    np.savez(file, **found)


if __name__ == "__main__":
    main(sys.argv[1])
