"""swarm_v0: boids on a torus look for a beacon that only those near it perceive.

All are paid for being close to the beacon and for standing together, so those who perceive it gain by telling the
others where it is. `python -m popcomm.envs.swarm_v0 [FILE.gif]` draws a random episode.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import AECEnv
from torch import Tensor

from popcomm.checks import number, share, whole
from popcomm.envs.drawing_world import DrawingWorld
from popcomm.envs.swarm_dynamics import attraction, crowding, limit_speed, on_circle, shortest, wrap
from popcomm.envs.world import Species, WorldStep
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "swarm"
LABEL_GRID = 4  # labels are cells of a 4 x 4 grid over the torus
OBS_SIZE = 10
STATE_SIZE = 11
MAX_CELLS = 1024  # nodes of the density's mesh along an axis
# The thrust of Discrete(5): none, +x, -x, +y, -y; one row per axis.
THRUSTS = ((0.0, 1.0, -1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, -1.0))


class SwarmWorld(DrawingWorld):
    """B swarms of N boids on a torus `size` x `size`, each with one hidden beacon that drifts slowly.

    Motion in a step (units of length and steps): velocity <- (1 - drag) velocity + acceleration * thrust
    + cohesion * attraction to the others - separation * gradient of log(1 + density), cut to `max_speed`; then
    position <- position + velocity. See `swarm_dynamics` for attraction and density.

    Observation [10]: cos x, cos y, sin x, sin y of the own position (as angles round the torus), velocity / max_speed
    (2), crowd = density / (1 + density), the glimpse (2: displacement to the beacon / (size / 2), with noise; zeros if
    it is not perceived), and 1 if it is perceived.

    State [11]: cos x, cos y, sin x, sin y of the swarm's circular centroid, mean velocity / max_speed (2), dispersion
    (1 - mean resultant length, averaged over the axes: 0 all in one place, 1 all over), and the beacon (4, as angles).

    Reward: own = exp(-distance to the beacon / reward_length) + cluster_reward * crowd - message_cost * spoken, and
    what a seat gets is (1 - reward_share) * own + reward_share * (mean of own over the seats).

    A swarm that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        num_agents: N.
        size: extent of the torus along both axes.
        sensing_radius: the beacon is perceived within it, where no scouts are appointed.
        scout_fraction: None, or the share of seats (the first ones) that perceive the beacon from everywhere, while the
            others never do; rounded to whole seats.
        continuous_actions: a thrust in Box(-1, 1, (2,)) in place of Discrete(5) (none, +x, -x, +y, -y).
        max_steps: length of an episode; it is cut there for all.
        stagger: worlds start at different ages after `reset`, so that their episodes do not all end at once.
        message_cost: price of one spoken symbol, in units of reward.
        reward_share: 0 = own reward only, 1 = the mean of all.
        reward_length: the distance at which the beacon's reward has fallen to 1 / e.
        cluster_reward: reward of an infinitely dense crowd.
        glimpse_noise: standard deviation of the glimpse, in units of length, per axis.
        acceleration, drag, max_speed, cohesion, separation: see the motion above.
        neighbour_range: width of the cells of the density (units of length; rounded so that at least 3 whole cells fill
            the torus).
        beacon_speed: length per step.
        beacon_turn: standard deviation of the beacon's change of heading, radians per step.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "swarm_v0", ("planes", "velocity", "beacon", "heading", "age")

    position_size = 2
    state_size = STATE_SIZE
    num_labels = LABEL_GRID**2
    label_attributes = torch.cartesian_prod(torch.arange(LABEL_GRID), torch.arange(LABEL_GRID))  # row, column

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int = 10,
        device: str | torch.device = "cpu",
        size: float = 10.0,
        sensing_radius: float = 1.5,
        scout_fraction: float | None = None,
        continuous_actions: bool = False,
        max_steps: int = 100,
        message_cost: float = 0.0,
        reward_share: float = 0.5,
        reward_length: float = 2.0,
        cluster_reward: float = 0.1,
        glimpse_noise: float = 0.1,
        acceleration: float = 0.1,
        drag: float = 0.1,
        max_speed: float = 0.25,
        cohesion: float = 0.005,
        separation: float = 0.01,
        neighbour_range: float = 1.25,
        beacon_speed: float = 0.05,
        beacon_turn: float = 0.1,
        stagger: bool = False,
    ) -> None:
        _check_ranges(locals())
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.size, self.sensing_radius, self.max_steps = float(size), sensing_radius, max_steps
        self.message_cost, self.reward_share, self.reward_length = message_cost, reward_share, reward_length
        self.cluster_reward, self.glimpse_noise = cluster_reward, glimpse_noise
        self.acceleration, self.drag, self.max_speed = acceleration, drag, max_speed
        self.cohesion, self.separation = cohesion, separation
        self.cells = max(3, round(size / neighbour_range))
        self.beacon_speed, self.beacon_turn, self.stagger = beacon_speed, beacon_turn, stagger
        self.torus, self.continuous_actions = (self.size, self.size), continuous_actions
        action_space = spaces.Box(-1.0, 1.0, (2,), np.float32) if continuous_actions else spaces.Discrete(5)
        names = tuple(f"{NAME}_{i}" for i in range(num_agents))
        self.species = {NAME: Species(NAME, 0, num_agents, OBS_SIZE, action_space, names)}
        self._thrusts = torch.tensor(THRUSTS, device=self.device) * acceleration
        self._scouts = None if scout_fraction is None else self._first(round(scout_fraction * num_agents))
        self._even = torch.full((num_agents,), 1.0 / num_agents, device=self.device)
        self._nothing = torch.tensor(-1, device=self.device)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(0)
        self._last: WorldStep | None = None
        self._planes: Tensor  # [2, B, N]
        self._velocity: Tensor  # [2, B, N]
        self._beacon: Tensor  # [2, B]
        self._heading: Tensor  # [B]
        self._age: Tensor  # [B] int64, steps since the episode opened

    def _first(self, count: int) -> Tensor:
        """[N] bool, the first seats."""
        return torch.arange(self.num_agents, device=self.device) < count

    def reset(self, seed: int | None = None) -> WorldStep:
        if seed is not None:
            self._generator.manual_seed(seed)
        self._open(None)
        self._age = torch.zeros(self.num_worlds, dtype=torch.int64, device=self.device)
        if self.stagger:
            self._age.random_(0, self.max_steps, generator=self._generator)
        return self._look(torch.ones_like(self._age, dtype=torch.bool))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Raises UserError: the world was not reset, or actions of another shape."""
        if self._last is None:
            raise UserError("swarm_v0 was stepped before it was reset; call reset first")
        opening = self._age == self.max_steps
        self._move(self._thrust(actions))
        self._drift()
        self._age = self._age + 1
        if not bool(opening.any()):
            return self._look(None, spoken)
        self._open(opening)
        self._age.masked_fill_(opening, 0)
        return self._look(opening, spoken)

    def _open(self, opening: Tensor | None) -> None:
        """Draw the start of an episode for worlds that open, [B] bool; None: for all."""
        shape = (2, self.num_worlds, self.num_agents)
        planes = wrap(self._uniform(*shape).mul_(self.size), self.size)
        beacon = wrap(self._uniform(2, self.num_worlds).mul_(self.size), self.size)
        heading = self._uniform(self.num_worlds).mul_(2.0 * math.pi)
        velocity = torch.zeros(shape, device=self.device)
        if opening is not None:
            planes = torch.where(opening.unsqueeze(-1), planes, self._planes)
            velocity = torch.where(opening.unsqueeze(-1), velocity, self._velocity)
            beacon = torch.where(opening, beacon, self._beacon)
            heading = torch.where(opening, heading, self._heading)
        self._planes, self._velocity, self._beacon, self._heading = planes, velocity, beacon, heading

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, device=self.device)

    def _thrust(self, actions: dict[str, Tensor]) -> Tensor:
        """Actions -> accelerations [2, B, N]."""
        chosen = actions[NAME]
        expected = (self.num_worlds, self.num_agents) + ((2,) if self.continuous_actions else ())
        if chosen.shape != expected:
            raise UserError(f"actions of '{NAME}' have shape {tuple(chosen.shape)}, and must have {expected}")
        if self.continuous_actions:
            return chosen.permute(2, 0, 1).contiguous().clamp(-1.0, 1.0).mul_(self.acceleration)
        return self._thrusts.index_select(1, chosen.reshape(-1)).view(2, *expected)

    def _move(self, force: Tensor) -> None:
        force.add_(self._pull, alpha=self.cohesion).add_(self._push, alpha=-self.separation)
        self._velocity = limit_speed(force.add_(self._velocity, alpha=1.0 - self.drag), self.max_speed)
        self._planes = wrap(self._planes + self._velocity, self.size)

    def _drift(self) -> None:
        turn = torch.randn(self.num_worlds, generator=self._generator, device=self.device)
        self._heading = self._heading.add(turn, alpha=self.beacon_turn)
        stride = torch.stack((self._heading.cos(), self._heading.sin())).mul_(self.beacon_speed)
        self._beacon = wrap(stride.add_(self._beacon), self.size)

    def _sense(self) -> None:
        """What follows from the positions alone: it feeds the observation and the next step's forces."""
        self._circle = on_circle(self._planes, self.size)
        self._resultant = self._mean(self._circle)
        self._pull = attraction(self._circle, self._resultant)
        density, self._push = crowding(self._planes, self.size, self.cells)
        sparse = density.add_(1.0).reciprocal_()
        self._push.mul_(sparse)  # the gradient of log(1 + density)
        self._crowd = sparse.neg_().add_(1.0)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over seats, [..., N] -> [...]: a product is several times faster than a reduction over a short axis."""
        return values @ self._even

    def _look(self, opening: Tensor | None, spoken: Tensor | None = None) -> WorldStep:
        """The WorldStep of the present; the rewards of rows that open an episode, [B] bool, are zero."""
        self._sense()
        to_beacon = shortest(self._beacon.unsqueeze(-1) - self._planes, self.size)
        distance = to_beacon[0].square().addcmul_(to_beacon[1], to_beacon[1]).sqrt_()
        perceives = distance < self.sensing_radius if self._scouts is None else self._scouts.expand_as(distance)
        shape = distance.shape
        over = (self._age == self.max_steps).unsqueeze(-1).expand(shape).contiguous()
        rewards = self._rewards(distance, spoken)
        if opening is None:
            first = torch.zeros(shape, dtype=torch.bool, device=self.device)
        else:
            first = opening.unsqueeze(-1).expand(shape).contiguous()
            rewards.masked_fill_(first, 0.0)
        self._last = WorldStep(
            observations={NAME: self._observations(to_beacon, perceives)},
            rewards=rewards,
            terminated=torch.zeros(shape, dtype=torch.bool, device=self.device),
            truncated=over,
            alive=~over,
            first=first,
            positions=_seats_first(self._planes),
            state=self._state(),
            labels=self._labels(perceives),
        )
        return self._last

    def _rewards(self, distance: Tensor, spoken: Tensor | None) -> Tensor:
        own = distance.mul_(-1.0 / self.reward_length).exp_().add_(self._crowd, alpha=self.cluster_reward)
        if spoken is not None and self.message_cost:
            own.sub_(spoken, alpha=self.message_cost)
        shared = self._mean(own).unsqueeze(-1).mul_(self.reward_share)
        return own.mul_(1.0 - self.reward_share).add_(shared)

    def _observations(self, to_beacon: Tensor, perceives: Tensor) -> Tensor:
        """[B, N, 10]; see the class."""
        planes = torch.empty(OBS_SIZE, *perceives.shape, device=self.device)
        planes[:4] = self._circle
        torch.mul(self._velocity, 1.0 / self.max_speed, out=planes[4:6])
        planes[6] = self._crowd
        planes[9] = perceives
        if self.glimpse_noise:
            noise = torch.randn(to_beacon.shape, generator=self._generator, device=self.device)
            to_beacon.add_(noise, alpha=self.glimpse_noise)
        torch.mul(to_beacon.mul_(2.0 / self.size), planes[9], out=planes[7:9])
        return _seats_first(planes)

    def _state(self) -> Tensor:
        """[B, 11]; see the class."""
        parts = torch.empty(STATE_SIZE, self.num_worlds, device=self.device)
        squares = self._resultant.square()
        length = torch.add(squares[:2], squares[2:]).sqrt_()
        # A perfectly spread swarm has no centroid; its zeros say so, and the dispersion is 1 there.
        torch.div(self._resultant.view(2, 2, -1), length.clamp(min=1e-6), out=parts[:4].view(2, 2, -1))
        torch.mul(self._mean(self._velocity), 1.0 / self.max_speed, out=parts[4:6])
        torch.add(length[0], length[1], out=parts[6]).mul_(-0.5).add_(1.0)
        parts[7:] = on_circle(self._beacon, self.size)
        return parts.t().clone(memory_format=torch.contiguous_format)

    def _labels(self, perceives: Tensor) -> Tensor:
        """[B, N]: the beacon's cell, row by row from the origin, for those who perceive it; -1 for the others."""
        cell = self._beacon.mul(LABEL_GRID / self.size).floor_().clamp_(max=LABEL_GRID - 1)
        label = torch.add(cell[0], cell[1], alpha=LABEL_GRID).to(torch.int64)
        return torch.where(perceives, label.unsqueeze(-1), self._nothing)

    def _restored(self) -> None:
        self._sense()

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.swarm_picture import draw_swarm

        if self._last is None or self._last.labels is None:
            raise UserError("swarm_v0 has no picture before it was reset; call reset first")
        return draw_swarm(
            positions=self._planes[:, world].t().cpu().numpy(),
            velocity=self._velocity[:, world].t().cpu().numpy(),
            beacon=self._beacon[:, world].cpu().numpy(),
            perceives=(self._last.labels[world] >= 0).cpu().numpy(),
            size=self.size,
            radius=self.sensing_radius if self._scouts is None else None,
            links=None if links is None else links.cpu().numpy(),
            title=f"step {int(self._age[world])} of {self.max_steps}",
        )


def _seats_first(planes: Tensor) -> Tensor:
    """[K, B, N] -> [B, N, K], always a copy: `contiguous` would hand out our own memory where B = N = 1."""
    return planes.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)


def _check_ranges(values: dict[str, Any]) -> None:
    for key in ("num_worlds", "num_agents", "max_steps"):
        whole(f"swarm_v0: {key}", values[key], 1)
    for key in ("size", "sensing_radius", "reward_length", "max_speed", "neighbour_range"):
        number(f"swarm_v0: {key}", values[key], "be above 0", above=0)
    for key in ("message_cost", "cluster_reward", "glimpse_noise", "beacon_speed", "beacon_turn"):
        number(f"swarm_v0: {key}", values[key], "not be negative", least=0)
    if values["size"] / values["neighbour_range"] > MAX_CELLS:
        least = values["size"] / MAX_CELLS
        raise UserError(
            f"swarm_v0: neighbour_range is {values['neighbour_range']}, and must be at least {least:g} here"
        )
    for key in ("reward_share", "drag", "scout_fraction"):
        if values[key] is not None:
            share(f"swarm_v0: {key}", values[key])


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One swarm as a PettingZoo ParallelEnv; keyword arguments are SwarmWorld's.

    >>> env = parallel_env(num_agents=3)
    >>> observations, infos = env.reset(seed=1)
    >>> sorted(observations), observations["swarm_0"].shape
    (['swarm_0', 'swarm_1', 'swarm_2'], (10,))
    """
    return WorldParallelEnv(SwarmWorld(num_worlds=1, **kwargs), name="swarm_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One swarm as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One swarm as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("swarm_v0")
