"""Rollout: B worlds and those who play in them, one step at a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from popcomm.agents.seating import SHUFFLED, SeatingRule
from popcomm.channels import Channel
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import World, WorldStep
from popcomm.rollout.actor import Network
from popcomm.rollout.players import Players, Turn
from popcomm.rollout.seeds import Seeds
from popcomm.schedules import Clock


class Playable(Protocol):
    """A population that plays in worlds of its own, such as a PopulationPPO."""

    def rollout(
        self,
        seed: int = 0,
        greedy: bool = False,
        worlds: int | None = None,
        env_config: Mapping[str, Any] | None = None,
    ) -> Rollout:
        """Worlds in which it plays as it is now; nobody else's worlds or random numbers move.

        Args:
            seed: of all that is random there.
            greedy: take the likeliest actions and messages instead of sampling them.
            worlds: B; None: as many as it is trained in.
            env_config: keys that differ from those that it is trained with.
        """
        ...


class Rollout:
    """B worlds, and a population that plays in them.

    Episodes follow one another in every world, as `WorldStep` says; seats are drawn anew where they start.

    Args:
        world: B worlds.
        networks: {species: Network}; their weights may change between steps.
        channel: None in silence.
        seeds: of all that is random.
        seating: how members come to their seats.
        explore: whether actions and messages are sampled; else the likeliest ones are taken.

    >>> import torch
    >>> from popcomm.agents import AgentSpec, MLPAgent
    >>> from popcomm.envs import swarm_v0
    >>> world = swarm_v0.SwarmWorld(num_worlds=2, num_agents=3)
    >>> species = world.species["swarm"]
    >>> class Net:
    ...     spec = AgentSpec.of(species, messages=None, inbox_size=0)
    ...     agent = MLPAgent(spec)
    >>> rollout = Rollout(world, {"swarm": Net()}, seeds=Seeds.of(0))
    >>> rollout.begin()
    >>> turn, after = rollout.step()
    >>> turn.actions["swarm"].shape, after.rewards.shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        world: World,
        networks: Mapping[str, Network],
        channel: Channel | None = None,
        *,
        seeds: Seeds,
        seating: SeatingRule = SHUFFLED,
        explore: bool = True,
    ) -> None:
        self.world = world
        layout = WorldLayout.of(world)
        self.players = Players(layout, networks, channel, world.num_worlds, seeds, seating, explore, world.device)

    @property
    def started(self) -> bool:
        """Whether episodes run: `begin` was called."""
        return self.players.now is not None

    def begin(self, seed: int | None = None) -> None:
        """New episodes everywhere. seed: of the worlds; None: that of `seeds`."""
        self.players.begin(self.world.reset(seed=self.players.seeds.world if seed is None else seed))

    def renew(self, world: World) -> None:
        """Go on in worlds made anew, in place of those that failed; fades stay, and the next is `begin`."""
        self.world, self.players.now = world, None

    def step(self) -> tuple[Turn, WorldStep]:
        """One step of all worlds: what was perceived, heard, said and done, and what came of it."""
        turn = self.players.act()
        after = self.world.step(turn.bounded, turn.loads)
        self.players.arrive(after)
        return turn, after

    def follow(self, clock: Clock, fades: Sequence[Mapping[str, Any]] = ()) -> None:
        """Let reflexes be as faded as after so much training.

        Args:
            clock: how far it is, and how well it goes.
            fades: what schedules remember (`fades`); nothing: what they do here.

        Raises:
            UserError: they are the fades of other reflexes.
        """
        self.players.follow(clock, fades)

    def fades(self) -> list[dict[str, Any]]:
        """What the schedules of reflexes remember; nothing before `begin`, or where none act."""
        session = self.players.session
        return [] if session is None or not self.started else session.fades()

    def close(self) -> None:
        """Free what the worlds hold."""
        self.world.close()

    # ---- checkpoints ----

    def get_state(self) -> dict[str, Any]:
        """All that decides the future but the weights, in a copy.

        Where the worlds cannot be saved (foreign environments that do not pickle) "world" is None.
        """
        started = self.started
        state = {"started": started, "world": self.world.get_state() if started else None}
        return copy.deepcopy(state | self.players.get_state())  # worlds and networks may go on in place

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`.

        Where the worlds could not be saved this has not `started` afterwards: `begin` starts new episodes, with random
        numbers and fades as they were.
        """
        state = copy.deepcopy(dict(state))  # which may be wanted again
        running = state["started"] and state["world"] is not None
        self.players.set_state(state, self.world.set_state(state["world"]) if running else None)
