"""traffic_v0: every traffic light of a town is an agent; SUMO, the simulator of the field, drives the vehicles.

Networks, observations, rewards and the rules of yellow are those of sumo-rl (Alegre 2019) and RESCO (Ault & Sharon
2021), to the last bit. It needs `pip install 'popcomm[traffic]'`.
`python -m popcomm.envs.traffic_v0 [FILE.png]` draws a grid under max-pressure.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import one_of, share, whole
from popcomm.envs.process_worlds import TIMEOUT, ProcessWorlds
from popcomm.envs.sumo_map import SumoMap, read_map
from popcomm.envs.sumo_nets import check_installed, roads_of
from popcomm.envs.sumo_part import MEASURES, REWARDS, Rules, SumoPart, observation_size
from popcomm.envs.worker_process import WorkerProcess, timeout_of
from popcomm.envs.world import Species, World, WorldStep
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "signal"


class Traffic(NamedTuple):
    """How traffic stands, for those who know all. L lanes, in the order of the map."""

    vehicles: np.ndarray  # [B, L] int64
    standing: np.ndarray  # [B, L] int64, of these slower than 0.1 m/s
    phases: np.ndarray  # [B, N] int64, the green phase of each light, or the next one while it is yellow
    seconds: np.ndarray  # [B] int64, since the episode began
    lights: list[list[str]]  # of each world and light the state, a letter for each link


class TrafficWorld(ProcessWorlds):
    """B towns with N traffic lights each; every town is a simulation in a process of its own.

    A step is `delta_time` seconds. Actions, Discrete(A): the green phase to show, where A is the number of phases of
    the light that has most; a mask forbids those that a light does not have, where lights differ. Another phase than
    the present one is taken if that has been shown for `min_green` seconds or more, after `yellow_time` seconds of
    yellow; until then the light stays as it is. Agents are named as SUMO names lights.

    Observation [A + 1 + 2 M], sumo-rl's: the phase, one-hot; 1 if it may change; and for each lane before the light,
    of which the largest light has M, its density and its queue: vehicles, and vehicles slower than 0.1 m/s, as shares
    of those that fit on it. What a light does not have is 0.

    Reward, own: "diff-waiting-time", by how much less vehicles before the light have waited altogether than a step
    earlier, in hundreds of seconds; "queue", minus the number of vehicles that stand there; "pressure", the vehicles
    on lanes after it less those before it; "average-speed", as shares of what is allowed, 1 where nobody is. What a
    seat gets is (1 - reward_share) * own + reward_share * (mean of own over the lights).

    An episode has `max_steps` steps and is cut there (truncated). It is a function of its seed and the actions: SUMO's
    chances, and on grids also who drives where, are drawn from it. State [N (A + 1 + 2 M) + 1]: all observations, and
    the share of the episode that is over. Positions are of the junctions, in meters.

    Metrics: "queue", vehicles that stand before a light, mean over lights and steps; at the ends of episodes, from
    SUMO's tripinfo, means over vehicles that arrived: "waiting_time" and "travel_time", seconds; "throughput",
    arrivals an hour; and "backlog", vehicles that are still on their way or not let in yet: where it is large, means
    over arrivals flatter.

    Processes start with the first `reset`. A saved state is the seed and actions of the episode, which is played again
    (SUMO's own saved states lose digits): to the last bit the same, in 1 to 2 ms a step.

    Args:
        num_worlds: B, and so many processes.
        net: "grid", of a size of one's own; one of RESCO's: grid4x4, arterial4x4, cologne1, cologne3, cologne8,
            ingolstadt1, ingolstadt7, ingolstadt21; or a .net.xml of SUMO's.
        size: of a grid: so many crossings on a side; 4.
        demand: on a grid: vehicles an hour at every entrance; 200.
        routes: for a net of one's own: a file of SUMO's with who drives there.
        begin: for a net of one's own: the second at which an episode begins; 0.
        max_steps: steps of an episode; 720 are an hour.
        delta_time: seconds of a step.
        yellow_time: seconds of yellow between two phases.
        min_green: seconds of green at least, to be followed by yellow.
        reward: see the reward above.
        reward_share: 0 = own reward only, 1 = the mean of all.
        timeout: seconds after which a process that does not answer counts as hanging.

    Raises:
        UserError: SUMO is not installed; a value out of its range or without effect; actions that do not fit (`step`).
        RuntimeError: as `ProcessWorlds`.
    """

    name = "traffic_v0"
    position_size = 2

    def __init__(
        self,
        num_worlds: int = 1,
        device: str | torch.device = "cpu",
        net: str | os.PathLike[str] = "grid4x4",
        size: int | None = None,
        demand: float | None = None,
        routes: str | os.PathLike[str] | None = None,
        begin: int | None = None,
        max_steps: int = 720,
        delta_time: int = 5,
        yellow_time: int = 2,
        min_green: int = 5,
        reward: str = "diff-waiting-time",
        reward_share: float = 0.0,
        timeout: float = TIMEOUT,
    ) -> None:
        self.num_worlds, self.device = whole(f"{self.name}: num_worlds", num_worlds, 1), torch.device(device)
        self.timeout = timeout_of(f"{self.name}: timeout", timeout)
        self.max_steps = whole(f"{self.name}: max_steps", max_steps, 1)
        self.reward_share = share(f"{self.name}: reward_share", reward_share)
        one_of(f"{self.name}: reward", reward, REWARDS)
        yellow, green = (
            whole(f"{self.name}: yellow_time", yellow_time, 1),
            whole(f"{self.name}: min_green", min_green, 0),
        )
        if whole(f"{self.name}: delta_time", delta_time, 1) <= yellow:
            raise UserError(f"{self.name}: delta_time is {delta_time}, and must be above yellow_time, {yellow}")
        check_installed()
        self._folder = tempfile.TemporaryDirectory(prefix="popcomm-traffic-")
        folder = Path(self._folder.name)
        roads = roads_of(net, size, demand, routes, begin, folder)
        self.plan: SumoMap = read_map(roads.net)
        self.delta_time = delta_time
        self._rules = Rules(self.plan, roads, folder, max_steps, delta_time, yellow, green, reward)
        self._workers: list[WorkerProcess] = []
        self._parts = [range(i, i + 1) for i in range(num_worlds)]
        self._started, self._last, self.seeds = False, None, [0] * num_worlds
        self._describe()
        self._measured = self._sums = np.zeros(len(MEASURES))

    def _describe(self) -> None:
        """What is told of agents, and what of it is the same in every step."""
        plan, seats = self.plan, len(self.plan.signals)
        most, size = max(plan.num_phases), observation_size(plan)
        masked = min(plan.num_phases) < most
        self.species = {NAME: Species(NAME, 0, seats, size, spaces.Discrete(most), plan.signals, masked)}
        self.state_size = seats * size + 1
        self._phases = torch.tensor(plan.num_phases, device=self.device)
        allowed = torch.arange(most, device=self.device) < self._phases.unsqueeze(-1)
        self._masks = allowed.expand(self.num_worlds, -1, -1) if masked else None
        self._positions = torch.from_numpy(plan.positions).to(self.device).expand(self.num_worlds, -1, -1)
        self.agents = list(plan.signals)

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        """{species: what one agent observes and does, as the PettingZoo face of this world shows it}."""
        return World.env_spaces.__get__(self)

    def _wake(self) -> None:
        """Start the processes, once."""
        if not self._started:
            self._started = True
            told = self._launch(cloudpickle.dumps((SumoPart, (self._rules,))), "environment.env_config.timeout")
            assert all(part["signals"] == self.plan.signals for part in told)

    def reset(self, seed: int | None = None) -> WorldStep:
        """Raises UserError, RuntimeError: see the class."""
        self._wake()
        return super().reset(seed)

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Raises UserError: never reset, or actions that are no choices of phases; RuntimeError: see the class."""
        self._check(actions[NAME])
        row = super().step(actions, spoken)
        self._sums = self._sums + self._measured
        return row

    def _check(self, chosen: Tensor) -> None:
        expected = (self.num_worlds, self.num_agents)
        if chosen.shape != expected:
            raise UserError(f"actions of '{NAME}' have shape {tuple(chosen.shape)}, and must have {expected}")
        if self._last is None:
            return  # told by the class above
        wrong = (chosen < 0) | (chosen >= self._phases.to(chosen.device))
        wrong &= self._last.alive.to(chosen.device)
        if wrong.any():
            world, seat = wrong.nonzero()[0].tolist()
            most = self.plan.num_phases[seat]
            raise UserError(
                f"the action of '{self.agents[seat]}' in world {world} is {int(chosen[world, seat])}, and must be one "
                f"of its {most} phases, 0 to {most - 1}"
            )

    def _publish(self, parts: list[dict[str, Any]]) -> WorldStep:
        arrays = {key: np.concatenate([part["arrays"][key] for part in parts]) for key in parts[0]["arrays"]}
        self.seeds = [seed for part in parts for seed in part["seeds"]]
        self._measured = arrays["measured"].sum(0)
        told = {key: torch.from_numpy(array).to(self.device) for key, array in arrays.items()}
        seen, own = told["observations"], told["rewards"]
        state = torch.cat((seen.flatten(1), told["age"].unsqueeze(-1)), -1) if self.tells_state else None
        self._last = WorldStep(
            observations={NAME: seen},
            rewards=own + self.reward_share * (own.mean(-1, keepdim=True) - own),
            terminated=told["terminated"],
            truncated=told["truncated"],
            alive=told["alive"],
            first=told["first"],
            positions=self._positions.clone(),
            state=state,
            action_masks=None if self._masks is None else {NAME: self._masks.clone()},
        )
        return self._last

    def get_state(self) -> dict[str, Any]:
        """Seeds and actions of the running episodes, and what was counted. Raises UserError: it was not reset yet."""
        if self._last is None:
            raise UserError(f"{self.name} has no state before it was reset; call reset first")
        state = super().get_state()
        assert state is not None
        return {**state, "sums": torch.from_numpy(self._sums.copy())}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        """Play the episodes again, up to where they were. Raises UserError: as `ProcessWorlds`."""
        self._wake()
        row = super().set_state(state)
        self._sums = state["sums"].numpy().copy()
        return row

    def metrics(self) -> dict[str, float]:
        """ "queue" of the steps since it was last asked; where episodes ended, the others that the class names."""
        of = dict(zip(MEASURES, self._sums.tolist(), strict=True))
        self._sums = np.zeros(len(MEASURES))
        found = {"queue": of["queue"] / of["steps"]} if of["steps"] else {}
        if of["episodes"]:
            found |= {"throughput": of["arrived"] / of["hours"], "backlog": of["backlog"] / of["episodes"]}
        if of["arrived"]:
            found |= {key: of[key] / of["arrived"] for key in ("waiting_time", "travel_time")}
        return found

    def here(self) -> Traffic:
        """How traffic stands, for scripts that know all. Raises UserError: it was not reset yet."""
        if self._last is None:
            raise UserError(f"{self.name} shows nothing before it was reset; call reset first")
        parts = self._ask("look", [{}] * self.num_worlds)
        arrays = {key: np.array([part[key] for part in parts]) for key in ("vehicles", "standing", "phases", "seconds")}
        return Traffic(**arrays, lights=[part["lights"] for part in parts])

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One town as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.traffic_picture import draw_traffic

        traffic = self.here()
        minutes, seconds = divmod(int(traffic.seconds[world]), 60)
        return draw_traffic(
            self.plan,
            traffic.standing[world],
            traffic.lights[world],
            links=None if links is None else links.cpu().numpy(),
            title=f"{minutes} min {seconds:02d} s, {int(traffic.vehicles[world].sum())} vehicles",
        )

    def close(self) -> None:
        """End the processes; the worlds cannot be used any more."""
        self._started = True
        super().close()
        self._folder.cleanup()


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One town as a PettingZoo ParallelEnv; keyword arguments are TrafficWorld's."""
    return WorldParallelEnv(TrafficWorld(num_worlds=1, **kwargs), name="traffic_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One town as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One town as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("traffic_v0")
