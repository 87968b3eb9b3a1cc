"""What is lost on the air: capacity, inboxes, dropout and noise; and sizes at which next to nothing is."""

import numpy as np
import pytest
import torch
from scipy import stats

from popcomm.channels import Full, Ring
from popcomm.channels.broadcast.decisions import Bernoulli, LocalRule
from popcomm.channels.broadcast.dimensions import Dimensions
from popcomm.channels.broadcast.log import entries
from popcomm.channels.broadcast.reflexes import (
    ImmediateFeedback,
)
from tests.channels.broadcast.airs import KIND, A, B, Fixed, inboxes, on_air, opened, repeating, step

ALWAYS = Bernoulli(1.0)
FEEDBACK = ImmediateFeedback()


def test_what_exceeds_the_capacity_is_dropped_before_it_is_written_and_counted():
    air = opened(6, capacity=4)
    step(air, A)
    heard = step(air)
    assert heard.words.shape == (1, 4)
    assert int((heard.words != 0).sum()) == 4
    assert air.traffic.read()["drops"] == pytest.approx(2 / 6)


def test_drops_favour_no_seat_and_no_kind():
    """12 transmissions of three kinds in each world, 5 places: all are kept with probability 5/12."""
    worlds, steps = 500, 20
    reflexes = [Fixed(), *repeating(ALWAYS, feedback=False)]
    air = opened(4, reflexes, worlds=worlds, capacity=5, seed=3)
    kept, offered = np.zeros((3, 4)), np.zeros((3, 4))
    for _ in range(steps):
        air.log = entries(np.arange(worlds), np.full(worlds, A, np.int32), 0)  # one word by seat 0: 3 repeat it
        step(air, [B, B, B, B])
        log = air.log
        kind = np.where(log.source < 0, 2, np.minimum(log.generation, 1))
        np.add.at(kept, (kind, log.source % 4), 1)
    offered[0], offered[1, 1:], offered[2, 3] = worlds * steps, worlds * steps, 5 * worlds * steps
    real = offered > 0
    expected = offered[real] * 5 / 12
    assert kept.sum() == expected.sum() == 5 * worlds * steps
    assert np.all(np.abs(kept[real] - expected) < 4.5 * np.sqrt(expected * 7 / 12))


def test_drops_favour_no_seat_over_many_steps():
    air = opened(8, [FEEDBACK], worlds=50, capacity=3, seed=4)
    kept = np.zeros(8)
    for _ in range(100):
        step(air, A)
        kept += np.bincount(air.log.source, minlength=8)
    # Sampling without replacement: the statistic over 1 - 3/8, times 7/8 for its degrees of freedom, is chi-square.
    statistic = stats.chisquare(kept).statistic / (5 / 8) * 7 / 8
    assert stats.chi2.sf(statistic, 7) > 1e-4
    assert stats.chi2.cdf(statistic, 7) > 1e-4


@pytest.mark.parametrize("topology", [Full(), Ring(4)])
def test_an_inbox_that_is_too_small_keeps_any_of_what_is_heard_and_counts_the_rest(topology):
    worlds = 4000
    air = opened(5, worlds=worlds, topology=topology, capacity=5, inbox=2, seed=5)
    step(air, A)
    heard = step(air)
    assert np.all(heard.mask.sum(2).numpy() == 2)
    assert air.traffic.read()["inbox_drops"] == pytest.approx(5 * 2 / 2)  # over two steps, of which one was silent
    for seat in range(5):
        counts = np.bincount(heard.senders[:, seat][heard.mask[:, seat]].numpy(), minlength=5)
        assert counts[seat] == 0
        assert np.abs(np.delete(counts, seat) - worlds / 2).max() < 4.5 * np.sqrt(worlds / 4)


def test_a_listener_that_misses_a_word_does_not_repeat_it_and_one_that_gets_it_does():
    worlds = 3000
    for inbox in (None, 9):
        air = opened(3, repeating(ALWAYS), worlds=worlds, capacity=10, inbox=inbox, dropout=0.4)
        step(air, [A, 0, 0])
        heard = step(air)
        got = heard.mask.any(2).numpy()
        assert abs(got.sum() - 0.6 * 3 * worlds) < 4.5 * np.sqrt(3 * worlds * 0.24)
        repeated = np.zeros((worlds, 3), bool)
        repeated[air.log.world, air.log.source] = True
        assert np.array_equal(got, repeated)


def test_dropout_of_one_is_a_channel_on_which_nothing_arrives():
    air = opened(3, repeating(ALWAYS), dropout=1.0)
    step(air, [A, 0, 0])
    assert inboxes(step(air)) == [[], [], []]
    assert on_air(air) == []


def test_noise_flips_bits_of_what_is_transmitted_the_same_for_all_and_loses_what_is_no_word_then():
    """A word of 7 on bits, noise e: it arrives unchanged with (1 - e)**32."""
    worlds, e = 6000, 0.02
    air = opened(3, [FEEDBACK], worlds=worlds, noise=e, seed=1)
    step(air, [A, 0, 0])
    assert abs((air.log.word == A).sum() - worlds * (1 - e) ** 32) < 4.5 * np.sqrt(worlds / 4)
    changed = air.log.word[air.log.word != A]
    assert len(changed)
    assert KIND.gated(torch.from_numpy(changed)).all()
    assert len(air.log) < worlds
    heard = step(air)
    assert np.array_equal(heard.mask.any(2).all(1).numpy(), heard.mask.any(2).any(1).numpy())


# ---- sizes ----


def test_default_sizes_lose_almost_nothing_when_all_speak_in_every_step():
    for topology in (Full(), Ring(2)):
        air = opened(10, repeating(LocalRule(0.5)), worlds=200, topology=topology)
        for _ in range(60):
            step(air, A)
        lost = air.traffic.read()
        assert lost["drops"] < 1e-3
        assert lost["inbox_drops"] < 0.02
        assert lost["load"] == pytest.approx(20, rel=0.05)


def test_an_inbox_is_never_larger_than_the_log():
    assert opened(4, capacity=3, inbox=99).size == Dimensions(3, 3)
