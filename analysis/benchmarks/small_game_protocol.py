"""The plain protocol: a script without memory that wins small games, hearing only what the channel brings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from popcomm.analysis.benchmarks.small_game import Game
from popcomm.analysis.benchmarks.small_game_world import NAME, SmallGameWorld
from torch import Tensor

from popcomm.channels import make_topology
from popcomm.channels.links import Links


def words(game: Game, parts: Tensor) -> Tensor:
    """What speakers say of their parts [B, S] int64, such that the answer is a function of them in any order.

    The parts themselves, but modulo 2 for a parity; for "which" the second one counts from the other end, so that the
    sum tells which is larger; and nothing, which is 0, of a part that the function does not look at.
    """
    if game.function == "parity":
        return parts % 2
    if game.function == "maximum" or game.function == "sum":
        return parts
    said = torch.zeros_like(parts)
    said[:, 0] = parts[:, 0]
    if game.function == "which":
        said[:, 1] = game.kinds - 1 - parts[:, 1]
    return said


def answer(game: Game, heard: Tensor) -> Tensor:
    """What is to be named by whoever hears all words [..., K] int64, among any number of zeros: [...]."""
    if game.function == "maximum":
        return heard.amax(-1)
    total = heard.sum(-1)
    if game.function == "which":
        return (total < game.kinds).long()
    return total % 2 if game.function == "parity" else total


def said(game: Game, step: int, parts: Tensor, heard: Tensor) -> Tensor:
    """What every seat says, [B, N] int64; it looks at nothing but its arguments, so it has no memory.

    Args:
        game: any with `plain_without_memory`.
        step: of the episode, from 0 on.
        parts: [B, S] int64, of the speakers; looked at in step 0 only, when they are seen.
        heard: [B, N, K] int64 symbols, 0 where there was no message.
    """
    everyone = torch.zeros(heard.shape[:2], dtype=torch.int64)
    speakers, relay = slice(0, game.speakers), game.speakers
    if step == 0:
        everyone[:, speakers] = words(game, parts)
        return everyone
    if step == game.max_steps - 1:
        return everyone  # nobody will hear it
    # Whoever knows nothing says 0, so the largest symbol is the one that a single other said, or several said alike.
    again = heard.amax(-1)
    if game.swaps and step == 1:
        everyone[:, speakers] = again[:, speakers]
        return everyone
    knows = step == 2 if game.swaps else step == 1
    if not knows:
        return again
    if game.forwarding:
        everyone[:, relay] = answer(game, heard[:, relay])
    else:
        everyone[:, -game.listeners :] = answer(game, heard[:, -game.listeners :])
    return everyone


def named(game: Game, heard: Tensor) -> Tensor:
    """What every seat answers in the last step, [B, N]: of words that were heard, or of an answer that was."""
    hears_words = not game.forwarding and (game.delay == 1 or game.swaps)
    return answer(game, heard) if hears_words else heard.amax(-1)


def play(game: Game, num_worlds: int, seed: int = 0, hears: bool = True) -> Tensor:
    """One episode of the plain protocol in every world, over the game's own topology: returns [B, N] float32.

    Args:
        game: any with `plain_without_memory`.
        num_worlds: B.
        seed: of the worlds.
        hears: False: all messages are lost.
    """
    world = SmallGameWorld(num_worlds, **game.env_config)
    links = make_topology(game.communication["topology"]).connect(
        torch.ones(num_worlds, game.num_agents, dtype=torch.bool)
    )
    seen = world.reset(seed).observations
    returns = torch.zeros(num_worlds, game.num_agents)
    mail = torch.zeros(num_worlds, game.num_agents, dtype=torch.int64)
    for step in range(game.max_steps):
        heard = _delivered(mail, links) * hears
        mail = said(game, step, _parts(game, seen), heard)
        world_step = world.step({NAME: named(game, heard).clamp(max=game.answers - 1)})
        returns += world_step.rewards
        seen = world_step.observations
    return returns


def _delivered(mail: Tensor, links: Links) -> Tensor:
    """mail [B, N] -> what every seat hears, [B, N, K], zeros where nobody is."""
    everyone = mail.unsqueeze(1).expand(-1, mail.shape[1], -1)
    return everyone.gather(2, links.senders) * links.mask


def _parts(game: Game, seen: Mapping[str, Tensor]) -> Tensor:
    """[B, S], as observed; 0 where none is."""
    return seen[NAME][:, : game.speakers, : game.kinds].argmax(-1)
