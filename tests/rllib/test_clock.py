"""One clock for all runners, fades that outlive them, and random numbers that a new runner does not repeat."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from popcomm.errors import UserError
from popcomm.rllib.answers import Sampled, pooled
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.restoring import _difference
from popcomm.rollout import seed_of
from tests.rllib.test_reflexes import air_config
from tests.rllib.test_rollout import air_of, clock_config, fragments, runner_of
from tests.rllib.worlds import ClockWorld

GATE = {"kind": "gated", "measure": "reward", "begin": 0.4, "end": 0.8, "smoothing": 0.0}
PUBLISHING = {"kind": "publishing", "schedule": GATE}


def strength(runner: PopulationEnvRunner) -> float:
    return air_of(runner).strengths()["publishing"]


def test_all_runners_fade_by_what_all_of_them_measured() -> None:
    """Whatever a runner saw itself: the gate is half open at 0.6."""
    runner = runner_of(air_config(PUBLISHING))
    runner.sample(env_steps=0)
    before = runner.num_env_steps_sampled_lifetime
    runner.statistics.performance = {"reward": 0.9}
    answer = runner.sample_or_say_why(False, 100, {"reward": 0.6})
    assert strength(runner) == pytest.approx(0.5)
    assert isinstance(answer, Sampled)
    assert answer.fades == [{"smoothed": 0.6, "lowest": pytest.approx(0.5), "step": 100}]
    assert answer.performance.keys() >= {"reward"}
    assert answer.steps == runner.num_env_steps_sampled_lifetime - before > 0


def test_measures_of_runners_are_pooled_by_their_steps() -> None:
    def answer(steps: int, **performance: float) -> Any:
        return SimpleNamespace(steps=steps, performance=performance)

    got = pooled([answer(10, reward=1.0), answer(30, reward=2.0, agreement=0.5), answer(9, agreement=float("nan"))])
    assert got == pytest.approx({"reward": 1.75, "agreement": 0.5})
    assert pooled([answer(10)]) == {}


def test_a_runner_that_joins_later_is_as_faded_as_the_others_from_its_first_row_on() -> None:
    memory = [{"smoothed": 0.9, "lowest": 0.0, "step": 64}]
    joined = runner_of(air_config(PUBLISHING))
    observed: list[float] = []
    begin = joined.sampler.begin
    joined.sampler.begin = lambda: (observed.append(strength(joined)), begin())  # type: ignore
    joined.sample(env_steps=128, performance={"reward": 0.2}, fades=memory)
    assert observed == [0.0]
    assert strength(joined) == 0.0


def test_fades_of_other_reflexes_are_refused() -> None:
    runner = runner_of(air_config(PUBLISHING))
    with pytest.raises(
        UserError,
        match=r"has 2 schedules of communication\.reflexes, topology and vocabulary, and this configuration has 1",
    ):
        runner.sample(env_steps=1, fades=[{}, {}])


def drawn(runner: PopulationEnvRunner, **clock: Any) -> dict[str, np.ndarray]:
    """All that was random in one fragment: worlds, seats, actions, messages."""
    batch = runner.sample(**clock).policy_batches["speaker"]
    return {key: np.array(batch[key]) for key in ("obs", "members", "actions", "messages")}


def test_a_runner_made_in_place_of_a_lost_one_does_not_live_through_the_beginning_again() -> None:
    """Same arguments, same bits; another time, other worlds, seats, actions and messages."""
    one, same, first = (drawn(runner_of(clock_config(members=8)), env_steps=n) for n in (1000, 1000, 0))
    other = drawn(runner_of(clock_config(members=8)), env_steps=1001)
    for key, value in one.items():
        assert np.array_equal(value, same[key]), key
        assert not np.array_equal(value, first[key]), key
        assert not np.array_equal(value, other[key]), key


def test_a_runner_that_has_begun_goes_on_whatever_the_clock_says() -> None:
    told, free = runner_of(clock_config(members=8)), runner_of(clock_config(members=8))
    for env_steps in (0, 96):
        got, expected = drawn(told, env_steps=env_steps), drawn(free)
        assert all(np.array_equal(got[key], expected[key]) for key in got)
    restored = runner_of(clock_config(members=8))
    restored.set_run_state(told.run_state())
    got, expected = drawn(restored, env_steps=192), drawn(free)
    assert all(np.array_equal(got[key], expected[key]) for key in got)


def test_worlds_that_are_made_anew_are_others_than_those_of_the_beginning() -> None:
    config = clock_config()
    config.fault_tolerance(restart_failed_sub_environments=True)
    runner = runner_of(config)
    begun = fragments(runner, 1)[0]["speaker"]["obs"]
    runner.env.step = None  # type: ignore[assignment, method-assign]
    assert "traceback" in runner.sample_or_say_why(False)._fields
    assert not np.array_equal(fragments(runner, 1)[0]["speaker"]["obs"][:, 0], begun[:, 0])
    assert runner.rollout.players.seeds.world != seed_of(3, 1, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c, ""),
        (lambda c: c.environment(env_config={"death": 2}), "env_config [('death', 2)], not []"),
        (lambda c: c.env_runners(num_worlds_per_env_runner=24), "num_worlds_per_env_runner 24, not 12"),
        (lambda c: c.population(members=4), "members {'speaker': 4, 'listener': 4}, not {'speaker': 1, 'listener': 1}"),
        (lambda c: c.communication(messages=None), "messages None, not Symbols("),
    ],
)
def test_runners_go_on_only_from_states_of_the_same_worlds(change: Any, told: str) -> None:
    saved = {0: runner_of(change(clock_config())).run_state()}
    difference = _difference(saved, {0: runner_of(clock_config()).surroundings()})
    assert difference.startswith(told)
    assert bool(difference) == bool(told)


class Alike(ClockWorld):
    """ClockWorld whose agents can be of any species."""

    def __init__(self, num_worlds: int, **options: Any) -> None:
        super().__init__(num_worlds, **options)
        like = {"obs_size": 4, "action_space": spaces.Discrete(2)}
        self.species = {name: replace(species, **like) for name, species in self.species.items()}


def in_species(species: Any) -> Any:
    return clock_config().environment(Alike, species=species)


GROUPED = {"speaker": ["speaker_0", "listener_1"], "listener": ["speaker_1", "listener_0"]}


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        (GROUPED, GROUPED, ""),
        (None, None, ""),
        (GROUPED, lambda agent: "speaker" if agent in GROUPED["speaker"] else "listener", ""),
        (GROUPED, None, "species {'speaker': ('speaker_0', 'listener_1'), 'listener': ('speaker_1', 'listener_0')}, "),
        (None, GROUPED, "species None, not {'speaker': ('speaker_0', 'listener_1')"),
        (GROUPED, {**GROUPED, "speaker": ["listener_1", "speaker_0"]}, "species {'speaker': ('speaker_0', 'listener"),
        (GROUPED, dict(reversed(GROUPED.items())), "species {'speaker'"),
    ],
)
def test_episodes_do_not_go_on_where_seats_belong_to_others(then: Any, now: Any, told: str) -> None:
    """The same species, as large as they were."""
    saved, here = (runner_of(in_species(species)) for species in (then, now))
    difference = _difference({0: saved.run_state()}, {0: here.surroundings()})
    assert difference.startswith(told)
    assert bool(difference) == bool(told)


@pytest.mark.parametrize("species", [None, GROUPED])
def test_episodes_of_before_species_were_written_down_go_on(species: Any) -> None:
    here = runner_of(in_species(species)).surroundings()
    before = {name: part for name, part in here.items() if name != "species"}
    assert before.keys() != here.keys()
    assert _difference({0: {"belongs_to": before}}, {0: here}) == ""


@pytest.mark.parametrize(("then", "now"), [(0, 2), (2, 0)])
def test_rounds_that_come_or_go_start_new_episodes(then: int, now: int) -> None:
    saved, here = (runner_of(clock_config(rounds=rounds)).surroundings() for rounds in (then, now))
    assert _difference({0: {"belongs_to": saved}}, {0: here}) == f"rounds {then or None}, not {now or None}"


def test_states_of_another_number_of_runners_are_no_ones_and_those_of_an_earlier_popcomm_are_taken() -> None:
    here = runner_of(clock_config()).surroundings()
    assert _difference({1: {}, 2: {}}, {1: here}) == "2 runners, not 1"
    assert _difference({1: {}}, {1: here}) == ""
