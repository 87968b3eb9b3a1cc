"""Decision functions: what they ask for, what they veto, what they remember, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcomm.channels.broadcast.decisions import (
    Bernoulli,
    Controlled,
    CountMin,
    Decision,
    LocalRule,
    PerAgent,
    make_decision,
    occurrence,
)
from popcomm.channels.broadcast.moment import Measured
from popcomm.errors import UserError
from popcomm.theory import next_generation_matrix, spectral_radius
from tests.channels.broadcast.airs import A, B, on_air, opened, progeny, repeating, step


class Shy(Decision):
    """A decision of a user's own: nobody but seat `who` repeats."""

    def __init__(self, who: int = 0) -> None:
        self.who = who

    def probabilities(self, indegree: np.ndarray) -> np.ndarray:
        return (np.arange(indegree.shape[-1]) == self.who).astype(float)


# ---- probabilities ----


def test_one_probability_is_for_all_and_a_list_is_one_for_each_seat():
    assert Bernoulli(0.25).probabilities(np.ones(3)) == 0.25
    assert PerAgent([0, 0.5, 1]).probabilities(np.ones(3)).tolist() == [0, 0.5, 1]


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.01, 0.95))
def test_the_local_rule_makes_the_spectral_radius_the_target_on_any_graph(seed, n, target):
    """Where everybody hears itself no p is above 1, and all columns of T diag(p) sum to the target."""
    hears = np.random.default_rng(seed).random((n, n)) < 0.3
    np.fill_diagonal(hears, True)
    p = LocalRule(target).probabilities(hears.sum(0).astype(float))
    assert spectral_radius(next_generation_matrix(hears, p)) == pytest.approx(target, rel=1e-9)


def test_who_hears_nobody_repeats_nothing_and_no_probability_exceeds_one():
    for rule in (LocalRule(0.5), Controlled(0.5)):
        assert rule.probabilities(np.array([0.0, 0.1, 0.5, 2.0])).tolist() == [0, 1, 1, 0.25]
        assert rule.probabilities(np.array([[1.0, 2.0]])).tolist() == [[0.5, 0.25]]


# ---- count-min ----


@pytest.mark.parametrize("cap", [1, 3])
@pytest.mark.parametrize("feedback", [False, True])
def test_words_that_all_repeat_surely_end_at_the_cap(cap, feedback):
    """Everybody repeats the word exactly `cap` times, if it hears it so often: Z = 1 + N cap."""
    air = opened(6, repeating(CountMin(cap, window=10_000), feedback), worlds=40, capacity=400, inbox=1)
    total = progeny(air)
    assert np.all(total <= 1 + 6 * cap)
    assert np.mean(total == 1 + 6 * cap) > 0.9  # in the others two agents share counters


def test_copies_of_a_step_count_one_after_the_other():
    air = opened(2, repeating(CountMin(2), feedback=False), capacity=9)
    step(air, [A, 0])
    air.log = air.log.take(np.zeros(5, int))  # five copies by seat 0
    step(air)
    assert on_air(air) == [(A, 1, 1)] * 2


def test_each_word_and_each_agent_has_a_count_of_its_own():
    air = opened(3, repeating(CountMin(1, width=1 << 16), feedback=False), capacity=20)
    step(air, [A, 0, 0])
    step(air, [0, B, 0])
    assert on_air(air) == [(A, 1, 1), (A, 2, 1), (B, 1, 0)]
    step(air)
    assert on_air(air) == [(A, 0, 2), (B, 0, 1), (B, 2, 1)]


def test_a_new_episode_starts_the_counts_of_its_world_from_zero():
    air = opened(2, repeating(CountMin(1), feedback=False), worlds=2)
    assert progeny(air).tolist() == [3, 3]
    air.forget(np.array([True, False]))
    assert progeny(air).tolist() == [3, 1 + 0]


@pytest.mark.parametrize("said", [range(1, 30), [1, 2, 8, 16, 24]])
def test_counts_are_halved_each_window_whether_or_not_anything_is_on_the_air(said):
    """A cap of 2 is used up in steps 2 and 3; after 8, 16, 24 steps the count of 2 is 1, for one more repetition."""
    air = opened(2, repeating(CountMin(2, PerAgent([0.0, 1.0]), window=8), feedback=False), capacity=9)
    repeated = []
    for t in range(1, 30):
        step(air, [A if t in said else 0, 0])
        repeated += [t] * int((air.log.source == 1).sum())
    assert repeated == [2, 3, 9, 17, 25]


def test_windows_do_not_depend_on_other_worlds():
    """World 0 alone, and beside a world that is never silent: the same number of repetitions in each step."""
    counts = []
    for worlds in (1, 2):
        air = opened(2, repeating(CountMin(1, window=4), feedback=False), worlds=worlds, capacity=50)
        made = []
        for t in range(40):
            words = np.zeros((worlds, 2), np.int32)
            words[0, 0] = A if t % 5 == 0 else 0
            words[1:, 0] = B
            step(air, words)
            made.append(int((air.log.take(air.log.world == 0).generation > 0).sum()))
        counts.append(made)
    assert counts[0] == counts[1]
    assert sum(counts[0]) > 4


def test_what_a_hijacked_turn_leaves_out_does_not_count():
    """Seat 1 hears A and B, repeats one of them, and the other one in the next step: a cap of 1 allows both."""
    air = opened(3, repeating(CountMin(1, Shy(2)), feedback=False, slot="hijack"), worlds=50, capacity=9)
    repeated = np.zeros(50, int)
    for _ in range(40):
        step(air, [A, B, 0])
        repeated += (air.log.source == 2).reshape(-1) @ np.eye(50, dtype=int)[air.log.world]
    assert repeated.tolist() == [2] * 50


def test_a_cap_vetoes_on_top_of_another_decision():
    air = opened(3, repeating(CountMin(1, {"kind": "per_agent", "p": [0.0, 1.0, 0.0]})), capacity=9)
    assert progeny(air).tolist() == [2]
    assert CountMin(1, LocalRule(0.4)).reproduction == 0.4
    assert CountMin(1).reproduction is None


def test_equal_keys_are_numbered_within_a_world():
    world, key = np.array([0, 0, 1, 0, 1, 0]), np.array([5, 7, 5, 5, 5, 5], np.uint64)
    assert occurrence(world, key).tolist() == [0, 0, 0, 1, 1, 2]


# ---- control ----


def test_control_lowers_the_scale_above_the_target_and_raises_it_below():
    high, low = Controlled(0.5, gain=0.1), Controlled(0.5, gain=0.1)
    high.observe(Measured(parents=100, repeats=60, echoes=30))
    low.observe(Measured(parents=100, repeats=10, echoes=0))
    assert high.estimate == 0.9
    assert high.scale == pytest.approx(np.exp(-0.04))
    assert low.estimate == 0.1
    assert low.scale == pytest.approx(np.exp(0.04))


def test_the_target_of_control_fades_with_the_reflex():
    """Half the strength and half of R: nothing to correct. A controller that knew no strength would undo the fade."""
    decision = Controlled(0.6)
    decision.observe(Measured(parents=100, repeats=30, echoes=0, strength=0.5))
    assert decision.scale == 1.0


def test_silence_turns_nothing():
    decision = Controlled(0.5)
    decision.observe(Measured(100, 20, 0))
    before = decision.scale
    for _ in range(1000):
        decision.observe(Measured(0, 0, 0))
    assert decision.scale == before
    assert decision.estimate == 0.2


def test_the_scale_stays_within_its_bounds_whatever_is_asked_for():
    decision = Controlled(1e6, gain=50.0)
    for _ in range(100):
        decision.observe(Measured(10, 10, 0))
    assert decision.scale == 10.0
    decision = Controlled(0.0)
    for _ in range(1000):
        decision.observe(Measured(10, 100, 0))
    assert decision.scale == 1e-3


def test_the_brake_thins_repetitions_where_the_log_is_more_than_half_full():
    """10 of 16 places taken: repetitions are made with probability 2 - 2 x 10/16 = 3/4; 5 of 16: all of them."""
    for speakers, share in ((10, 0.75), (5, 1.0)):
        air = opened(11, repeating(Controlled(0.99), feedback=False), worlds=2000, capacity=16)
        words = np.where(np.arange(11) < speakers, A, 0)
        step(air, words)
        step(air)
        repeats = air.traffic.read()["reflex_share"] * (speakers * 2000 + len(air.log))
        expected = 2000 * speakers * 0.99 * share  # ten listeners, each with p = 0.99 / 10
        assert abs(repeats - expected) < 5 * np.sqrt(expected)


def test_a_full_log_stops_repetition():
    air = opened(4, repeating(Controlled(0.9)), worlds=50, capacity=4)
    step(air, A)
    step(air)
    assert not len(air.log)


# ---- bad input ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bernoulli(1.2), r"decision\.p is 1\.2.*0 to 1"),
        (lambda: Bernoulli(-0.1), r"decision\.p is -0\.1"),
        (lambda: Bernoulli(float("nan")), r"decision\.p is nan"),
        (lambda: Bernoulli("half"), r"decision\.p is 'half'.*number"),
        (lambda: Bernoulli(True), r"decision\.p is True"),
        (lambda: PerAgent([0.5, 2]), r"decision\.p\[1\] is 2"),
        (lambda: PerAgent(0.5), r"decision\.p is 0\.5.*list"),
        (lambda: PerAgent("0.5"), r"decision\.p is '0\.5'.*list"),
        (lambda: LocalRule(1.0), r"decision\.target is 1\.0, and must be below 1: .*load grow without end.*controlled"),
        (lambda: LocalRule(3), r"decision\.target is 3, and must be below 1"),
        (lambda: LocalRule(-0.5), r"decision\.target is -0\.5.*negative"),
        (lambda: LocalRule(float("inf")), r"decision\.target is inf.*finite"),
        (
            lambda: Controlled(1.2, brake=False),
            r"decision\.target is 1\.2 without a brake.*0\.95: words would multiply",
        ),
        (lambda: Controlled(0.97, brake=False), r"0\.97 without a brake.*learned echo would carry R over 1"),
        (lambda: Controlled(-1), r"decision\.target is -1"),
        (lambda: Controlled(float("inf")), r"decision\.target is inf.*finite"),
        (lambda: Controlled(brake="no"), r"decision\.brake is 'no'.*true or false"),
        (lambda: Controlled(gain=0), r"decision\.gain is 0.*above 0"),
        (lambda: Controlled(horizon=0.5), r"decision\.horizon is 0\.5.*at least 1"),
        (lambda: CountMin(0), r"decision\.cap is 0.*at least 1"),
        (lambda: CountMin(2.5), r"decision\.cap is 2\.5.*whole number"),
        (lambda: CountMin(1, window=0), r"decision\.window is 0"),
        (lambda: CountMin(1, width=1000), r"decision\.width is 1000, and must be a power of two.*1024"),
        (lambda: CountMin(1, width=1), r"decision\.width is 1.*at least 2"),
        (lambda: CountMin(1, depth=0), r"decision\.depth is 0"),
        (lambda: CountMin(1, "local_rul"), r"'local_rul' does not exist; did you mean 'local_rule'"),
        (lambda: make_decision("bernouli"), r"decision\.kind 'bernouli' does not exist; did you mean 'bernoulli'"),
        (lambda: make_decision({"kind": "local_rule", "targt": 0.5}), r"'targt' does not exist; did you mean 'target'"),
        (lambda: make_decision({"target": 0.5}), r"decision has no 'kind'; allowed: bernoulli"),
        (lambda: make_decision(0.5), r"decision is 0\.5, and must be a mapping with 'kind'"),
        (lambda: make_decision({"kind": "bernoulli"}), r"decision of kind 'bernoulli'.*'p'"),
        (lambda: make_decision(LocalRule), r"decision is .*LocalRule.*object of a subclass of Decision"),
    ],
)
def test_what_a_decision_cannot_be_is_refused_in_words(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_target_above_one_is_allowed_with_the_brake_and_has_no_known_load():
    assert Controlled(1.2).reproduction is None
    assert Controlled(0.9, brake=False).reproduction == 0.9


def test_per_agent_probabilities_must_be_as_many_as_the_agents_wherever_they_stand():
    for decision in (PerAgent([0.5] * 3), CountMin(1, PerAgent([0.5] * 3))):
        with pytest.raises(UserError, match=r"decision\.p has 3 probabilities, and there are 4 agents"):
            opened(4, repeating(decision), capacity=9)


def test_a_decision_is_made_from_a_name_a_mapping_a_class_or_an_object():
    assert make_decision("local_rule").target == 0.5
    assert make_decision({"kind": "count_min", "cap": 2, "decision": {"kind": "bernoulli", "p": 0.5}}).decision.p == 0.5
    shy = make_decision({"kind": "tests.channels.broadcast.test_decisions:Shy", "who": 2})
    assert isinstance(shy, Decision)
    assert make_decision(shy) is shy
    air = opened(4, repeating(shy))
    step(air, [A, 0, 0, 0])
    step(air)
    assert on_air(air) == [(A, 2, 1)]
