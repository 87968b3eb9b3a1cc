"""Reflexes one by one: fading, publishing, deprivation, what they remember, and what they refuse."""

import numpy as np
import pytest

from popcomm.channels import Channel, Full, Symbols, Words
from popcomm.channels.broadcast.decisions import Bernoulli, Controlled, CountMin, LocalRule
from popcomm.channels.broadcast.log import Log, entries
from popcomm.channels.broadcast.moment import Moment
from popcomm.channels.broadcast.reflexes import (
    ImmediateFeedback,
    Publishing,
    Reflex,
    SensoryDeprivation,
    WordRepetition,
    make_reflex,
)
from popcomm.errors import UserError
from popcomm.schedules import Clock, Gated, Linear
from tests.channels.broadcast.airs import KIND, A, B, on_air, opened, repeating, step


class Greeting(Reflex):
    """A reflex of a user's own: seat 0 says `word` in every step, beside whatever else it says."""

    name = "greeting"

    def __init__(self, word: int, schedule=None) -> None:
        super().__init__(schedule)
        self.word = word

    def transmissions(self, moment: Moment) -> Log | None:
        if self.strength(moment.clock) == 0:
            return None
        return entries(np.arange(moment.num_worlds), np.full(moment.num_worlds, self.word, np.int32), 0)


GREETING = "tests.channels.broadcast.test_reflexes:Greeting"


# ---- fading ----


def test_a_schedule_is_none_a_number_a_mapping_or_an_object():
    now = Clock(150)
    fading = {"kind": "linear", "begin": 100, "end": 300}
    assert ImmediateFeedback().feedback(now) == 1
    assert ImmediateFeedback(0.4).feedback(now) == 0.4
    assert ImmediateFeedback(fading).feedback(now) == 0.75
    assert ImmediateFeedback(Linear(100, 300)).feedback(now) == 0.75


def test_a_fade_in_load_turns_the_target_into_the_reproduction_number_of_half_the_extra_load():
    """R0 = 0.8: 5 transmissions a word; half way 3 of them, R = 2/3, which is 5/6 of R0."""
    schedule = {"kind": "load_linear", "begin": 0, "end": 100}
    for decision in (LocalRule(0.8), Controlled(0.8), CountMin(2, LocalRule(0.8))):
        assert WordRepetition(decision, schedule=schedule).strength(Clock(50)) == pytest.approx(5 / 6)


def test_the_strength_multiplies_the_probabilities():
    air = opened(2, repeating(Bernoulli(0.8), feedback=False, schedule=0.25), worlds=5000)
    step(air, [A, 0])
    step(air)
    assert abs(len(air.log) - 1000) < 4.5 * np.sqrt(5000 * 0.2 * 0.8)


def test_feedback_that_fades_takes_the_senders_own_ear_from_the_local_rule():
    """Without feedback an agent of 3 hears 2 others, with it 3: the p of the local rule is target over that."""
    air = opened(3, repeating(LocalRule(0.6), schedule=None))
    everybody = np.ones((1, 3), bool)
    for feedback, expected in ((1.0, 0.2), (0.5, 0.24), (0.0, 0.3)):
        air.reflexes[0].schedule = ImmediateFeedback(feedback).schedule
        moment = air._moment(everybody, np.ones(1, bool))
        assert air.reflexes[1].decision.probabilities(moment.indegree) == pytest.approx(expected)


def test_control_does_not_undo_a_fade():
    """Half strength from the start: R settles at half the target, and not at the target with twice the scale."""
    rng = np.random.default_rng(0)
    air = opened(5, repeating(Controlled(0.8, gain=0.05), schedule=0.5), worlds=100)
    for _ in range(150):
        step(air, KIND.uniform(rng, 500).reshape(100, 5))
    assert air.traffic.read()["reproduction"] == pytest.approx(0.4, abs=0.01)
    assert air.reflexes[1].decision.scale == pytest.approx(1, abs=0.1)


def test_gates_are_told_how_well_it_goes():
    air = opened(2, [ImmediateFeedback(Gated("agreement", 0.2, 0.6, smoothing=0.0))])
    air.observe(Clock(1, {"agreement": 0.5}))
    assert air.strengths() == {"immediate_feedback": pytest.approx(0.25)}


# ---- publishing ----


@pytest.mark.parametrize("bits", [8, 32, 40, 64])
def test_published_words_are_words_of_the_channel_or_of_the_list(bits):
    kind = Words(bits, 2, 3)
    words = kind.uniform(np.random.default_rng(0), 40)
    for source in ("uniform", words, words.tolist(), [int(w) % 2**bits for w in words]):
        reflex = Publishing(30.0, source)
        channel = Channel(kind, Full(), 3, reflexes=[reflex], capacity=99)
        air = channel.open(4, 0)
        step(air)
        import torch

        assert kind.gated(torch.from_numpy(air.log.word)).all()
        assert len(air.log) > 60
        if not isinstance(source, str):
            assert set(air.log.word.tolist()) <= set(words.tolist())


def test_words_of_a_list_are_equally_likely():
    air = opened(2, [Publishing(3.0, [A, B])], worlds=4000, capacity=30)
    step(air)
    half, total = int((air.log.word == A).sum()), len(air.log)
    assert set(air.log.word.tolist()) == {A, B}
    assert abs(half - total / 2) < 4.5 * np.sqrt(total / 4)


def test_the_rate_fades():
    air = opened(2, [Publishing(8.0, schedule=0.25)], worlds=4000, capacity=30)
    step(air)
    assert abs(len(air.log) - 8000) < 4.5 * np.sqrt(8000)


def test_published_by_events_is_only_where_somebody_notices_something_now():
    air = opened(2, [Publishing(8.0, when="events")], worlds=2000, capacity=30)
    air.notice(np.arange(2000) % 2 == 0)
    step(air)
    assert not (air.log.world % 2).any()
    assert abs(len(air.log) - 8000) < 4.5 * np.sqrt(8000)
    air.notice(np.zeros(2000, bool))
    step(air)
    assert not len(air.log)


def test_what_is_noticed_is_remembered_in_a_checkpoint():
    air, again = (opened(2, [Publishing(8.0, when="events")], worlds=3, capacity=60) for _ in range(2))
    air.notice(np.array([True, False, True]))
    again.set_state(air.get_state())
    for one in (air, again):
        step(one)
    assert on_air(again) == on_air(air) != []
    assert not (again.log.world == 1).any()


# ---- deprivation ----


def deprived(reflex: SensoryDeprivation, steps: int = 1, worlds: int = 200, n: int = 5, at: int = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([reflex.deprived(Clock(at), worlds, n, rng) for _ in range(steps)])


def test_deprivation_befalls_each_seat_with_its_probability_and_only_those_named():
    mask = deprived(SensoryDeprivation(who=[1, 4], when=0.3), steps=20)
    counts = mask.sum((0, 1))
    assert counts[[0, 2, 3]].tolist() == [0, 0, 0]
    assert np.abs(counts[[1, 4]] - 1200).max() < 4.5 * np.sqrt(4000 * 0.21)


def test_deprivation_by_period_is_the_first_steps_of_each():
    mask = deprived(SensoryDeprivation(when=[5, 2]), steps=12)
    assert mask.all((1, 2)).tolist() == mask.any((1, 2)).tolist() == [t % 5 < 2 for t in range(12)]


def test_deprivation_fades():
    fading = Linear(0, 100)
    assert deprived(SensoryDeprivation(when=1, schedule=fading), at=0).all()
    assert not deprived(SensoryDeprivation(when=1, schedule=fading), at=100).any()
    assert abs(deprived(SensoryDeprivation(when=1, schedule=fading), at=50).sum() - 500) < 4.5 * np.sqrt(250)


def test_the_withdrawn_perceive_zeros_or_what_is_nearest_to_zero():
    low, high = np.array([-1.0, 2.0, -5.0, -np.inf]), np.array([1.0, 3.0, -4.0, np.inf])
    values = np.full((3, 4), 9, np.float32)
    seen = SensoryDeprivation().perceive(values, low, high, np.random.default_rng(0))
    assert seen.dtype == np.float32
    assert seen.tolist() == [[0, 2, -4, 0]] * 3
    assert (values == 9).all()


def test_noise_is_uniform_within_the_bounds_and_within_one_where_there_are_none():
    low, high = np.array([-1.0, 2.0, -np.inf, 5.0]), np.array([1.0, 3.0, np.inf, np.inf])
    seen = SensoryDeprivation("noise").perceive(np.zeros((4000, 4)), low, high, np.random.default_rng(0))
    bottom, top = np.array([-1, 2, -1, 5]), np.array([1, 3, 1, 6])
    assert np.all(seen >= bottom)
    assert np.all(seen <= top)
    middle, width = (bottom + top) / 2, top - bottom
    assert np.all(np.abs(seen.mean(0) - middle) < 4.5 * width / np.sqrt(12 * 4000))


def test_deprivation_takes_no_words():
    air = opened(3, [SensoryDeprivation(when=1.0), ImmediateFeedback()])
    assert [mask.all() for _, mask in air.deprived()] == [True]
    assert air.deprives
    step(air, [A, 0, 0])
    assert step(air).mask.any(2).all()
    assert not opened(3, [ImmediateFeedback()]).deprives


# ---- memory ----


def test_periods_go_on_where_a_checkpoint_was_taken():
    reflex, other = SensoryDeprivation(when=[5, 2]), SensoryDeprivation(when=[5, 2])
    deprived(reflex, steps=4)
    other.set_state(reflex.get_state())
    assert deprived(other, steps=6).any((1, 2)).tolist() == [t % 5 < 2 for t in range(4, 10)]


def test_a_channel_copies_its_reflexes_for_each_air():
    reflex = SensoryDeprivation(when=[5, 2])
    channel = Channel(KIND, Full(), 3, reflexes=[reflex])
    first, second = channel.open(1, 0), channel.open(1, 0)
    first.deprived()
    assert first.reflexes[0].get_state()["steps"] == 1
    assert second.reflexes[0].get_state()["steps"] == reflex.get_state()["steps"] == 0


# ---- a reflex of a user's own ----


@pytest.mark.parametrize("value", [Greeting(A), {"kind": GREETING, "word": A}])
def test_a_reflex_of_ones_own_is_an_object_or_named_by_its_class(value):
    air = Channel(KIND, Full(), 2, reflexes=[value]).open(2, 0)
    step(air, [0, B])
    # Nobody chose to say A: it is no word of generation 0.
    assert on_air(air, 1) == [(A, 0, 1), (B, 1, 0)]
    assert air.strengths() == {"greeting": 1.0}


def test_a_reflex_of_ones_own_fades_like_the_others():
    fading = {"kind": "linear", "begin": 0, "end": 10}
    air = Channel(KIND, Full(), 2, reflexes=[{"kind": GREETING, "word": A, "schedule": fading}]).open(1, 0)
    air.observe(Clock(10))
    step(air)
    assert on_air(air) == []


# ---- bad input ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_reflex("word_repitition"), r"'word_repitition' does not exist; did you mean 'word_repetition'"),
        (lambda: make_reflex({"kind": "publishing", "rte": 1}), r"'rte' does not exist; did you mean 'rate'"),
        (lambda: make_reflex({"rate": 1}), r"communication\.reflexes has no 'kind'; allowed: immediate_feedback"),
        (lambda: make_reflex(3), r"communication\.reflexes is 3"),
        (lambda: make_reflex(WordRepetition), r"must hold objects of subclasses of Reflex"),
        (lambda: make_reflex(Linear(0, 1)), r"must hold objects of subclasses of Reflex"),
        (lambda: make_reflex({"kind": "tests.channels.broadcast.test_reflexes:Greting"}), r"did you mean 'Greeting'"),
        (lambda: WordRepetition(slot="paralel"), r"slot is 'paralel'; did you mean 'parallel'"),
        (lambda: WordRepetition(dedup="yes"), r"dedup is 'yes'.*true or false"),
        (lambda: WordRepetition({"kind": "bernoulli", "p": 1.5}), r"decision\.p is 1\.5"),
        (lambda: WordRepetition({"kind": "local_rule", "target": 1.0}), r"must be below 1.*brake"),
        (lambda: WordRepetition(schedule={"kind": "linear", "begin": 9, "end": 3}), r"end is 3, before .*begin = 9"),
        (lambda: WordRepetition(schedule={"kind": "linr", "begin": 0, "end": 3}), r"'linr'.*did you mean 'linear'"),
        (lambda: WordRepetition(schedule=1.5), r"1\.5.*between 0 and 1"),
        (
            lambda: WordRepetition(Bernoulli(0.1), schedule={"kind": "load_linear", "begin": 0, "end": 9}),
            r"knows its R",
        ),
        (lambda: ImmediateFeedback({"kind": "load_linear", "begin": 0, "end": 9}), r"is for word_repetition.*'linear'"),
        (lambda: Publishing({"kind": "x"}), r"rate is .*number of words"),
        (lambda: Publishing(-1), r"rate is -1"),
        (lambda: Publishing(float("inf")), r"rate is inf"),
        (lambda: Publishing(float("nan")), r"rate is nan"),
        (lambda: Publishing(1, "unifrm"), r"source is 'unifrm'; did you mean 'uniform'"),
        (lambda: Publishing(1, when="event"), r"when is 'event'; did you mean 'events'"),
        (lambda: Publishing(1, []), r"source is an empty list"),
        (lambda: Publishing(1, 127), r"source is 127.*list of packed words"),
        (lambda: SensoryDeprivation("withdrawn"), r"mode is 'withdrawn'; did you mean 'withdraw'"),
        (lambda: SensoryDeprivation(when=1.2), r"when is 1\.2.*0 to 1"),
        (lambda: SensoryDeprivation(when=[3, 5]), r"when is \[3, 5\].*length <= period"),
        (lambda: SensoryDeprivation(when=[3]), r"when is \[3\]"),
        (lambda: SensoryDeprivation(when="often"), r"when is 'often'"),
        (lambda: SensoryDeprivation(who=2), r"who is 2, and must be a list"),
    ],
)
def test_what_a_reflex_cannot_be_is_refused_in_words(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("reflex", "message"),
    [
        (Publishing(1, [A, 0b111]), r"source has 7, and it is no word"),
        (Publishing(1, [0]), r"source has 0"),
        (Publishing(1, [2**33 - 1]), r"source has 8589934591.*32 bits"),
        (Publishing(1, ["word"]), r"source has 'word'"),
        (SensoryDeprivation(who=[0, 3]), r"who has 3, and seats are 0 to 2"),
        (SensoryDeprivation(who=[-1]), r"who has -1"),
        (WordRepetition({"kind": "per_agent", "p": [0.1]}), r"1 probabilities, and there are 3 agents"),
    ],
)
def test_what_does_not_fit_the_channel_is_refused_when_it_is_made(reflex, message):
    with pytest.raises(UserError, match=message):
        Channel(KIND, Full(), 3, reflexes=[reflex])


def test_reflexes_are_for_words_and_in_a_list():
    with pytest.raises(UserError, match=r"reflexes act on words.*symbols"):
        Channel(Symbols(4, 2), Full(), 3, reflexes=["immediate_feedback"])
    with pytest.raises(UserError, match=r"must be a list of reflexes"):
        Channel(KIND, Full(), 3, reflexes="immediate_feedback")
