"""WrappedWorld: what every world around another world hands on to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.world import World


class WrappedWorld(World):
    """Another world of which a part is told differently; its own `species`, `reset`, `step` and state say which.

    Args:
        world: the world.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.num_worlds, self.device = world.num_worlds, world.device
        self.state_size, self.position_size, self.torus = world.state_size, world.position_size, world.torus
        self.num_labels, self.reopens_seats = world.num_labels, world.reopens_seats
        self.label_attributes = world.label_attributes

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        """{species: what one agent observes and does, as the environment says it}."""
        return self.world.env_spaces

    @property
    def tells_state(self) -> bool:
        return self.world.tells_state

    @tells_state.setter
    def tells_state(self, tells: bool) -> None:
        self.world.tells_state = tells

    def __getattr__(self, name: str) -> Any:
        """What the world has beside the contract."""
        if name.startswith("_") or name == "world":  # a pickle asks before there is one
            raise AttributeError(name)
        return getattr(self.world, name)

    def metrics(self) -> dict[str, float]:
        return self.world.metrics()

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        return self.world.render(world, links)

    def close(self) -> None:
        self.world.close()
