"""WorldLayout: what is known of a world before there is one."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium.spaces import Space

from popcomm.envs.world import Species, World

SEATS_APART = 8  # of which each has a name of its own in what is said of pairs; of more, species stand for their seats


@dataclass(frozen=True)
class WorldLayout:
    """The shape of a world, without the world."""

    species: dict[str, Species]
    num_agents: int
    state_size: int
    position_size: int
    torus: tuple[float, ...] | None
    num_labels: int
    # (name of a species, what one agent observes, what it does), as environments show it; none in layouts from before.
    spaces: tuple[tuple[str, Space, Space], ...] = ()

    @classmethod
    def of(cls, world: World) -> WorldLayout:
        return cls(
            dict(world.species),
            world.num_agents,
            world.state_size,
            world.position_size,
            world.torus,
            world.num_labels,
            tuple((name, *told) for name, told in world.env_spaces.items()),
        )

    @property
    def agents(self) -> list[str]:
        """Names of the seats in order."""
        return [s.agents[i] if s.agents else f"{s.name}_{i}" for s in self.species.values() for i in range(s.num_seats)]

    @property
    def groups(self) -> dict[str, slice]:
        """{name: its seats} of who is told apart where pairs are spoken of: seats where there are few, or species."""
        if self.num_agents > SEATS_APART:
            return {name: species.seats for name, species in self.species.items()}
        return {agent: slice(seat, seat + 1) for seat, agent in enumerate(self.agents)}
