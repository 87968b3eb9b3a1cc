"""Who tells whom, and who speaks up when: measures of the experiment on heterogeneous agents, of one episode each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from popcomm.envs.platoon_sight import CRITICALITY, EMERGENCY
from popcomm.language import information
from popcomm.rollout.population import Population

Array = NDArray[Any]

CAP, SHUFFLES = 6_000, 39
MEASURES = ("told", "before", "answered")  # of `pairs`
STATES = ("idle", "easy", "critical")  # of `urgency`
CRITICAL = 0.5  # a criticality from which on a mission is called critical


class Talk(NamedTuple):
    """An episode of B worlds, of N seats; step by step."""

    said: Array  # [T, B, N] int64, messages as classes
    done: Array  # [T, B, N] int64, actions
    heard: Array  # [T, B, N, K] int64, whose messages of the step before are in the inbox; -1: nobody's
    spoke: Array  # [T, B, N] bool, whose message went out
    priority: Array  # [T, B, N], which counts under a budget; nan: none
    criticality: Array | None  # [T, B, N_e], of the missions of emergency vehicles, where there are any
    groups: dict[str, slice]  # {species: its seats}


def overheard(population: Population, worlds: int, steps: int, seed: int) -> Talk:
    """The first `steps` steps of new worlds, actions and messages drawn as in training."""
    rollout = population.rollout(seed, worlds=worlds)
    rollout.begin()
    rows: list[tuple[Any, ...]] = []
    for _ in range(steps):
        turn, _ = rollout.step()
        assert turn.sent is not None
        assert turn.mail is not None
        done = torch.cat(list(turn.actions.values()), 1)
        heard = torch.where(turn.mail.said, turn.mail.senders, -1)
        hastes = [_haste(turn, name) for name in turn.acts]
        seen = turn.seen.observations.get(EMERGENCY)
        urgent = torch.zeros(worlds, 0) if seen is None else seen[..., CRITICALITY]
        rows.append((turn.sent, done, heard, turn.voice, torch.cat(hastes, 1), urgent))
    groups = {name: kind.seats for name, kind in rollout.world.species.items()}
    rollout.close()
    sent, done, heard, voice, priority, urgent = (torch.stack(parts).cpu().numpy() for parts in zip(*rows, strict=True))
    said = np.unique(sent.reshape(-1, *sent.shape[3:]), axis=0, return_inverse=True)[1].reshape(sent.shape[:3])
    return Talk(said, done, heard, voice, priority, urgent if urgent.shape[-1] else None, groups)


def _haste(turn: Any, name: str) -> torch.Tensor:
    """[B, N_s], the priorities of a species' messages; nan where nothing is decided beside a message."""
    drawn = turn.acts[name].drawn
    if drawn is None:
        return torch.full(turn.members[name].shape, torch.nan)
    return turn.seatings[name].to_worlds(drawn.haste).sigmoid()


def pairs(talk: Talk, seed: int = 0) -> list[dict[str, Any]]:
    """Of every two species of which one hears the other, how much a message tells of what its hearer does.

    {"from", "to", and of each of three measures the bits and the p-value}, as `popcomm.language.information` has them;
    chance: whole episodes change places. What lasts does so between one sender and one hearer, with gaps where nothing
    is heard, so the rows of two seats stand after those of another two. "told": of the message, and what is done by
    who hears it, a step later; "before": the same message, and what that seat did when it was said, of which it cannot
    be the cause; "answered": of the message, and what who hears it says then; None where nobody hears that.
    """
    found = []
    for sender, speakers in talk.groups.items():
        for receiver, seats in talk.groups.items():
            who = talk.heard[1:, :, seats]
            step, world, seat, slot = np.nonzero((who >= speakers.start) & (who < speakers.stop))
            if not len(step):
                continue
            speaker, other = who[step, world, seat, slot], seat + seats.start
            message, two = talk.said[step, world, speaker], speaker * talk.said.shape[2] + other
            after = {
                "told": talk.done[step + 1, world, other],
                "before": talk.done[step, world, other],
                "answered": talk.said[step + 1, world, other],
            }
            bits = {name: information(message, y, world, SHUFFLES, seed, CAP, seats=two) for name, y in after.items()}
            told: dict[str, Any] = {name: {"bits": it.bits, "p": it.p_value} for name, it in bits.items()}
            if not ((talk.heard >= seats.start) & (talk.heard < seats.stop)).any():
                told["answered"] = None
            found.append({"from": sender, "to": receiver, **told})
    return found


def urgency(talk: Talk) -> dict[str, float]:
    """How often, and how urgently, emergency vehicles speak {without a mission, on one, on a critical one}.

    {"spoke idle", "spoke easy", "spoke critical"}: shares of the steps in which the message went out; {"priority idle",
    ...}: its mean. Nothing where there are none; nan where it did not come about.
    """
    if talk.criticality is None:
        return {}
    told, seats = {}, talk.groups[EMERGENCY]
    now = talk.criticality
    when = dict(zip(STATES, (now <= 0, (now > 0) & (now < CRITICAL), now >= CRITICAL), strict=True))
    for name, values in (("spoke", talk.spoke[..., seats]), ("priority", talk.priority[..., seats])):
        told |= {
            f"{name} {state}": float(values[rows].mean()) if rows.any() else np.nan for state, rows in when.items()
        }
    return told
