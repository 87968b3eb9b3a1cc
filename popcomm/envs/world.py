"""World: B copies of an environment stepped as tensors. The axis of worlds and the axis of seats stay whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.sight import Sighted


@dataclass(frozen=True)
class Species(Sighted):
    """A kind of agent: seats `start` ... `stop - 1` of every world, with the same spaces.

    Observations are flat float32 vectors of `obs_size` numbers. `observation_space` and `action_space` are those of one
    agent; actions are Discrete (int64 [B, N_s]), MultiDiscrete (int64 [B, N_s, k]) or Box (float32 [B, N_s, d], between
    its bounds). `structure` is the space that the vector is `gymnasium.spaces.flatten` of, where it is another than a
    Box of `obs_size` numbers: pictures with their shapes, Dicts with their entries. Observations with pictures are
    vectors of uint8 (`obs_dtype`, `popcomm.envs.sight`).
    """

    name: str
    start: int
    stop: int
    obs_size: int
    action_space: spaces.Space
    agents: tuple[str, ...] = field(default=())
    has_action_mask: bool = False
    speaks: bool = True  # False: it never sends a message, and its networks have no message head
    hears: bool = True  # False: it never receives one
    has_answers: bool = False  # True: the world tells its right actions in `WorldStep.answers`
    structure: spaces.Space | None = None
    has_id: bool = False  # whether observations end with a one-hot of the seat among those of the species, [N_s]

    @property
    def observation_form(self) -> spaces.Space | None:
        return self.structure

    @property
    def num_seats(self) -> int:
        return self.stop - self.start

    @property
    def seats(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def observation_space(self) -> spaces.Box:
        return flat_box(self.obs_size)


def flat_box(size: int) -> spaces.Box:
    """The space of that many numbers, whatever they are."""
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


class WorldStep(NamedTuple):
    """What a world says after `reset` or `step`. N counts the seats of all species, N_s those of one.

    Autoreset is by the next step: when the last seat of a world has ended, the observations are the *final* ones, no
    seat is alive, and the next `step` ignores that world's actions, gives no reward, and returns the first observations
    of a new episode (`first` is True there). So the value of a truncated state is the value of the row that follows it.
    A seat that ends alone (a death) likewise has its final observation in the row where it first is not alive; unless
    its next life begins at once: then it is terminated, alive and `first` in one row, which holds what that life sees.
    """

    observations: dict[str, Tensor]  # {species: [B, N_s, O_s] float32, or uint8 where they are pictures}
    rewards: Tensor  # [B, N] float32, for the step just made
    terminated: Tensor  # [B, N] bool, the seat's life ended by itself in the step just made
    truncated: Tensor  # [B, N] bool, it was cut off in the step just made
    alive: Tensor  # [B, N] bool, the seat acts on these observations
    first: Tensor  # [B, N] bool, these observations open the seat's life (recurrent state and inbox start empty)
    positions: Tensor | None = None  # [B, N, D] float32, the world's unit of length
    state: Tensor | None = None  # [B, S] float32, the latent state: for central critics and as target of world models
    action_masks: dict[str, Tensor] | None = None  # {species: [B, N_s, A] bool}, True = allowed
    labels: Tensor | None = None  # [B, N] int64, what a seat privately perceives, as a class; -1 nothing. For metrics
    # {species: [B, N_s] or [B, N_s, k] int64}, the action that would be right on these observations; -1 where none is
    # called for. Of species with `has_answers`, which can be supervised (`training(learn_from="answers")`).
    answers: dict[str, Tensor] | None = None
    speaks: Tensor | None = None  # [B, N] bool, who may send a message in this step; None: all


class World(ABC):
    """A batch of environments. Subclasses take `num_worlds`, `device` and the env_config's keys as keyword arguments.

    Attributes:
        num_worlds: B.
        species: {name: Species}; their seats follow one another and make up 0 ... N - 1.
        state_size: S, 0 where there is no latent state.
        position_size: D, 0 where agents have no positions.
        torus: extent of each of the D axes where the world wraps round, or None.
        num_labels: classes in `labels`, 0 where there are none.
        label_attributes: [num_labels, A] int64, what each label is made of, such as its row and its column: similar
            meanings have some in common, which measures of structure ask for. None: a label is a whole.
        tells_state: whoever steps the world may set it to False: nobody reads the state then, and `WorldStep.state` may
            be None, where it would cost something.
        reopens_seats: whether a seat whose life ended may open another one before its world is over.
        device: where the tensors live.
    """

    num_worlds: int
    species: dict[str, Species]
    state_size: int = 0
    tells_state: bool = True
    position_size: int = 0
    torus: tuple[float, ...] | None = None
    num_labels: int = 0
    label_attributes: Tensor | None = None
    reopens_seats: bool = False
    device: torch.device

    @property
    def num_agents(self) -> int:
        """N, seats in one world."""
        return max(s.stop for s in self.species.values())

    @property
    def env_spaces(self) -> dict[str, tuple[spaces.Space, spaces.Space]]:
        """{species: what one agent observes and does, as the PettingZoo face of this world shows it}."""
        return {name: (_shown(species), species.action_space) for name, species in self.species.items()}

    @abstractmethod
    def reset(self, seed: int | None = None) -> WorldStep:
        """Start new episodes everywhere. With a seed the future is a function of it; without, it goes on as it was."""

    @abstractmethod
    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        """Make one step in every world.

        Args:
            actions: {species: [B, N_s, ...]}.
            spoken: [B, N] float32, symbols each seat spends on its message in this step, for worlds where talk costs.
        """

    @abstractmethod
    def get_state(self) -> dict[str, Any] | None:
        """All that decides the future (tensors, numbers, RNG states), or None where it cannot be had."""

    @abstractmethod
    def set_state(self, state: dict[str, Any]) -> WorldStep:
        """Go back to a `get_state`; returns the last WorldStep again."""

    def metrics(self) -> dict[str, float]:
        """What the world counted since this was last called, as means ({"accuracy": 0.9}); logged as world/<name>."""
        return {}

    def render(self, world: int = 0, links: Tensor | None = None) -> np.ndarray:
        """One world as an RGB picture [H, W, 3] uint8; links [M, 2] int64 are (sender, receiver) pairs to draw."""
        raise NotImplementedError(f"{type(self).__name__} has no picture")

    def close(self) -> None:
        """Free what the world holds."""
        return None


def _shown(species: Species) -> spaces.Space:
    """What an agent observes: its numbers, and its action mask beside them where there is one."""
    box = species.observation_space
    if not species.has_action_mask:
        return box
    space = species.action_space
    size = int(space.n) if isinstance(space, spaces.Discrete) else int(space.nvec.sum())
    return spaces.Dict({"observation": box, "action_mask": spaces.Box(0, 1, (size,), np.int8)})
