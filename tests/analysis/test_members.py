"""Members are compared where they were dealt to seats, and chance is what dealing them anew gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from popcomm.analysis import members
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import basics
from popcomm.language.recording import conversation_path, write_conversations

SEATS, WORLDS, STEPS = 5, 12, 20


def talk(folder: Path, own: float, favoured: float, seed: int = 0) -> members.Conversations:
    """Each seat has a habit of its own (its seat's and its world's symbol), and seat 0 gets most attention.

    Besides, member 2 says 9 in a share of its steps, and is given so much more attention.
    """
    rng = np.random.default_rng(seed)
    shape = (WORLDS, STEPS, SEATS)
    world, step, seat = (a.ravel() for a in np.meshgrid(*map(np.arange, shape), indexing="ij"))
    member = rng.permuted(np.tile(np.arange(SEATS), (WORLDS, 1)), axis=1)[world, seat]
    habit = rng.integers(0, 8, (WORLDS, SEATS))[world, seat]
    symbols = np.where((member == 2) & (rng.random(len(world)) < own), 9, habit)
    weight = 0.3 + 0.2 * (seat == 0) + favoured * (member == 2) + 0.05 * rng.random(len(world))
    rows = {"world": world, "step": step, "sender": seat, "member": member, "symbols": symbols[:, None]}
    rows |= {name: np.zeros(len(world), int) for name in ("iteration", "env_steps", "episode")}
    rows |= {"species": ["a"] * len(world), "receivers": ((seat + 1) % SEATS)[:, None], "weights": weight[:, None]}
    write_conversations(conversation_path(folder, 1), rows)
    (folder / "config.yaml").write_text("{}")
    return RunFolder.read(folder).talk


def hubs_of(conversation: members.Conversations) -> list[int]:
    links = conversation.links
    assert links is not None
    assert links.weights is not None
    received = basics.received_weight(conversation.heard[0], links.weights, SEATS)
    return np.flatnonzero(members.hubs(conversation, received, inbox_size=4.0)).tolist()


def test_a_member_with_ways_of_its_own_is_found_on_whatever_seat(tmp_path: Path) -> None:
    conversation = talk(tmp_path, own=0.8, favoured=0.2)
    assert members.incomparable(conversation) == ""
    found = members.specialisation(conversation, 10)
    assert int((found.divergence - found.chance).argmax()) == 2
    assert found.p_value <= basics.LEVEL
    assert hubs_of(conversation) == [2]


def test_habits_of_seats_and_worlds_make_no_member_special(tmp_path: Path) -> None:
    """At most one in twenty, by chance; if every message were dealt by itself, all would be."""
    special = hubs = 0
    for seed in range(12):
        conversation = talk(tmp_path, own=0.0, favoured=0.0, seed=seed)
        special += members.specialisation(conversation, 10).p_value <= basics.LEVEL
        hubs += bool(hubs_of(conversation))
    assert special <= 2
    assert hubs <= 2


def test_members_change_places_within_their_episode_alone(tmp_path: Path) -> None:
    conversation = talk(tmp_path, own=0.0, favoured=0.0)
    dealt = members.dealt_anew(members.deal_of(conversation), np.random.default_rng(1))
    for world in range(WORLDS):
        here = conversation.column("world") == world
        stays = {(int(s), int(a)) for s, a in zip(conversation.column("sender")[here], dealt[here], strict=True)}
        assert sorted(agent for _, agent in stays) == list(range(SEATS))
    assert (dealt != conversation.agents[0]).any()
