"""What sumo-rl itself says of networks and actions: a program, since libsumo holds one simulation per process.

python -m tests.envs.sumo_rl_reference FILE.npz: of each "NET/REWARD/actions" [T, N] in the file, "NET/REWARD/seen"
[T + 1, N, O], padded with NaN, and "NET/REWARD/rewards" [T, N] are written to it. The environment's seed is SEED.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SEED = 11


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


def played(files: dict[str, Any], reward: str, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations [T + 1, N, O] and rewards [T, N] of an episode's beginning."""
    env = sumo_rl().SumoEnvironment(
        num_seconds=3600, reward_fn=reward, sumo_warnings=False, add_system_info=False, add_per_agent_info=False,
        additional_sumo_cmd="--no-step-log --duration-log.disable", **files,
    )  # fmt: skip
    seen, rewards = [env.reset(seed=SEED)], []
    for chosen in actions:
        observations, earned, _, _ = env.step(dict(zip(env.ts_ids, chosen.tolist(), strict=True)))
        seen.append(observations)
        rewards.append([earned[name] for name in env.ts_ids])
    env.close()
    rows = np.full((len(seen), len(env.ts_ids), max(len(one) for one in seen[0].values())), np.nan, dtype=np.float32)
    for t, row in enumerate(seen):
        for seat, name in enumerate(env.ts_ids):
            rows[t, seat, : len(row[name])] = row[name]
    return rows, np.array(rewards)


def main(file: str) -> None:
    from popcomm.envs.sumo_nets import RESCO, resco_folder

    found = dict(np.load(file))
    for key in [key for key in found if key.endswith("/actions")]:
        net, reward, _ = key.split("/")
        place = resco_folder() / net
        routes = next(iter(place.glob("*.rou.xml")))
        files = {"net_file": str(place / f"{net}.net.xml"), "route_file": str(routes), "begin_time": RESCO[net]}
        found[f"{net}/{reward}/seen"], found[f"{net}/{reward}/rewards"] = played(files, reward, found[key])
    np.savez(file, **found)


if __name__ == "__main__":
    main(sys.argv[1])
