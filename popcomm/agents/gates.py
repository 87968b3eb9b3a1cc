"""Gates of an agent: what it lets in, whether it speaks, and how urgently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.contract import AgentSpec
from popcomm.agents.population import PopulationLinear, PopulationMLP
from popcomm.channels.gates import MIDDLE
from popcomm.checks import number
from popcomm.envs.flat_parts import parts_of
from popcomm.errors import UserError, unknown

# Doors are a little more open than not at the start: who hears nothing has nothing to learn from.
OPEN = 1.0
# Deviation of priorities while agents explore, before the logistic function.
SPREAD = 0.5


class ReceiverGate(nn.Module):
    """Opens and shuts every number of every message: sigmoid(W s + V m + b) * m, of the own state s and a message m.

    Args:
        members: P.
        state: numbers in a state.
        heard: numbers in an encoded message.
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(self, members: int, state: int, heard: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.of_state = PopulationLinear(members, state, heard, generator=generator)
        self.of_message = PopulationLinear(members, heard, heard, bias=False, generator=generator)
        with torch.no_grad():
            self.of_state.bias.fill_(OPEN)  # type: ignore[union-attr]

    def forward(self, state: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """state [P, R, S], heard [P, R, K, C] -> what is let in [P, R, K, C], and how open doors are [P, R, K], the
        mean over the numbers, without gradient."""
        door = (self.of_state(state).unsqueeze(-2) + self.of_message(heard)).sigmoid()
        return door * heard, door.detach().mean(-1)


class Manner(nn.Module):
    """How an agent speaks, beside what it says: whether it does (the sender's gate), and with which priority.

    Args:
        spec: what of it the channel asks for.
        features: numbers that the policy acts on.
        urgency: where the priority comes from. None: learned, from the features. A number in [0, 1]: it is always that.
            A list: learned, by a network of its own, from these parts of the observation alone, entries of a Dict or
            columns (an emergency vehicle's position, velocity and criticality, say).
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a number outside [0, 1], or parts that the observation does not have.
    """

    def __init__(
        self, spec: AgentSpec, features: int, urgency: Any = None, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        p = spec.members
        self.gated, self.constant = "sender" in spec.gates, None
        self.columns: Tensor | None  # [O'] int64, of the observation
        self.register_buffer("columns", None, persistent=False)
        if self.gated:
            self.door = PopulationLinear(p, features, 1, generator=generator)
            with torch.no_grad():
                self.door.bias.fill_(OPEN)  # type: ignore[union-attr]
        if not spec.urgency:
            self.constant = MIDDLE
        elif urgency is None:
            self.haste: nn.Module = PopulationLinear(p, features, 1, generator=generator)
        elif isinstance(urgency, str | Sequence):
            self.columns = torch.tensor(columns_of(spec, [urgency] if isinstance(urgency, str) else urgency))
            self.haste = PopulationMLP(p, len(self.columns), features, 1, generator=generator)
        else:
            number("agent_config.urgency", urgency, "lie in [0, 1]", least=0, most=1)
            self.constant = float(urgency)

    def forward(self, features: Tensor, obs: Tensor) -> Tensor:
        """features [P, R, F], obs [P, R, O] -> [P, R, 3]: the logit of speaking, that of the priority, and the
        deviation with which the latter is drawn; 0 of one that is constant."""
        shape = (*features.shape[:2], 1)
        door = self.door(features) if self.gated else features.new_zeros(shape)
        if self.constant is not None:
            always = min(max(self.constant, 1e-6), 1 - 1e-6)
            logit = math.log(always / (1 - always))
            return torch.cat([door, features.new_full(shape, logit), features.new_zeros(shape)], -1)
        haste = self.haste(features if self.columns is None else obs.index_select(-1, self.columns))
        return torch.cat([door, haste, features.new_full(shape, SPREAD)], -1)


def check_urgency(spec: AgentSpec, urgency: Any) -> None:
    """Raises UserError: an urgency is given, and nobody looks at it."""
    if urgency is not None and not (spec.urgency and spec.speaks) and spec.messages is not None:
        why = (
            f"species '{spec.species}' never speaks" if spec.urgency else "without communication.budget none is urgent"
        )
        raise UserError(f"agent_config.urgency is {urgency!r}, of messages, and {why}; leave it out")


def columns_of(spec: AgentSpec, parts: Sequence[Any]) -> list[int]:
    """The columns of a flat observation that are named: by an entry of a Dict, or by a number.

    Raises:
        UserError: it has no such entry or column.
    """
    places: dict[str, range] = {}
    start = 0
    space = spec.observation_space
    for part in parts_of(space) if isinstance(space, spaces.Dict) else ():
        places[str(part.path[0])] = range(places.get(str(part.path[0]), range(start, start)).start, start + part.size)
        start += part.size
    found: list[int] = []
    for part in parts:
        if isinstance(part, int) and not isinstance(part, bool):
            if not 0 <= part < spec.obs_size:
                raise UserError(f"agent_config.urgency names column {part}, and observations have {spec.obs_size}")
            found.append(part)
        elif part in places:
            found.extend(places[part])
        else:
            raise unknown("agent_config.urgency: the part", str(part), places or [f"0 ... {spec.obs_size - 1}"])
    if not found:
        raise UserError("agent_config.urgency is an empty list, and must name parts of the observation")
    return found
