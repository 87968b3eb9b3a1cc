"""Policies that follow a script: what they earn in a world, and the references that learned agents are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from popcomm.envs.world import World

if TYPE_CHECKING:
    from popcomm.envs.episodic_world import EpisodicWorld


class References(NamedTuple):
    """Expected return per agent and episode, the plain sum of its rewards."""

    random: float  # all actions are equally likely, always
    silent: float  # the best that can be done without messages; where it is another policy, the world says which
    oracle: float  # all know all that anyone saw; nothing better is possible


class Randomly:
    """A policy: even chances for all actions, of species that each choose one number.

    Args:
        seed: of a generator of its own, on the CPU: the same actions on every device.
    """

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, world: World) -> dict[str, Tensor]:
        """{species: [B, N_s] int64}."""
        actions = {}
        for name, s in world.species.items():
            drawn = torch.randint(int(s.action_space.n), (world.num_worlds, s.num_seats), generator=self._generator)
            actions[name] = drawn.to(world.device)
        return actions


class Delayed:
    """What was seen `delay` steps ago. In the first steps of an episode it is what was seen in its first.

    Asked once in every step.
    """

    def __init__(self, delay: int) -> None:
        self.delay = delay
        self._views: list[tuple[Tensor, ...]] = []

    def __call__(self, world: EpisodicWorld, seen: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """seen: of the present, [B, ...] each, which must stay as they are; the same of then."""
        assert world._last is not None
        begun = world._last.first.any(-1)  # [B]

        def renewed(view: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            pairs = zip(view, seen, strict=True)
            return tuple(torch.where(begun.view(-1, *[1] * (was.ndim - 1)), now, was) for was, now in pairs)

        self._views = [*map(renewed, self._views), tuple(seen)][-1 - self.delay :]
        return self._views[0]


def episode_returns(world: World, policy: Callable[[Any], dict[str, Tensor]], seed: int = 0) -> Tensor:
    """What every seat earns in the first episode of every world, [B, N] float32.

    Args:
        world: it is reset, and played until the first episodes are over everywhere; they must end.
        policy: world -> {species: actions [B, N_s, ...]} for its present.
        seed: of the worlds.
    """
    step = world.reset(seed)
    earned = torch.zeros_like(step.rewards)
    running = step.alive.any(-1)
    while running.any():
        step = world.step(policy(world))
        earned += step.rewards * running.unsqueeze(-1)
        running = running & step.alive.any(-1)
    return earned
