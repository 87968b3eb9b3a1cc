"""Actor: the networks of one species at play, from what is seen and heard to actions and messages."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from popcomm.agents.action_bounds import ActionBounds
from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.distributions import action_distribution
from popcomm.agents.inbox import inbox_of
from popcomm.agents.seating import Seating
from popcomm.agents.step import agent_step, reset_state
from popcomm.channels import Inbox, MessageKind
from popcomm.channels.mail import Mail
from popcomm.channels.manner import Drawn, draw
from popcomm.channels.messages import reparameterised
from popcomm.envs.world import Species, WorldStep
from popcomm.errors import UserError


class Network(Protocol):
    """What acts of a species."""

    spec: AgentSpec
    agent: Any  # a `popcomm.agents.contract.Agent`, told that spec


class Thought(NamedTuple):
    """What a species makes of a step, before anything is chosen: R rows of each of P members."""

    obs: Tensor  # [P, R, O]
    inbox: Inbox | None  # [P, R, K, ...]; None in silence, and of species that never hear
    output: AgentOutput  # [P, R, ...]


class Utterance(NamedTuple):
    """What a species says; see `Act`."""

    message: Tensor | None
    noise: Tensor | None
    drawn: Drawn | None


class Act(NamedTuple):
    """What a species made of a step, and what it chose."""

    thought: Thought
    actions: Tensor  # [P, R, ...]
    mask: Tensor | None  # [P, R, A] bool, the actions that were allowed, where the world says so
    message: Tensor | None  # [P, R, *message shape]; None in silence, and of species that never speak
    noise: Tensor | None  # [P, R, *noise shape] of reparameterised messages; None of others, and of the likeliest
    drawn: Drawn | None = None  # [P, R] each, whether the message goes out, and how urgent it is; None: all do


class Actor:
    """The networks of one species.

    Args:
        species: their seats and spaces.
        network: read anew in every step, so that its weights may change.
        messages: the kind of message that is said and heard; None in silence.
        generator: of all that is drawn.
        device: where worlds and networks live.
    """

    def __init__(
        self,
        species: Species,
        network: Network,
        messages: MessageKind | None,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.species, self.network, self.messages, self.generator = species, network, messages, generator
        self.distribution = action_distribution(species.action_space)
        self.bounds = ActionBounds(species.action_space, device)

    @property
    def members(self) -> int:
        """P."""
        return self.network.spec.members

    def think(
        self,
        step: WorldStep,
        mail: Mail | None,
        seating: Seating,
        memory: dict[str, Tensor],
        explore: bool,
        open_symbols: int | None = None,
        again: bool = False,
        said: Tensor | None = None,
    ) -> Thought:
        """Run the networks.

        Args:
            memory: {name: [P, R, ...]}; where a life begins it is put back to its start.
            explore: whether networks that speak symbol by symbol sample.
            open_symbols: how many symbols may be said; None: all.
            again: whether they thought about this step before, in an earlier round, so that no life begins.
            said: [P, R, *message shape], what was said, where nothing more is; None: they say something.
        """
        agent, spec = self.network.agent, self.network.spec
        obs = seating.to_members(step.observations[self.species.name])
        if not again:
            memory = reset_state(agent, memory, seating.to_members(step.first[:, self.species.seats]))
        inbox = None if mail is None or not spec.hears else inbox_of(mail, seating, self.species.seats)
        how: dict[str, Any] = {"generator": self.generator, "greedy": not explore, "open_symbols": open_symbols}
        output = agent_step(agent, spec, obs, inbox, memory, said, **how)
        return Thought(obs, inbox, output)

    def choose(
        self,
        thought: Thought,
        step: WorldStep,
        seating: Seating,
        explore: bool,
        said: Utterance | None = None,
    ) -> Act:
        """Sample actions and messages, or take the likeliest ones where there is nothing to `explore`.

        said: the message, where it was said before, in rounds.
        """
        name, logits = self.species.name, thought.output.action_logits
        mask = None
        if step.action_masks is not None and name in step.action_masks:
            mask = seating.to_members(step.action_masks[name])
        actions = (
            self.distribution.sample(logits, self.generator, mask) if explore else self.distribution.mode(logits, mask)
        )
        said = self.say(thought.output, explore) if said is None else said
        return Act(thought, actions, mask, *said)

    def say(self, output: AgentOutput, explore: bool) -> Utterance:
        """A message, and what is decided beside it."""
        message, noise = self._say(output, explore)
        if output.manner is None:
            return Utterance(message, noise, None)
        return Utterance(
            message, noise, draw(output.manner, "sender" in self.network.spec.gates, explore, self.generator)
        )

    def _say(self, output: AgentOutput, explore: bool) -> tuple[Tensor | None, Tensor | None]:
        """A message [P, R, *message shape] and the noise that it was made with."""
        kind: Any = self.messages
        if kind is None or output.message is None:
            return None, None
        if reparameterised(kind):
            if output.said is not None:
                agent = type(self.network.agent).__name__
                raise UserError(
                    f"population.agent {agent} says its messages itself, and {kind.kind} are said by the trainer, "
                    "with noise that it keeps"
                )
            if not explore and not getattr(kind, "always_drawn", False):
                return kind.mode(output.message), None
            noise = kind.draw_noise(output.message, self.generator)
            return kind.sample_with(output.message, noise), noise
        if output.said is not None:
            return output.said, None
        return (kind.sample(output.message, self.generator) if explore else kind.mode(output.message)), None
