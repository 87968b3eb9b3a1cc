"""Noise that a population is evaluated in: on what it observes, by an adversary, and on what is said.

| kind | what happens | strength |
| --- | --- | --- |
| gaussian | normal noise on every number that is observed, in every step | its standard deviation |
| bias | every number is off by a constant of its own for a whole life | the standard deviation of these |
| missing | an agent observes nothing (zeros) in a step | probability |
| stuck | a number stays for a whole life what it was first | probability |
| delay | all is observed late | steps |
| adversarial | every number is moved the way that makes the likeliest action less likely (FGSM) | how far |
| lost | a listener misses a message, beside the channel's own dropout | probability |
| corrupted | symbols are replaced, bits flip, vectors get normal noise, as `communication(noise=)` does it | as there |

At strength 0 nothing changes, to the last bit. Observations in bytes (pictures) stay bytes: they are rounded.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.channels import MessageKind
from popcomm.checks import not_negative, share
from popcomm.envs import noise as sensors
from popcomm.envs.world import World, WorldStep
from popcomm.errors import UserError
from popcomm.references import build_from_config
from popcomm.rollout.recipes import ChannelRecipe

if TYPE_CHECKING:
    from popcomm.rollout.evaluation import Evaluation
    from popcomm.rollout.players import Players
    from popcomm.rollout.population import Population


@dataclass(frozen=True)
class Hindrance(ABC):
    """What makes playing harder, by its strength. Each kind changes one of worlds, channel and players."""

    strength: float
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        not_negative(f"noise of kind '{self.kind}': strength", self.strength)

    def of_world(self, world: World) -> World:
        return world

    def of_channel(self, channel: ChannelRecipe | None) -> ChannelRecipe | None:
        return channel

    def of_players(self, players: Players) -> None:
        """Change those who are about to play."""
        return None


@dataclass(frozen=True)
class Sensors(Hindrance):
    """Noise on observations (`popcomm.envs.noise`)."""

    noise: sensors.Noise | None = None

    def of_world(self, world: World) -> World:
        assert self.noise is not None
        return sensors.noisy(world, self.noise)


class Adversarial(Hindrance):
    """The fast gradient sign method (Goodfellow, Shlens & Szegedy 2015, section 4) through the policy, in every step:
    x + strength * sign(gradient of -log p(a | x)), where a is the likeliest action or, of a Box, one that is drawn (at
    the likeliest there is no slope). What was heard, and memories, are as they are.
    """

    kind = "adversarial"

    def of_players(self, players: Players) -> None:
        if players.in_rounds:
            raise UserError(
                "noise is of kind 'adversarial', which knows what was heard before it changes what is seen, and in "
                "communication.rounds nothing is yet; use another kind"
            )
        generator = torch.Generator(players.generator.device)
        generator.manual_seed(players.seeds.sampling ^ 1)
        players.adversary = lambda those: self.attacked(those, generator)

    def attacked(self, players: Players, generator: torch.Generator) -> WorldStep:
        """What agents perceive in place of what they see."""
        assert players.now is not None
        slopes = {name: self._slope(players, name, generator) for name in players.actors}
        seen = players.now.observations
        moved = {
            name: players.actors[name].species.kept(seen[name].add(slope.sign(), alpha=self.strength))
            for name, slope in slopes.items()
        }
        return players.now._replace(observations=moved)

    def _slope(self, players: Players, name: str, generator: torch.Generator) -> Tensor:
        """The gradient [B, N_s, O] of -log p, summed over the seats of a species; zeros for the ids of seats."""
        step, actor, seating = players.now, players.actors[name], players.seatings[name]
        assert step is not None
        drawn = players.generator.get_state()  # networks that draw as they think are to draw the same again
        with torch.enable_grad():
            # Bytes have no gradient; networks take floats as they do bytes.
            seen = step.observations[name].detach().to(torch.get_default_dtype(), copy=True).requires_grad_()
            told = step._replace(observations={**step.observations, name: seen})
            logits = actor.think(told, players.mail, seating, players.memories[name], False).output.action_logits
            masks = step.action_masks or {}
            mask = seating.to_members(masks[name]) if name in masks else None
            is_box = isinstance(actor.species.action_space, spaces.Box)
            chosen = actor.distribution.sample(logits.detach(), generator, mask) if is_box else None
            action = actor.distribution.mode(logits.detach(), mask) if chosen is None else chosen
            loss = -actor.distribution.log_prob(logits, action, mask).sum()
            slope = torch.zeros_like(seen)
            if loss.requires_grad:  # the action is a function of what is seen
                (slope,) = torch.autograd.grad(loss, seen, allow_unused=True, materialize_grads=True)
        players.generator.set_state(drawn)
        if actor.species.has_id:
            slope[..., -actor.species.num_seats :] = 0.0
        return slope


class Lost(Hindrance):
    """Each listener misses a message with that probability, beside the channel's own dropout."""

    kind = "lost"

    def __post_init__(self) -> None:
        share("noise of kind 'lost': strength", self.strength)

    def of_channel(self, channel: ChannelRecipe | None) -> ChannelRecipe:
        heard = _spoken(self, channel)
        return replace(heard, dropout=1.0 - (1.0 - heard.dropout) * (1.0 - self.strength))


class Corrupted(Hindrance):
    """What is said is garbled by so much before it goes out, beside the channel's own noise (`MessageKind.corrupt`)."""

    kind = "corrupted"

    def of_channel(self, channel: ChannelRecipe | None) -> ChannelRecipe:
        heard = _spoken(self, channel)
        if heard.messages.kind != "vectors":
            share("noise of kind 'corrupted': strength", self.strength)
        return heard

    def of_players(self, players: Players) -> None:
        players.interference = self._garbled

    def _garbled(
        self, kind: MessageKind, messages: Tensor, voice: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return kind.corrupt(messages, self.strength, generator), voice


def _spoken(noise: Hindrance, channel: ChannelRecipe | None) -> ChannelRecipe:
    if channel is None:
        raise UserError(f"noise is of kind '{noise.kind}', which is of messages, and this population is silent")
    return channel


OWN: dict[str, type] = {kind.kind: kind for kind in (Adversarial, Lost, Corrupted)}
KINDS: dict[str, type] = {**sensors.KINDS, **OWN}
HindranceLike = Hindrance | sensors.NoiseLike


def hindrance_of(noise: HindranceLike | None) -> Hindrance | None:
    """From {"kind": "lost", "strength": 0.1}, or a noise on observations; None where there is nothing of it.

    Raises:
        UserError: no such kind, or a strength out of its range.
    """
    if isinstance(noise, Mapping):
        noise = build_from_config("noise", dict(noise), KINDS)
    if noise is not None and not isinstance(noise, Hindrance):
        made = sensors.make_noise(noise)
        noise = Sensors(made.strength, made)
    return None if noise is None or not noise.strength else noise


def by_strength(
    population: Population, kind: str, strengths: Sequence[float], episodes: int = 100, **how: Any
) -> dict[float, Evaluation]:
    """{strength: what a population earns in so much noise of a kind}, in the same episodes.

    Args:
        how: of `Population.evaluate`.

    Raises:
        UserError: as there; all strengths are looked at before anybody plays.
    """
    noises = {strength: {"kind": kind, "strength": strength} for strength in strengths}
    for noise in noises.values():
        hindrance_of(noise)
    return {strength: population.evaluate(episodes, noise=noise, **how) for strength, noise in noises.items()}
