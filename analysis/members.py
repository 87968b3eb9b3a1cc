"""What can be said of members: whether they were dealt to seats, and what chance gives where they are dealt anew.

A member's way of speaking, or of being listened to, is its own only if it is not that of its network, which all may
share, or of its seat, which the world may have appointed to see what others do not. Members that are dealt to seats at
random can be compared: their places are then no part of what tells them from one another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from popcomm.analysis.run_folder import Conversations

from popcomm.language import basics

Array = NDArray[Any]

DEALS = 99  # of members to seats, to see what chance gives


class Deal(NamedTuple):
    """Members and the stays of theirs on a seat: U stays, of one episode each."""

    stay: Array  # [M], of each message
    agent: Array  # [U], who it is
    block: Array  # [U], stays that could as well have changed their members: of one episode and species


def incomparable(talk: Conversations) -> str:
    """Why members cannot be compared, as a sentence; empty where they can."""
    frame = pd.DataFrame({"agent": talk.agents[0], "seat": talk.column("sender"), "species": talk.table["species"]})
    if not talk.by_member:
        several = " of a species" if len(talk.species) > 1 else ""
        return (
            f"All seats{several} share one network: what tells them apart is their place in the world and what they "
            "see from it."
        )
    if frame.groupby("seat")["agent"].nunique().max() < 2:
        return "Every member keeps its seat, so that what is its own cannot be told from what its place makes of it."
    return ""


def seeing_seats(talk: Conversations) -> str:
    """A sentence on those seats that alone saw something, as scouts do; empty where all did, or nothing is known."""
    seats = np.unique(talk.column("sender"))
    seeing = np.unique(talk.column("sender")[talk.labels >= 0])
    if not len(seeing) or len(seeing) == len(seats) or len(seeing) > 12:
        return ""
    names = ", ".join(map(str, seeing))
    return f"Only seat{'s' * (len(seeing) > 1)} {names} saw anything that the world gives a label."


def deal_of(talk: Conversations) -> Deal:
    """The stays of a conversation's members."""
    stay = talk.streams
    first = np.unique(stay, return_index=True)[1]
    frame = pd.DataFrame({name: talk.column(name)[first] for name in ("world", "episode")})
    frame["species"] = talk.table["species"].take(first).to_pylist()
    return Deal(stay, talk.agents[0][first], frame.groupby(list(frame)).ngroup().to_numpy())


def dealt_anew(deal: Deal, rng: np.random.Generator) -> Array:
    """Agents [M] of the messages, after the members of every block changed places at random."""
    agent = np.empty_like(deal.agent)
    agent[np.argsort(deal.block, kind="stable")] = deal.agent[np.lexsort((rng.random(len(deal.block)), deal.block))]
    return agent[deal.stay]


def specialisation(talk: Conversations, vocab_size: int) -> basics.Specialisation:
    """How members differ in the symbols that they use, beside what it is when they are dealt to their seats anew."""
    assert talk.symbols is not None
    deal = deal_of(talk)
    agent, names = talk.agents
    return basics.specialisation(
        talk.symbols, agent, vocab_size, len(names), DEALS, deal=lambda rng: dealt_anew(deal, rng)
    )


def hubs(talk: Conversations, received: Array, inbox_size: float, seed: int = 0) -> Array:
    """Which members are hubs: as in `basics.hubs`, and listened to more than chance makes the most favoured one.

    Args:
        received: [A] mean weight that each gets.
        inbox_size: K.
    """
    links = talk.links
    assert links is not None
    assert links.weights is not None
    deal, rng = deal_of(talk), np.random.default_rng(seed)
    most = [
        np.nanmax(basics.received_weight(dealt_anew(deal, rng)[links.row], links.weights, len(received)))
        for _ in range(DEALS)
    ]
    by_chance = np.quantile(most, 1 - basics.LEVEL)
    return basics.hubs(received, inbox_size) & (np.nan_to_num(received) > by_chance)
