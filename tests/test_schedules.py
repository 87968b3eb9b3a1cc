"""Schedules: exact ends, closed forms between, one-way fades, memory, and what is refused."""

import json
import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcomm.errors import UserError
from popcomm.schedules import (
    SCHEDULES,
    Clock,
    Constant,
    Cosine,
    Exponential,
    Gated,
    Linear,
    LoadLinear,
    Schedule,
    make_schedule,
)

FADES = [
    Linear(100, 500),
    Linear(100, 500, 0.9, 0.3),
    Cosine(100, 500),
    Cosine(100, 500, 0.7, 0.1),
    Exponential(100, 40, end=500),
    Exponential(100, 40, 500, 0.8, 0.2),
    LoadLinear(100, 500),
]
ids = repr


def at(schedule: Schedule, *steps: int) -> list[float]:
    return [schedule.strength(Clock(step)) for step in steps]


def seen(schedule: Gated, *values: float, measure: str = "agreement") -> list[float]:
    """Strengths after each of the values, observed one step apart."""
    found = []
    for step, value in enumerate(values):
        clock = Clock(step, {measure: value})
        schedule.observe(clock)
        found.append(schedule.strength(clock))
    return found


@pytest.mark.parametrize("schedule", FADES, ids=ids)
def test_ends_are_exact(schedule: Schedule):
    start, stop = getattr(schedule, "start", 1.0), getattr(schedule, "stop", 0.0)
    assert at(schedule, 0, 99, 100) == [start] * 3
    assert at(schedule, 500, 501, 10**15) == [stop] * 3
    assert stop < at(schedule, 499)[0] < start


@pytest.mark.parametrize("schedule", FADES, ids=ids)
def test_the_default_factor_of_a_word_repetition_is_the_strength(schedule: Schedule):
    found = schedule.of_repetition(Clock(300), 0.9)
    assert (found == schedule.strength(Clock(300))) is (not isinstance(schedule, LoadLinear))


def test_linear_follows_its_line():
    assert at(Linear(100, 500), 200, 300, 400) == [0.75, 0.5, 0.25]
    assert at(Linear(0, 4, 0.5, 1.0), 0, 1, 2, 4) == [0.5, 0.625, 0.75, 1.0]


def test_cosine_follows_half_a_cosine():
    third, half, two_thirds = at(Cosine(0, 300), 100, 150, 200)
    assert (third, half, two_thirds) == pytest.approx((0.75, 0.5, 0.25), abs=1e-15)
    assert at(Cosine(0, 400, 0.8, 0.4), 100)[0] == pytest.approx(0.4 + 0.4 * (1 + math.sqrt(0.5)) / 2)


def test_exponential_halves_the_distance_to_its_stop():
    assert at(Exponential(100, 40), 50, 100, 140, 180, 220) == [1, 1, 0.5, 0.25, 0.125]
    assert at(Exponential(0, 10, start=0.9, stop=0.1), 10, 20) == pytest.approx([0.5, 0.3])
    assert at(Exponential(0, 10), 5)[0] == pytest.approx(math.sqrt(0.5))
    assert at(Exponential(0, 10), 1000)[0] > 0  # without an end it never gets there
    assert at(Exponential(0, 10, end=20), 19, 20) == [pytest.approx(2**-1.9), 0.0]


@pytest.mark.parametrize("schedule", [Linear(7, 7), Cosine(7, 7), LoadLinear(7, 7), Exponential(7, 5, 7)], ids=ids)
def test_equal_begin_and_end_are_a_step(schedule: Schedule):
    assert at(schedule, 6, 7, 8) == [1, 0, 0]


@st.composite
def fades(draw: st.DrawFn) -> Schedule:
    begin, length = draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9))
    start, stop = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    kind = draw(st.sampled_from(sorted(set(SCHEDULES) - {"gated", "constant"})))
    if kind == "load_linear":
        return LoadLinear(begin, begin + length)
    if kind == "exponential":
        end = draw(st.none() | st.just(begin + length))
        return Exponential(begin, draw(st.floats(1e-3, 1e9)), end, start, stop)
    return SCHEDULES[kind](begin, begin + length, start, stop)


@given(fades(), st.lists(st.integers(0, 3 * 10**9), min_size=2, max_size=8), st.floats(0, 0.999))
def test_fades_stay_between_their_ends_and_never_turn(schedule: Schedule, steps: list[int], target: float):
    start, stop = getattr(schedule, "start", 1.0), getattr(schedule, "stop", 0.0)
    steps.sort()
    for found in (at(schedule, *steps), [schedule.of_repetition(Clock(step), target) for step in steps]):
        assert all(min(start, stop) <= value <= max(start, stop) for value in found)
        assert all((b - a) * (stop - start) >= -1e-12 for a, b in pairwise(found))


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9, 0.99])
def test_load_linear_makes_the_load_a_straight_line(target: float):
    news, schedule = 3.0, LoadLinear(1000, 2000)
    steps = np.linspace(1000, 2000, 11, dtype=int)
    repetition = target * np.array([schedule.of_repetition(Clock(int(step)), target) for step in steps])
    load = news / (1 - repetition)
    assert load == pytest.approx(np.linspace(news / (1 - target), news, 11))


def test_load_linear_by_hand():
    # From R0 = 0.9 the load is 10 per new word. Half of the extra 9 is 5.5 in all: R = 1 - 1 / 5.5 = 9 / 11.
    schedule = LoadLinear(0, 100)
    assert schedule.of_repetition(Clock(50), 0.9) == pytest.approx((9 / 11) / 0.9)
    assert schedule.of_repetition(Clock(50), 0.0) == 0.5
    assert [schedule.of_repetition(Clock(step), 0.9) for step in (0, 100)] == [1, 0]


@pytest.mark.parametrize("target", [1.0, 1.5, -0.1, math.nan])
def test_load_linear_refuses_targets_without_a_finite_load(target: float):
    with pytest.raises(UserError, match="the target R0 of word repetition is"):
        LoadLinear(0, 100).of_repetition(Clock(50), target)


def test_gated_falls_linearly_between_its_bounds():
    found = seen(Gated(begin=0.5, end=0.9, smoothing=0.0), 0.1, 0.5, 0.6, 0.8, 0.9, 1.0)
    assert found == pytest.approx([1, 1, 0.75, 0.25, 0, 0])
    assert found[:2] + found[-2:] == [1, 1, 0, 0]


def test_gated_smooths_the_measure_from_the_first_value_on():
    # 0.6, then 0.75 * 0.6 + 0.25 * 1.0 = 0.7, then 0.75 * 0.7 + 0.25 * 0.9 = 0.75
    found = seen(Gated(begin=0.5, end=0.9, smoothing=0.75), 0.6, 1.0, 0.9)
    assert found == pytest.approx([0.75, 0.5, 0.375])


def test_the_ratchet_never_lets_the_strength_rise():
    values = (0.6, 0.8, 0.1, 0.7, 0.85)
    assert seen(Gated(smoothing=0.0), *values) == pytest.approx([0.75, 0.25, 0.25, 0.25, 0.125])
    assert seen(Gated(smoothing=0.0, ratchet=False), *values) == pytest.approx([0.75, 0.25, 1, 0.5, 0.125])


@given(st.lists(st.floats(-1, 2), max_size=20), st.floats(0, 0.99))
def test_gated_with_a_ratchet_is_monotone(values: list[float], smoothing: float):
    found = [1.0, *seen(Gated(smoothing=smoothing), *values)]
    assert all(0 <= b <= a for a, b in pairwise(found))


def test_gated_strength_is_pure_and_what_is_unknown_changes_nothing():
    schedule = Gated(measure="reward", begin=-2, end=2, smoothing=0.5)
    assert schedule.strength(Clock(0, {"reward": 2.0})) == 1  # not observed
    schedule.observe(Clock(1, {"reward": 0.0}))
    before = schedule.get_state()
    for performance in ({}, {"agreement": 1.0}, {"reward": math.nan}, {"reward": math.inf}):
        schedule.observe(Clock(2, performance))
    schedule.strength(Clock(3, {"reward": 2.0}))
    assert schedule.get_state() == before
    assert schedule.strength(Clock(4)) == 0.5


def test_reflexes_that_share_a_gated_schedule_count_a_result_once():
    schedule, once = Gated(smoothing=0.5), Gated(smoothing=0.5)
    for step, value in ((10, 0.4), (20, 0.9)):
        once.observe(Clock(step, {"agreement": value}))
        for _ in range(3):
            schedule.observe(Clock(step, {"agreement": value}))
    assert schedule.get_state() == once.get_state()


@pytest.mark.parametrize("ratchet", [True, False])
def test_a_restored_gated_schedule_goes_on_as_the_saved_one(ratchet: bool):
    values = [0.3, 0.9, 0.8, 0.2, 0.4, 0.99, 0.7]
    whole = seen(Gated(ratchet=ratchet), *values)
    first, second = Gated(ratchet=ratchet), Gated(ratchet=ratchet)
    seen(first, *values[:3])
    second.set_state(json.loads(json.dumps(first.get_state())))
    later = []
    for step, value in enumerate(values[3:], 3):
        second.observe(Clock(step, {"agreement": value}))
        later.append(second.strength(Clock(step)))
    assert later == whole[3:]
    assert pickle.loads(pickle.dumps(second)) == second


@pytest.mark.parametrize("schedule", [Constant(0.3), *FADES], ids=ids)
def test_schedules_without_memory_have_an_empty_state(schedule: Schedule):
    before = at(schedule, 0, 200, 600)
    schedule.observe(Clock(200, {"agreement": 1.0}))
    assert schedule.get_state() == {}
    schedule.set_state({})
    assert at(schedule, 0, 200, 600) == before


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(UserError, match="remembers lowest, smoothed, step, and Linear remembers nothing"):
        Linear(0, 1).set_state(Gated().get_state())
    with pytest.raises(UserError, match="remembers nothing, and Gated remembers lowest, smoothed, step"):
        Gated().set_state({})


def test_schedules_are_made_from_what_a_config_says():
    assert make_schedule(None) == Constant(1.0)
    assert make_schedule(0.25) == Constant(0.25)
    assert make_schedule(0) == Constant(0.0)
    assert make_schedule("gated") == Gated()
    assert make_schedule({"kind": "constant", "value": 0.5}) == Constant(0.5)
    assert make_schedule({"kind": "linear", "begin": 1, "end": 5}) == Linear(1, 5)
    assert make_schedule({"kind": "cosine", "begin": 1, "end": 5, "stop": 0.1}) == Cosine(1, 5, 1.0, 0.1)
    assert make_schedule({"kind": "exponential", "begin": 1, "half_life": 5}) == Exponential(1, 5)
    assert make_schedule({"kind": "load_linear", "begin": 1, "end": 5}) == LoadLinear(1, 5)
    assert make_schedule({"kind": "gated", "begin": 0.1, "end": 0.2}) == Gated(begin=0.1, end=0.2)
    given = Linear(0, 1)
    assert make_schedule(given) is given


def test_a_schedule_of_ones_own_is_one_method():
    class Blink(Schedule):
        def strength(self, clock: Clock) -> float:
            return float(clock.step % 2)

    blink = make_schedule(Blink())
    blink.observe(Clock(1))
    blink.set_state(blink.get_state())
    assert at(blink, 1, 2, 3) == [1, 0, 1]
    assert blink.of_repetition(Clock(3), 0.5) == 1


def test_kinds_and_classes_agree():
    assert [cls.__name__ for cls in SCHEDULES.values()] == [
        "".join(part.title() for part in name.split("_")) for name in SCHEDULES
    ]


class NotASchedule:
    def strength(self, clock: Clock) -> float:
        return 1.0


SENTENCES = [
    (lambda: Linear(500, 100), "schedule.end is 100, before schedule.begin = 500"),
    (lambda: Cosine(500, 100), "schedule.end is 100, before schedule.begin = 500"),
    (lambda: LoadLinear(500, 100), "schedule.end is 100, before schedule.begin = 500"),
    (lambda: Exponential(500, 10, end=100), "schedule.end is 100, before schedule.begin = 500"),
    (lambda: Linear(-5, 100), "schedule.begin is -5, and must be at least 0"),
    (lambda: Exponential(-5, 1), "schedule.begin is -5, and must be at least 0"),
    (lambda: LoadLinear(0, 0.5), "schedule.end is 0.5, and must be a whole number"),
    (lambda: Linear(math.nan, 5), "schedule.begin is nan, and must be a whole number"),
    (lambda: Linear(0, 5, start=1.5), "schedule.start is 1.5, and must be between 0 and 1"),
    (lambda: Cosine(0, 5, stop=-0.1), "schedule.stop is -0.1, and must be between 0 and 1"),
    (lambda: Exponential(0, 5, start=2), "schedule.start is 2, and must be between 0 and 1"),
    (lambda: Exponential(0, 5, stop=math.nan), "schedule.stop is nan, and must be a finite number"),
    (lambda: Linear(0, 5, stop="low"), "schedule.stop is 'low', and must be a finite number"),
    (lambda: Exponential(0, 0), "schedule.half_life is 0, and must be above 0 steps"),
    (lambda: Exponential(0, -3.0), "schedule.half_life is -3.0, and must be above 0 steps"),
    (lambda: Exponential(0, math.nan), "schedule.half_life is nan, and must be a finite number"),
    (lambda: Constant(math.nan), "schedule.value is nan, and must be a finite number"),
    (lambda: Constant(True), "schedule.value is True, and must be a finite number"),
    (lambda: Gated(begin=0.9, end=0.9), "schedule.begin is 0.9, and must be below schedule.end = 0.9"),
    (lambda: Gated(begin=math.nan), "schedule.begin is nan, and must be a finite number"),
    (lambda: Gated(end=math.inf), "schedule.end is inf, and must be a finite number"),
    (lambda: Gated(smoothing=1.0), "schedule.smoothing is 1.0, and must be at least 0 and below 1"),
    (lambda: Gated(smoothing=-0.1), "schedule.smoothing is -0.1, and must be at least 0 and below 1"),
    (lambda: Gated(measure=""), "schedule.measure is '', and must be the name of a measure"),
    (lambda: Gated(ratchet="no"), "schedule.ratchet is 'no', and must be true or false"),
    (lambda: make_schedule(1.5), "schedule.value is 1.5, and must be between 0 and 1"),
    (lambda: make_schedule(-1), "schedule.value is -1.0, and must be between 0 and 1"),
    (lambda: make_schedule(NotASchedule()), "schedule is of class NotASchedule, and must be a subclass of Schedule"),
]


@pytest.mark.parametrize(("make", "sentence"), SENTENCES, ids=[sentence for _, sentence in SENTENCES])
def test_what_cannot_be_is_refused_in_one_sentence(make, sentence: str):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"kind": "liner"}, "did you mean 'linear'"),
        ({"kind": "linear", "begin": 1, "edn": 2}, "did you mean 'end'"),
        ({"kind": "gated", "smoothed": 0.5}, "did you mean 'smoothing'"),
        ({"kind": "linear", "begin": 1}, "missing 1 required positional argument: 'end'"),
        ({"begin": 1}, "reflexes.fade has no 'kind'"),
        (True, "reflexes.fade is True"),
    ],
)
def test_mistakes_in_a_config_are_named(value, part: str):
    with pytest.raises(UserError, match=r"reflexes\.fade") as error:
        make_schedule(value, "reflexes.fade")
    assert part in str(error.value)
