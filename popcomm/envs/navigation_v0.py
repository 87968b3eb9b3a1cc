"""navigation_v0: N agents cover N landmarks and do not touch one another; how much of them they see can be cut.

Cooperative navigation (Lowe et al. 2017), in the numbers of MPE's simple_spread as the package mpe2 has it.
`python -m popcomm.envs.navigation_v0 [FILE.png]` draws the end of an episode.
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
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.world import Species
from popcomm.envs.world_parallel import WorldParallelEnv, turn_based, turn_based_raw
from popcomm.errors import UserError

NAME = "agent"
STAY, LEFT, RIGHT, DOWN, UP = range(5)
# MPE's laws of motion: seconds of a step, share of the velocity that is lost in it, acceleration of an action.
DT: float = 0.1
DAMPING: float = 0.25
THRUST: float = 5.0
# And of bodies of mass 1 that touch: their radius, the force, and the length over which it sets in.
SIZE, CONTACT_FORCE, CONTACT_MARGIN = 0.15, 100.0, 1e-3
NEAR = 0.1  # a landmark is occupied by an agent that is nearer
PUSHES = ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))


class NavigationWorld(EpisodicWorld):
    """B planes with N agents and N landmarks each, all placed evenly at random in [-extent, extent]^2.

    Actions, Discrete(5): 0 nothing, 1 left, 2 right, 3 down, 4 up. A step is MPE's: the position moves by the velocity
    that was, the velocity loses a quarter, and action and contacts add to it; agents are discs of radius 0.15 that push
    one another away, landmarks are in nobody's way. It is computed in float64, as there, so that a whole episode stays
    at MPE's to rounding. An episode has `max_steps` steps and is cut there (truncated).

    Reward of agent i: (1 - local_ratio) * (- the sum over landmarks of the distance of the agent nearest to it)
    + local_ratio * (- the number of agents that it touches).

    Observation: velocity (2), position (2), and by how much is seen (displacements are from the own position, 2 each):

    - view = None [6N]: all N landmarks, the N - 1 others, and 2 (N - 1) zeros, which are MPE's channel that nobody
      speaks on: to the last number what simple_spread shows. (popcomm's channel is beside observations.)
    - view = 0 [6]: the own landmark alone, which is number i for agent i. All are covered when each goes to its own;
      to do better takes what the others know.
    - between [6N + 3]: the own landmark; then all N landmarks and N - 1 others, zeros where they are further away than
      `view`; then N and N - 1 flags, 1 where it is seen.

    Others are in the order of seats, without the agent itself. State [6N]: velocities, positions, landmarks. Metrics,
    at the ends of episodes: "occupied", the share of landmarks that an agent is within 0.1 of; "distance", from a
    landmark to the agent nearest to it; "touches", of an agent in the whole episode, each step counted.

    A plane that was never seeded starts from seed 0.

    Args:
        num_worlds: B.
        num_agents: N; 3 in MPE.
        view: how far an agent sees, in units of length; None sees everything. See the observation above.
        max_steps: steps of an episode.
        local_ratio: weight of the own reward; the rest is that of the common one.
        extent: half the side of the square in which all start. Bodies keep their size: for N agents at the density of
            MPE's three take (N / 3)^0.5, 6.5 for 128.

    Raises:
        UserError: a value out of its range, or actions that do not fit (`step`).
    """

    name, kept = "navigation_v0", (*EpisodicWorld.kept, "place", "velocity", "landmarks", "touches", "counts")
    ends_at_deadline = False
    position_size = 2

    def __init__(
        self,
        num_worlds: int = 1,
        num_agents: int = 3,
        device: str | torch.device = "cpu",
        view: float | None = None,
        max_steps: int = 25,
        local_ratio: float = 0.5,
        extent: float = 1.0,
    ) -> None:
        n = whole(f"{self.name}: num_agents", num_agents, 1)
        super().__init__(num_worlds, device, max_steps)
        if view is not None:
            number(f"{self.name}: view", view, "not be negative, or null to see everything", least=0.0)
        self.view = view
        self.local_ratio = share(f"{self.name}: local_ratio", local_ratio)
        self.extent = number(f"{self.name}: extent", extent, "be a finite number above 0", above=0.0, below=math.inf)
        size = 6 if view == 0 else 6 * n if view is None else 6 * n + 3
        names = tuple(f"{NAME}_{i}" for i in range(n))
        self.species = {NAME: Species(NAME, 0, n, size, spaces.Discrete(5), names)}
        self.state_size = 6 * n
        self._pushes = torch.tensor(PUSHES, dtype=torch.float64, device=self.device) * THRUST
        # [N, N - 1], the others of each seat.
        seats = torch.arange(n, device=self.device)
        self._others = seats.expand(n, n)[~torch.eye(n, dtype=torch.bool, device=self.device)].view(n, n - 1)
        self._place: Tensor | None = None  # [B, N, 2] float64
        self._velocity: Tensor | None = None  # [B, N, 2] float64
        self._landmarks: Tensor | None = None  # [B, N, 2] float64
        self._touches: Tensor | None = None  # [B] float64, of an agent, in this episode so far
        # Finished episodes, and sums over them: landmarks occupied, distances, touches.
        self._counts = torch.zeros(4, dtype=torch.float64, device=self.device)

    def _begin(self, worlds: Tensor) -> None:
        shape = (2, self.num_worlds, self.num_agents, 2)
        drawn = torch.rand(shape, dtype=torch.float64, generator=self._generator, device=self.device)
        place, landmarks = drawn.mul_(2.0).sub_(1.0).mul_(self.extent)
        self._place = self._renewed(self._place, place, worlds)
        self._velocity = self._renewed(self._velocity, torch.zeros_like(place), worlds)
        self._landmarks = self._renewed(self._landmarks, landmarks, worlds)
        self._touches = self._renewed(self._touches, torch.zeros_like(place[:, 0, 0]), worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self._place is not None
        assert self._velocity is not None
        assert self._touches is not None
        force = self._pushes[actions[NAME]] + contact_forces(self._place)
        self._place = self._place.add(self._velocity, alpha=DT)
        self._velocity = self._velocity.mul(1.0 - DAMPING).add_(force, alpha=DT)
        touching = touches(self._place)
        self._touches = self._touches + touching.mean(-1)
        common = self._distances().sum(-1, keepdim=True).mul(self.local_ratio - 1.0)
        return common.sub(touching, alpha=self.local_ratio).float(), torch.zeros_like(self._over)

    def _distances(self) -> Tensor:
        """[B, N] float64, from each landmark to the agent nearest to it."""
        assert self._place is not None
        assert self._landmarks is not None
        return lengths(self._landmarks.unsqueeze(2) - self._place.unsqueeze(1)).amin(-1)

    def _close(self, worlds: Tensor) -> None:
        assert self._touches is not None
        distances = self._distances()
        columns = (torch.ones_like(self._touches), (distances < NEAR).double().mean(-1), distances.mean(-1))
        sums = torch.stack((*columns, self._touches)) * worlds
        self._counts = self._counts + sums.sum(-1)

    def metrics(self) -> dict[str, float]:
        """ "occupied", "distance" and "touches", where an episode ended."""
        episodes, *sums = self._counts.tolist()
        self._counts = torch.zeros_like(self._counts)
        names = ("occupied", "distance", "touches")
        return {name: total / episodes for name, total in zip(names, sums, strict=True)} if episodes else {}

    def _observe(self) -> dict[str, Tensor]:
        assert self._place is not None
        assert self._velocity is not None
        assert self._landmarks is not None
        own = torch.cat((self._velocity, self._place), -1)
        if self.view == 0:
            return {NAME: torch.cat((own, self._landmarks - self._place), -1).float()}
        marks = self._landmarks.unsqueeze(1) - self._place.unsqueeze(2)  # [B, agents, landmarks, 2]
        others = self._place[:, self._others] - self._place.unsqueeze(2)  # [B, N, N - 1, 2]
        if self.view is None:
            silence = torch.zeros_like(others)
            return {NAME: torch.cat((own, *(part.flatten(2) for part in (marks, others, silence))), -1).float()}
        flags = [(lengths(part) <= self.view).unsqueeze(-1) for part in (marks, others)]
        seen = [(part * flag).flatten(2) for part, flag in zip((marks, others), flags, strict=True)]
        mine = self._landmarks - self._place
        return {NAME: torch.cat((own, mine, *seen, *(flag.squeeze(-1) for flag in flags)), -1).float()}

    def _positions(self) -> Tensor:
        assert self._place is not None
        return self._place.float()

    def _latent_state(self) -> Tensor:
        assert self._place is not None
        assert self._velocity is not None
        assert self._landmarks is not None
        return torch.cat((self._velocity, self._place, self._landmarks), 1).flatten(1).float()

    def here(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, velocities and landmarks, [B, N, 2] float64 each, for scripts that know all. Raises UserError."""
        if self._place is None or self._velocity is None or self._landmarks is None:
            raise UserError(f"{self.name} shows nothing before it was reset; call reset first")
        return self._place, self._velocity, self._landmarks

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One plane as an RGB picture [480, 480, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        # matplotlib is slow to import, and training needs no pictures.
        from popcomm.envs.navigation_picture import draw_navigation

        place, velocity, landmarks = (part[world].cpu().numpy() for part in self.here())
        return draw_navigation(
            place,
            velocity,
            landmarks,
            SIZE,
            NEAR,
            own=self.view == 0,
            view=self.view or None,
            links=None if links is None else links.cpu().numpy(),
            title=f"step {int(self._age[world])} of {self.max_steps}",
        )


def lengths(vectors: Tensor) -> Tensor:
    """[..., 2] -> [...], of the vectors; not `norm`, which is many times slower over so short an axis."""
    return vectors[..., 0].square().add(vectors[..., 1].square()).sqrt_()


def contact_forces(place: Tensor) -> Tensor:
    """Forces on bodies at `place` [B, N, 2] by those that they touch, [B, N, 2].

    MPE's: along the line between two centres at distance d, force * margin * log(1 + exp((2 size - d) / margin)).
    Bodies in one and the same place do not push each other, having no line between them.
    """
    apart = place.unsqueeze(2) - place.unsqueeze(1)  # [B, N, N, 2], from the second to the first
    distance = lengths(apart)
    depth = (2.0 * SIZE - distance).div_(CONTACT_MARGIN)
    depth = torch.logaddexp(depth, torch.zeros_like(depth)).mul_(CONTACT_MARGIN * CONTACT_FORCE)
    return (apart * depth.div_(distance.clamp_(min=1e-12)).unsqueeze(-1)).sum(2)


def touches(place: Tensor) -> Tensor:
    """[B, N] in the type of `place` [B, N, 2]: how many others each body touches."""
    near = lengths(place.unsqueeze(2) - place.unsqueeze(1)) < 2.0 * SIZE
    return near.sum(-1).sub(1).to(place.dtype)


def parallel_env(render_mode: str | None = None, **kwargs: Any) -> WorldParallelEnv:
    """One plane as a PettingZoo ParallelEnv; keyword arguments are NavigationWorld's.

    >>> env = parallel_env(num_agents=5)
    >>> observations, infos = env.reset(seed=1)
    >>> observations["agent_0"].shape, env.action_space("agent_0")
    ((30,), Discrete(5))
    """
    return WorldParallelEnv(NavigationWorld(num_worlds=1, **kwargs), name="navigation_v0", render_mode=render_mode)


def raw_env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One plane as a PettingZoo AECEnv, without the wrappers that check its use."""
    return turn_based_raw(parallel_env(render_mode, **kwargs))


def env(render_mode: str | None = None, **kwargs: Any) -> AECEnv:
    """One plane as a PettingZoo AECEnv, in PettingZoo's usual wrappers."""
    return turn_based(parallel_env(render_mode, **kwargs))


if __name__ == "__main__":
    from popcomm.envs.demo import main

    main("navigation_v0")
