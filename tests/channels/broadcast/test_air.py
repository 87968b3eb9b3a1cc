"""The air on small cases that are known by hand: who hears what and when, what goes out, and what is lost."""

import numpy as np
import pytest
import torch
from scipy import stats

from popcomm.channels import Custom, Full, Ring
from popcomm.channels.broadcast.decisions import Bernoulli, PerAgent
from popcomm.channels.broadcast.reflexes import (
    ImmediateFeedback,
    Publishing,
    WordRepetition,
)
from popcomm.schedules import Clock, Linear
from tests.channels.broadcast.airs import KIND, A, B, C, D, inboxes, on_air, opened, repeating, step

ALWAYS = Bernoulli(1.0)
FEEDBACK = ImmediateFeedback()


# ---- hearing ----


def test_a_word_is_heard_by_all_one_step_after_it_was_said_and_by_nobody_before_or_after():
    air = opened(3, [FEEDBACK])
    assert inboxes(step(air, [A, 0, 0])) == [[], [], []]
    assert inboxes(step(air)) == [[(A, 0)]] * 3
    assert inboxes(step(air)) == [[], [], []]


def test_without_feedback_all_hear_a_word_but_its_sender():
    air = opened(3, capacity=8)
    step(air, [A, B, 0])
    assert inboxes(step(air)) == [[(B, 1)], [(A, 0)], [(A, 0), (B, 1)]]


@pytest.mark.parametrize("inbox", [None, 2])
def test_partial_feedback_is_the_share_of_transmissions_that_their_sender_hears(inbox):
    air = opened(2, [ImmediateFeedback(schedule=0.3)], worlds=4000, inbox=inbox)
    step(air, [A, 0])
    heard = step(air)
    assert int(heard.mask[:, 1].sum()) == 4000
    assert abs(int(heard.mask[:, 0].sum()) - 1200) < 4.5 * np.sqrt(4000 * 0.3 * 0.7)


def test_two_feedbacks_are_one_that_fails_where_both_do():
    air = opened(2, [ImmediateFeedback(0.5), ImmediateFeedback(0.5)], worlds=4000)
    step(air, [A, 0])
    assert abs(int(step(air).mask[:, 0].sum()) - 3000) < 4.5 * np.sqrt(4000 * 0.75 * 0.25)


@pytest.mark.parametrize("feedback", [False, True])
def test_on_a_ring_neighbours_hear(feedback):
    air = opened(4, [FEEDBACK] if feedback else [], topology=Ring(2), capacity=8, inbox=8)
    step(air, [A, 0, 0, 0])
    assert inboxes(step(air)) == [[(A, 0)] if feedback else [], [(A, 0)], [], [(A, 0)]]


def test_the_deaf_hear_nothing_and_repeat_nothing():
    air = opened(3, repeating(ALWAYS))
    step(air, [A, 0, 0])
    assert inboxes(step(air, hears=[True, False, True])) == [[(A, 0)], [], [(A, 0)]]
    assert on_air(air) == [(A, 0, 1), (A, 2, 1)]


def test_words_of_those_who_died_since_are_lost():
    air = opened(3, repeating(ALWAYS))
    step(air, [A, B, 0])
    assert inboxes(step(air, present=[False, True, True], hears=[False, True, True], able=[False, True, True])) == [
        [],
        [(B, 1)],
        [(B, 1)],
    ]
    assert on_air(air) == [(B, 1, 1), (B, 2, 1)]


def test_the_dead_say_nothing():
    air = opened(2)
    step(air, [A, B], able=[True, False])
    assert on_air(air) == [(A, 0, 0)]


def test_the_newborn_hears_nothing_of_before_and_its_seats_former_words_are_lost():
    """Seat 1 dies and is taken by another: its words are not the newborn's, who has not heard the others'."""
    air = opened(3, repeating(ALWAYS), capacity=9)
    step(air, [A, B, 0])
    born = [True, False, True]
    assert inboxes(step(air, [0, C, 0], present=born, hears=born)) == [[(A, 0)], [], [(A, 0)]]
    assert on_air(air) == [(A, 0, 1), (A, 2, 1), (C, 1, 0)]
    assert inboxes(step(air))[1] == [(A, 0), (A, 2), (C, 1)]


def test_forgetting_a_world_silences_that_world_only():
    air = opened(2, repeating(ALWAYS), worlds=3)
    step(air, [A, 0])
    air.forget(np.array([False, True, False]))
    heard = step(air)
    assert [inboxes(heard, w)[1] for w in range(3)] == [[(A, 0)], [], [(A, 0)]]
    assert [len(on_air(air, w)) for w in range(3)] == [2, 0, 2]


def test_a_world_in_which_all_lives_begin_has_nothing_on_the_air():
    air = opened(2, [FEEDBACK, Publishing(50.0)], worlds=2, capacity=200)
    step(air)
    heard = step(air, hears=[[True, True], [False, False]])
    assert heard.mask[0].any()
    assert not heard.mask[1].any()
    assert not (heard.words[1] != 0).any()


def test_heard_says_whose_word_it_is_and_whether_its_source_said_it():
    air = opened(2, [*repeating(ALWAYS), Publishing(4.0, [D])], capacity=60)
    step(air, [A, 0])
    heard = step(air)
    slots = [(w, s, d) for w, s, d in zip(*(x[0].tolist() for x in heard[:3]), strict=True) if w]
    assert (A, 0, True) in slots
    assert all(not d and s == 2 for w, s, d in slots if w == D)
    heard = step(air)
    said = heard.words[0][heard.slots[0]][heard.said[0]]
    assert not len(said), "repetitions and published words are nobody's own"
    assert int(heard.senders.max()) == 2


# ---- repetition ----


def test_each_who_hears_a_word_repeats_it_and_generations_count():
    air = opened(3, repeating(ALWAYS, feedback=False), capacity=50)
    step(air, [A, 0, 0])
    step(air)
    assert on_air(air) == [(A, 1, 1), (A, 2, 1)]
    step(air)
    assert on_air(air) == [(A, 0, 2), (A, 0, 2), (A, 1, 2), (A, 2, 2)]


def test_with_feedback_the_sender_repeats_itself_too():
    air = opened(2, repeating(ALWAYS), capacity=50)
    step(air, [A, 0])
    for generation in range(1, 5):
        step(air)
        assert on_air(air) == sorted([(A, 0, generation), (A, 1, generation)] * 2 ** (generation - 1))


def test_only_listeners_repeat():
    """On a chain 0 -> 1 -> 2 -> 3 a word walks on, one seat a step, and leaves at the end."""
    chain = np.eye(4, k=1, dtype=bool)
    air = opened(4, repeating(ALWAYS, feedback=False), topology=Custom(chain), capacity=9, inbox=9)
    step(air, [A, 0, 0, 0])
    for seat in (1, 2, 3):
        step(air)
        assert on_air(air) == [(A, seat, seat)]
    step(air)
    assert on_air(air) == []


def test_who_may_not_transmit_does_not_repeat():
    air = opened(3, repeating(ALWAYS))
    step(air, [A, 0, 0])
    step(air, able=[True, True, False])
    assert on_air(air) == [(A, 0, 1), (A, 1, 1)]


def test_per_agent_probabilities_belong_to_the_listener():
    air = opened(3, repeating(PerAgent([0.0, 1.0, 0.0])))
    step(air, [A, 0, 0])
    step(air)
    assert on_air(air) == [(A, 1, 1)]


def test_in_parallel_a_repetition_goes_out_beside_the_own_word():
    air = opened(2, repeating(ALWAYS, feedback=False))
    step(air, [A, 0])
    step(air, [0, B])
    assert on_air(air) == [(A, 1, 1), (B, 1, 0)]


def test_a_hijacked_agent_does_not_say_its_own_word():
    air = opened(3, repeating(PerAgent([0.0, 1.0, 0.0]), slot="hijack"))
    step(air, [A, 0, 0])
    everybody = np.ones((1, 3), bool)
    air.deliver(everybody, everybody)
    voiced = air.transmit(np.array([[B, C, D]], np.int32), everybody)
    assert voiced.tolist() == [[True, False, True]]
    assert everybody.all()
    assert on_air(air) == [(A, 1, 1), (B, 0, 0), (D, 2, 0)]


def test_hijacked_channels_carry_at_most_one_transmission_an_agent_whatever_the_reflexes():
    rng = np.random.default_rng(0)
    reflexes = [FEEDBACK, WordRepetition(Bernoulli(0.6), slot="hijack"), WordRepetition(Bernoulli(0.7), slot="hijack")]
    air = opened(5, reflexes, worlds=20, capacity=50)
    for _ in range(30):
        step(air, np.where(rng.random((20, 5)) < 0.5, KIND.uniform(rng, 100).reshape(20, 5), 0))
        per_agent = np.bincount(air.log.world * 5 + air.log.source, minlength=100)
        assert per_agent.max() == 1


def test_a_hijacked_agent_repeats_any_of_what_it_heard_with_equal_probability():
    air = opened(4, repeating(PerAgent([0.0, 0.0, 0.0, 1.0]), slot="hijack"), worlds=6000)
    step(air, [A, B, C, 0])
    step(air)
    chosen = np.unique(air.log.word, return_counts=True)
    assert chosen[0].tolist() == [A, B, C]
    assert stats.chisquare(chosen[1]).pvalue > 1e-4


@pytest.mark.parametrize("topology", [Full(), Ring(2)])
def test_dedup_decides_once_for_each_word_that_an_agent_received(topology):
    """All of 3 say the same word: each hears it thrice and repeats it once; the other word is decided for itself."""
    air = opened(3, repeating(ALWAYS, dedup=True), topology=topology, capacity=40, inbox=40)
    step(air, [A, A, B])
    step(air)
    assert on_air(air) == sorted((word, seat, 1) for word in (A, B) for seat in range(3))


def test_dedup_does_not_count_copies_that_did_not_reach_the_agent():
    """On a ring of 5 with four saying A, seats hear one copy or two, their own not: each repeats A with 0.3."""
    worlds = 8000
    air = opened(5, repeating(Bernoulli(0.3), dedup=True, feedback=False), worlds=worlds, topology=Ring(2))
    step(air, [A, A, 0, A, A])
    step(air)
    repeated = np.bincount(air.log.source, minlength=5)
    assert np.abs(repeated - 0.3 * worlds).max() < 4.5 * np.sqrt(worlds * 0.3 * 0.7)
    assert np.bincount(air.log.world * 5 + air.log.source).max() == 1


def test_dedup_with_dropout_decides_once_if_any_copy_arrived():
    """Two copies, each missed with probability 1/2: the word arrives with 3/4, and is then repeated."""
    worlds = 8000
    decision = PerAgent([0.0, 0.0, 1.0])
    air = opened(3, repeating(decision, dedup=True, feedback=False), worlds=worlds, dropout=0.5)
    step(air, [A, A, 0])
    step(air)
    assert abs(len(air.log) - 0.75 * worlds) < 4.5 * np.sqrt(worlds * 0.75 * 0.25)


def test_two_repetitions_are_two_reflexes_with_two_names():
    air = opened(2, [WordRepetition(ALWAYS), WordRepetition(ALWAYS, schedule=0.5), FEEDBACK], capacity=9)
    assert air.strengths() == {"word_repetition_0": 1.0, "word_repetition_1": 0.5, "immediate_feedback": 1.0}
    air = opened(2, [WordRepetition(ALWAYS), WordRepetition(ALWAYS)], capacity=9)
    step(air, [A, 0])
    step(air)
    assert on_air(air) == [(A, 1, 1), (A, 1, 1)]


def test_a_repetition_that_faded_away_repeats_nothing():
    air = opened(2, repeating(ALWAYS, schedule=Linear(0, 100)))
    air.observe(Clock(100))
    step(air, [A, 0])
    step(air)
    assert on_air(air) == []
    assert air.strengths()["word_repetition"] == 0.0


# ---- publishing ----


def test_published_words_are_nobodys_and_heard_by_all_as_poisson_many_as_asked_for():
    air = opened(3, [Publishing(2.0)], worlds=5000, topology=Ring(2), capacity=20, inbox=20)
    step(air)
    counts = air.log.counts(5000)
    assert np.all(air.log.source == -1)
    assert np.all(air.log.generation == 0)
    assert abs(counts.mean() - 2) < 4 * np.sqrt(2 / 5000)
    assert abs(counts.var() - 2) < 4.5 * np.sqrt((2 + 2 * 4) / 5000)  # variance of a Poisson's sample variance
    assert KIND.gated(torch.from_numpy(air.log.word)).all()
    heard = step(air)
    assert np.array_equal(heard.mask.sum(2).numpy(), np.repeat(counts[:, None], 3, 1))


def test_nothing_is_published_where_nobody_lives():
    air = opened(2, [Publishing(20.0)], worlds=2, capacity=99)
    everybody = np.ones((2, 2), bool)
    air.deliver(everybody, everybody)
    air.transmit(np.zeros((2, 2), np.int32), everybody, np.array([True, False]))
    assert on_air(air, 0)
    assert not on_air(air, 1)


def test_a_published_word_is_repeated_by_all_who_hear_it():
    air = opened(3, [Publishing(1.0, [A]), WordRepetition(ALWAYS)], capacity=40)
    step(air)
    published = len(air.log)
    air.reflexes[0].rate = 0.0
    step(air)
    assert published > 0
    assert on_air(air) == sorted([(A, seat, 1) for seat in range(3)] * published)
