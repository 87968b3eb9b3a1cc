"""A channel in use: who hears what one step after it was said, with a log and without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from popcomm.channels import Channel, Full, Learned, Routed, Symbols, Vectors, Words
from popcomm.channels.broadcast.decisions import Bernoulli
from popcomm.channels.broadcast.reflexes import ImmediateFeedback, SensoryDeprivation, WordRepetition
from popcomm.channels.session import Session
from popcomm.errors import UserError
from popcomm.schedules import Clock, Linear

WORDS = Words(5, 1, 3)
A, B, C = 0b00011, 0b00110, 0b01100
ALL = torch.ones(1, 3, dtype=torch.bool)
NOBODY = ~ALL


def flags(*values: int) -> Tensor:
    return torch.tensor([values], dtype=torch.bool)


def session_of(kind: Any = WORDS, topology: Any = None, worlds: int = 1, seed: int = 0, **options: Any) -> Session:
    channel = Channel(kind, topology or Full(), 3, **options)
    return Session(channel, worlds, seed, torch.Generator().manual_seed(seed))


def say(session: Session, *words: int, able: Tensor = ALL) -> list[bool]:
    """All agents of one world say a word; who could."""
    lively = torch.ones(1, dtype=torch.bool)
    return session.send(torch.tensor([words], dtype=WORDS.dtype), able, lively)[0].tolist()


def heard(session: Session, present: Tensor = ALL, hears: Tensor = ALL) -> list[list[tuple[int, int]]]:
    """(word, sender) of what each agent of one world hears now, sorted."""
    mail = session.deliver(present, hears)
    words, senders, mask = mail.messages[0][mail.slots[0]], mail.senders[0], mail.mask[0]
    rows = zip(words.tolist(), senders.tolist(), mask.tolist(), strict=True)
    return [sorted((w, s) for w, s, real in zip(*row, strict=True) if real) for row in rows]


# A log that is large enough for all changes nothing of who hears whom.
WAYS: list[dict[str, Any]] = [{}, {"capacity": 3, "inbox": 3}]


@pytest.mark.parametrize("way", WAYS)
def test_a_word_is_heard_one_step_later_by_all_others(way: dict[str, Any]) -> None:
    session = session_of(**way)
    assert heard(session) == [[], [], []]
    assert say(session, A, B, C) == [True] * 3
    assert heard(session) == [[(B, 1), (C, 2)], [(A, 0), (C, 2)], [(A, 0), (B, 1)]]
    say(session, 0, B, 0)
    assert heard(session) == [[(B, 1)], [], [(B, 1)]]


@pytest.mark.parametrize("way", WAYS)
def test_who_may_not_speak_has_gone_or_is_deaf_takes_no_part(way: dict[str, Any]) -> None:
    session = session_of(**way)
    heard(session)
    assert say(session, A, B, C, able=flags(1, 1, 0)) == [True, True, False]
    assert heard(session, present=flags(0, 1, 1), hears=flags(1, 0, 1)) == [[(B, 1)], [], [(B, 1)]]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_heard_across_the_start_of_an_episode(way: dict[str, Any]) -> None:
    session = session_of(worlds=2, **way)
    both = ALL.expand(2, -1)
    session.deliver(both, both)
    session.send(torch.tensor([[A, B, C]] * 2, dtype=WORDS.dtype), both, torch.ones(2, dtype=torch.bool))
    session.forget(torch.tensor([True, False]))
    mask = session.deliver(both, both).mask
    assert not mask[0].any()
    assert mask[1].sum() == 6


@pytest.mark.parametrize("way", WAYS)
def test_a_cleared_session_is_silent_in_new_episodes(way: dict[str, Any]) -> None:
    session = session_of(**way)
    heard(session)
    say(session, A, B, C)
    session.clear()
    session.forget(torch.ones(1, dtype=torch.bool))
    assert heard(session) == [[], [], []]
    assert not session.transmitted.any()


def test_who_comes_to_a_seat_does_not_inherit_the_waiting_of_who_left_it() -> None:
    urgent = torch.tensor([[0.9, 0.8, 0.1]])
    session = session_of(budget={"messages": 1, "patience": 5})
    for turn in (1, 2, 3):
        session.deliver(ALL, ALL)
        assert session._waited.tolist() == [[0, 0, turn - 1]]
        session.send(torch.full((1, 3), A), ALL, torch.ones(1, dtype=torch.bool), urgent)
    session.deliver(flags(1, 1, 0), flags(1, 1, 0))  # another comes to the last seat
    assert session._waited.tolist() == [[0, 0, 0]]

    session = session_of(budget={"messages": 1, "patience": 9}, rounds=2)
    for turn in (0, 2, 4):
        session.converse(ALL, begun=NOBODY)
        assert session._waited.tolist() == [[0, 0, turn]]
        for _ in range(2):
            session.send(torch.full((1, 3), A), ALL, torch.ones(1, dtype=torch.bool), urgent)
            session.deliver(ALL, ALL)
    session.converse(ALL, begun=flags(0, 0, 1))
    assert session._waited.tolist() == [[0, 0, 0]]


def test_noise_is_the_same_for_all_who_hear_and_is_told_apart_from_what_was_said() -> None:
    session = session_of(Vectors(2, 1.0), noise=0.5)
    said = torch.zeros(1, 3, 2)
    session.send(said, ALL, torch.ones(1, dtype=torch.bool))
    mail = session.deliver(ALL, ALL)
    assert (session.transmitted != 0).all()
    assert (mail.messages == session.transmitted).all()
    expected = said + 0.5 * torch.randn(said.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(session.transmitted, expected)


def test_without_inboxes_mail_says_who_is_on_the_air_and_who_listens() -> None:
    session = session_of(Symbols(4, 1), Routed(2))
    session.send(torch.ones(1, 3, 1, dtype=torch.int64), flags(1, 1, 0), torch.ones(1, dtype=torch.bool))
    mail = session.deliver(ALL, flags(0, 1, 1))
    assert mail.mask[0, :, 0].tolist() == [True, True, False]
    assert mail.hears is not None
    assert mail.hears.tolist() == [[False, True, True]]


def test_who_repeats_a_word_in_place_of_its_own_could_not_say_it() -> None:
    # All who hear a word repeat it.
    session = session_of(reflexes=[WordRepetition(Bernoulli(1.0), slot="hijack")], capacity=9, inbox=9)
    heard(session)
    assert say(session, A, 0, 0) == [True] * 3
    heard(session)
    assert say(session, C, B, B) == [True, False, False]
    mail = session.deliver(ALL, ALL)
    # Seat 0 hears two repetitions, the others one of each other and the word that seat 0 said itself.
    assert mail.mask[0].sum(1).tolist() == [2, 2, 2]
    assert mail.said[0].sum(1).tolist() == [0, 1, 1]
    assert mail.links.senders.max() <= 2


def test_what_is_taken_from_whom_is_told_and_can_be_applied_to_any_numbers() -> None:
    session = session_of(reflexes=[SensoryDeprivation("withdraw", when=1.0)])
    assert session.deprives
    (taken,) = session.deprived()
    assert taken.mask.tolist() == [[True] * 3]
    seen = taken.perceive(np.full((2, 4), 7.0), np.full(4, -9.0), np.full(4, 9.0))
    assert seen.tolist() == [[0.0] * 4] * 2
    assert not session_of().deprives
    assert session_of().deprived() == []


def test_fades_follow_the_clock_and_are_handed_on() -> None:
    session = session_of(reflexes=[ImmediateFeedback(Linear(0, 100))])
    session.observe(Clock(25, {}))
    assert session.measures()["immediate_feedback_strength"] == 0.75
    other = session_of(reflexes=[ImmediateFeedback(Linear(0, 100))])
    other.set_fades(session.fades())
    with pytest.raises(
        UserError,
        match=r"has 2 schedules of communication.reflexes, topology and vocabulary, and this configuration has 1;",
    ):
        other.set_fades([{}, {}])


def test_without_a_log_there_is_nothing_to_fade_or_to_measure() -> None:
    session = session_of()
    session.observe(Clock(25, {}))
    session.set_fades([{}])
    assert session.fades() == []
    assert session.measures() == {}


@pytest.mark.parametrize(
    "options",
    [
        {"kind": Vectors(2, 1.0), "noise": 0.3, "dropout": 0.4},
        {"kind": Symbols(4, 1), "topology": Routed(2), "dropout": 0.4},
        {
            "noise": 0.1,
            "dropout": 0.2,
            "reflexes": [{"kind": "publishing", "rate": 0.7}, WordRepetition(Bernoulli(0.5))],
        },
    ],
)
def test_a_restored_session_goes_on_bit_for_bit(options: dict[str, Any]) -> None:
    one, other = session_of(worlds=2, seed=1, **options), session_of(worlds=2, seed=2, **options)
    everybody, lively = torch.ones(2, 3, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    kind, rng = one.channel.messages, torch.Generator().manual_seed(0)

    def step(session: Session, said: Tensor) -> list[Tensor]:
        session.send(said, everybody, lively)
        mail = session.deliver(everybody, everybody)
        return [mail.messages, mail.senders, mail.mask, mail.said, session.transmitted]

    said = [kind.sample(torch.randn(2, 3, *kind.params_shape, generator=rng), rng) for _ in range(8)]
    one.deliver(everybody, everybody)
    for words in said[:4]:
        step(one, words)
    state, generator = one.get_state(), one._generator
    assert generator is not None
    other.set_state(state, everybody)
    assert other._generator is not None
    other._generator.set_state(generator.get_state())
    assert one.mail is not None
    assert other.mail is not None
    assert (one.mail.senders == other.mail.senders).all()
    for words in said[4:]:
        for a, b in zip(step(one, words), step(other, words), strict=True):
            assert torch.equal(a, b)


def test_before_the_first_delivery_there_is_no_state() -> None:
    assert session_of().get_state() == {}


@pytest.mark.parametrize("budget", [None, 1])
def test_links_that_are_pruned_are_gone_at_once_be_inboxes_as_wide_as_before_or_not(budget: int | None) -> None:
    """Of three seats each hears both others, or the most urgent of them; then nobody hears seat 0, whom two heard."""
    session = session_of(Symbols(4, 1), Learned(), budget=budget)
    session.send(torch.tensor([[[1], [2], [3]]]), ALL, torch.ones(1, dtype=torch.bool), torch.tensor([[0.9, 0.8, 0.7]]))
    mail = session.deliver(ALL, ALL)
    assert mail.mask.all()
    assert mail.slots[0, 1:, 0].tolist() == [0, 0]
    open_links = 0.9 * (1 - torch.eye(3))
    session.relink(open_links, False)
    assert session.mail is not None
    assert session.mail.mask.all()
    open_links[0] = 0.0
    session.relink(open_links, True)
    # Seat 0 still hears both others, so that its inbox stays as it is.
    assert session.mail.slots.shape[-1] == (budget or 2)
    assert session.mail.mask[0].sum(-1).tolist() == ([2, 1, 1] if budget is None else [1, 0, 0])
    assert not (session.mail.mask & (session.mail.slots == 0))[0, 1:].any()
