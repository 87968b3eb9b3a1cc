"""Cross-play: how well every speaker of a population is understood by every listener, in games of one message."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from popcomm.agents.distributions import action_distribution
from popcomm.agents.step import agent_step
from popcomm.channels import Inbox
from popcomm.channels.messages import likeliest
from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.errors import UserError
from popcomm.rollout.actor import Network
from popcomm.rollout.rollout import Playable


class CrossPlay(NamedTuple):
    """What came out of all pairs; S speaking members, L listening members, M meanings."""

    accuracy: np.ndarray  # [S, L] float64, share of meanings that were understood whole
    attribute_accuracy: np.ndarray  # [S, L] float64, share of their attributes; of picks the same as accuracy
    messages: np.ndarray  # [S, M, length] int64, what each speaker says of each meaning
    meanings: np.ndarray  # [M, A] int64
    answers: np.ndarray | None = None  # [S, L, M, parts] int64, what each listener makes of each speaker's message


@torch.no_grad()
def cross_play(population: Playable, split: str | None = None, seed: int = 0, cap: int = 1000) -> CrossPlay:
    """All pairs of a population on all meanings of a referential game, everybody taking its likeliest choice.

    Every agent is at the start of an episode: the speaker sees a meaning and has heard nothing, the listener hears the
    one message.

    Args:
        population: one on `referential_v0`, in games of one turn; such as a PopulationPPO.
        split: "train", "held_out" or "all"; None is the one that it is trained on.
        seed: of the candidates, where the target is picked among some, and of the meanings, where they are too many.
        cap: the most meanings to play; of more, a random sample is taken.

    Raises:
        UserError: another environment, several turns, several messages at once, silence, a routed channel, or a split
            without meanings.
    """
    rollout = population.rollout(worlds=1, env_config=None if split is None else {"split": split})
    world, channel = rollout.world, rollout.players.channel
    if not isinstance(world, ReferentialWorld):
        raise UserError(f"cross_play needs referential_v0, and the environment is {type(world).__name__}")
    if world.turns > 1:
        raise UserError(f"cross_play needs games of one turn, and env_config.turns is {world.turns}")
    if channel is None:
        raise UserError("cross_play needs messages, and communication.messages is null")
    if world.speakers > 1:
        raise UserError(f"cross_play needs games of one speaker, and env_config.speakers is {world.speakers}")
    actors = list(rollout.players.actors.values())
    speaker, listener, kind = actors[0].network, actors[-1].network, channel.messages
    if listener.spec.latents:
        raise UserError("cross_play hands over single messages, and communication.topology is routed")
    chance = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(world.meanings))
    if len(rows) > cap:
        rows = torch.randperm(len(rows), generator=chance)[:cap].sort().values
    seen = world.views(rows, chance)
    said = _say(speaker, kind, seen.speaker, rollout.players.open_symbols, chance)
    answers = _answer(listener, kind, said, seen.listener)  # [L, S, M, parts]
    right = answers == seen.answers
    return CrossPlay(
        right.all(-1).double().mean(-1).T.numpy(),
        right.double().mean((-1, -2)).T.numpy(),
        said.numpy(),
        world.meanings[rows].numpy(),
        answers.transpose(0, 1).numpy(),
    )


def _say(network: Network, kind: Any, views: Tensor, open_symbols: int | None, chance: torch.Generator) -> Tensor:
    """views [M, O] -> messages [S, M, ...]."""
    agent, spec = network.agent, network.spec
    obs = views.expand(spec.members, *views.shape)
    state = agent.initial_state(len(views))
    output = agent_step(agent, spec, obs, None, state, greedy=True, open_symbols=open_symbols)
    if output.said is not None:
        return output.said
    assert output.message is not None
    return likeliest(kind, output.message, chance)


def _answer(network: Network, kind: Any, said: Tensor, views: Tensor) -> Tensor:
    """said [S, M, ...], views [M, O] -> actions [L, S, M, parts] int64."""
    agent, spec = network.agent, network.spec
    speakers, meanings = said.shape[:2]
    heard = said.flatten(0, 1).unsqueeze(1).expand(spec.members, -1, -1, *kind.shape)
    there = kind.spoken(heard)  # silence is no message
    obs = views.repeat(speakers, 1).expand(spec.members, -1, -1)
    inbox = Inbox(heard, torch.zeros_like(there, dtype=torch.int64), there)
    output = agent_step(agent, spec, obs, inbox, agent.initial_state(obs.shape[1]), greedy=True)
    chosen = action_distribution(spec.action_space).mode(output.action_logits)
    return chosen.reshape(spec.members, speakers, meanings, -1)
