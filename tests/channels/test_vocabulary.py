"""Vocabularies that grow: how many symbols are open, that the others are never said, and that a session follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from popcomm.agents.speech import AutoregressiveSpeech
from popcomm.channels import Channel, Full, Symbols, Vectors, Words
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.channels.session import Session
from popcomm.channels.vocabulary import Vocabulary, closed, make_vocabulary
from popcomm.errors import UserError
from popcomm.schedules import Clock

FADE = {"kind": "linear", "begin": 100, "end": 200}
GROWS = {"first": 2, "schedule": FADE}


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 8), (0.75, 22), (0.5, 36), (0.0, 64)])
def test_symbols_are_opened_in_proportion_as_the_strength_falls(strength: float, expected: int) -> None:
    assert Vocabulary(8, FADE, 64).size(strength) == expected


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 4), (0.75, 8), (0.5, 16), (0.25, 32), (0.0, 64)])
def test_in_load_it_is_the_bits_of_a_symbol_that_grow_on_a_straight_line(strength: float, expected: int) -> None:
    assert Vocabulary(4, {"kind": "load_linear", "begin": 0, "end": 9}, 64).size(strength) == expected


def test_what_is_open_has_the_probabilities_of_a_vocabulary_that_has_no_more() -> None:
    params = torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wide, narrow = Symbols(6, 3), Symbols(4, 3)
    masked, fewer = closed(params, 4), params[..., :4]
    shares = wide.probabilities(masked)
    torch.testing.assert_close(shares[..., :4], narrow.probabilities(fewer))
    assert (shares[..., 4:] == 0).all()
    torch.testing.assert_close(wide.entropy(masked), narrow.entropy(fewer))
    torch.testing.assert_close(wide.expense(masked), narrow.expense(fewer))
    (wide.entropy(masked).sum() + wide.soft(masked)[..., 1].sum()).backward()
    assert params.grad is not None
    assert (params.grad[..., 4:] == 0).all()
    assert (params.grad[..., :4] != 0).any()


@pytest.mark.parametrize("kind", [Symbols(6, 2), RelaxedSymbols(6, 2), Symbols(6, 2, end_symbol=True)])
def test_a_closed_symbol_is_never_said_however_much_a_network_would_like_to(kind: Any) -> None:
    params = torch.zeros(4000, 2, 6)
    params[..., 3:] = 20.0
    said = kind.sample(closed(params, 3), torch.Generator().manual_seed(0))
    symbols = kind.as_symbols(said)
    assert set(symbols.unique().tolist()) == {0, 1, 2}
    assert kind.as_symbols(kind.mode(closed(params, 3))).max() < 3
    if said.is_floating_point():
        assert (said[..., 3:] == 0).all()
    else:
        # 0 ends, and stands after an end: so much more often than one in three.
        share = (symbols[:, 0] == 1).double().mean().item()
        assert share == pytest.approx(1 / 3, abs=0.03)


def test_who_speaks_symbol_by_symbol_says_none_either() -> None:
    speech = AutoregressiveSpeech(1, 3, Symbols(6, 4), generator=torch.Generator().manual_seed(0))
    chance = torch.Generator().manual_seed(1)
    _, said = speech(torch.randn(1, 500, 3, generator=chance), generator=chance, open_symbols=3)
    assert set(said.unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", [Symbols(8, 1), RelaxedSymbols(8, 1)])
def test_of_noise_come_open_symbols_alone(kind: Any) -> None:
    channel = Channel(kind, Full(), 500, noise=1.0, vocabulary=GROWS)
    session = Session(channel, 1, 0, torch.Generator().manual_seed(0))
    everybody = torch.ones(1, 500, dtype=torch.bool)
    for step, many in ((0, 2), (150, 5), (200, 8)):
        session.observe(Clock(step))
        session.send(kind.mode(torch.zeros(1, 500, 1, 8)), everybody, everybody.any(1))
        assert session.transmitted.shape == (1, 500, *kind.shape)
        assert kind.as_symbols(session.transmitted).unique().tolist() == list(range(many))


def test_a_session_follows_the_clock_and_says_how_far_it_is() -> None:
    session = Session(Channel(Symbols(6, 1), Full(), 3, vocabulary=GROWS), 1, 0)
    assert session.open_symbols == 2
    found = []
    for step in (0, 100, 150, 200, 999):
        session.observe(Clock(step))
        found.append(session.open_symbols)
    assert found == [2, 2, 4, 6, 6]
    assert session.measures() == {"open_symbols": 6}


def test_what_a_gated_schedule_remembers_goes_from_session_to_session_and_is_not_shared() -> None:
    gated = {"kind": "gated", "measure": "reward", "begin": 0.0, "end": 1.0, "smoothing": 0.0}
    channel = Channel(Symbols(12, 1), Full(), 3, vocabulary={"first": 2, "schedule": gated})
    first, second = Session(channel, 1, 0), Session(channel, 1, 0)
    first.observe(Clock(1, {"reward": 0.5}))
    assert (first.open_symbols, second.open_symbols) == (7, 2)
    second.set_fades(first.fades())
    second.observe(Clock(2))
    assert second.open_symbols == 7
    with pytest.raises(UserError, match=r"has 2 schedules of communication\.reflexes, topology and vocabulary"):
        second.set_fades([{}, {}])


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        ({"first": 8, "schedule": FADE}, Symbols(8, 1), "first is 8, and must be below messages.vocab_size = 8"),
        ({"first": 1, "schedule": FADE}, Symbols(8, 1), "vocabulary.first is 1"),
        ({"first": 2}, Symbols(8, 1), "vocabulary.schedule is missing"),
        ({"schedule": FADE}, Symbols(8, 1), "vocabulary.first is missing"),
        ({"frist": 2, "schedule": FADE}, Symbols(8, 1), "'frist' does not exist; .*first"),
        (4, Symbols(8, 1), "is 4, and must be a mapping with first and schedule"),
        (GROWS, Vectors(3), "messages are vectors; use kind symbols"),
        (GROWS, Words(8, 2, 3, vocab=4), "messages are words; use kind symbols"),
        ({"first": 2, "schedule": {"kind": "linaer"}}, Symbols(8, 1), "vocabulary.schedule"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(value: Any, kind: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make_vocabulary(value, kind)
