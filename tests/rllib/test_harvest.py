"""What env runners sampled for an iteration, with runners that are answers alone."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from popcomm.rllib.answers import Newcomer, Sampled, SamplingFailure
from popcomm.rllib.attendance import Attendance
from popcomm.rllib.harvest import Harvest, NoSamplesError, SamplingError
from popcomm.rllib.overlap import Ahead
from popcomm.rllib.restoring import bring_up_to_date
from popcomm.rllib.shares import LostFragments

FAILED = SamplingFailure(2, "ValueError: no road")


def harvest(runners: int = 2, **settings: Any) -> Harvest:
    defaults = {
        "num_env_runners": runners,
        "sample_timeout_s": 1.0,
        "overlap": False,
        "restart_failed_sub_environments": False,
        "restart_failed_env_runners": True,
        "step_timeout_s": None,
        "max_empty_iterations": 2,
    }
    config: Any = SimpleNamespace(**{**defaults, **settings})
    return Harvest(config, Attendance(config), Ahead(config))


def sampled(runner: int) -> Any:
    return Sampled(*[None] * len(Sampled._fields))._replace(worker_index=runner)  # type: ignore[arg-type]


def group_of(*answers: Any) -> Any:
    """Remote runners that answer so."""
    return SimpleNamespace(
        foreach_env_runner=lambda ask, **how: list(answers),
        healthy_env_runner_ids=lambda: [answer.worker_index for answer in answers],
    )


def test_the_driver_alone_asks_itself() -> None:
    own = sampled(0)
    group: Any = SimpleNamespace(local_env_runner="runner")
    assert harvest(runners=0).gather(group, {"runner": own}.__getitem__) == [own]


def test_a_failure_ends_the_training_with_its_traceback() -> None:
    with pytest.raises(SamplingError, match="in env runner 2:\nValueError: no road"):
        harvest().gather(group_of(sampled(1), FAILED), lambda runner: runner)


def test_a_failure_is_left_out_and_told_where_worlds_are_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    first = sampled(1)
    with caplog.at_level(logging.WARNING):
        found = harvest(restart_failed_sub_environments=True).gather(group_of(first, FAILED), lambda runner: runner)
    assert found == [first]
    assert "ValueError: no road\nIts worlds are made anew." in caplog.text


def test_one_that_has_learned_nothing_sits_out_and_is_told_to_be_lost(caplog: pytest.LogCaptureFixture) -> None:
    first, gathered = sampled(1), harvest()
    with caplog.at_level(logging.WARNING):
        assert gathered.gather(group_of(first, Newcomer(2)), lambda runner: runner) == [first]
    assert gathered.begun_anew == [2]
    assert caplog.messages == ["env runner 2 is lost: its process ended, and it is begun anew; 1 of 2 sample"]
    assert gathered.gather(group_of(first, sampled(2)), lambda runner: runner)[0] is first
    assert gathered.begun_anew == []


def test_one_whose_new_process_was_given_weights_before_it_was_asked_is_known_to_be_another() -> None:
    gathered = harvest()
    gathered.gather(group_of(sampled(1)._replace(life="a"), sampled(2)._replace(life="b")), lambda runner: runner)
    assert gathered.begun_anew == []
    gathered.gather(group_of(sampled(1)._replace(life="c"), sampled(2)._replace(life="b")), lambda runner: runner)
    assert gathered.begun_anew == [1]


def test_whom_rllib_has_restored_it_has_told_of() -> None:
    gathered = harvest()
    gathered.gather(group_of(sampled(1)._replace(life="a"), sampled(2)._replace(life="b")), lambda runner: runner)
    gathered.restored = {2}
    gathered.gather(group_of(sampled(1)._replace(life="a"), sampled(2)._replace(life="c")), lambda runner: runner)
    assert gathered.begun_anew == []
    assert gathered.restored == set()


def test_callbacks_hear_of_those_that_were_given_weights_and_have_not_ended_again() -> None:
    calls: list[Any] = []

    def sync_weights(to_worker_indices: list[int], **how: Any) -> None:
        calls.append(to_worker_indices)

    def fetched(tags: str, timeout_seconds: float) -> None:
        calls.append(tags)

    group = SimpleNamespace(
        sync_weights=sync_weights,
        fetch_ready_async_reqs=fetched,
        healthy_env_runner_ids=lambda: [1, 3] if "set_state" in calls else [1, 2, 3],  # known once it was waited for
    )
    told: list[Any] = []
    config = SimpleNamespace(
        sample_timeout_s=1.0,
        callbacks_on_env_runners_recreated=lambda env_runner_indices, **_: told.append(env_runner_indices),
    )
    algorithm = SimpleNamespace(env_runner_group=group, learner_group=None, config=config, callbacks=[])
    bring_up_to_date(algorithm, [2, 3])
    assert calls == [[2, 3], "set_state"]
    assert told == [[3]]
    bring_up_to_date(algorithm, [2])
    assert told == [[3]]


class AheadGroup:
    """Remote runners that are asked ahead, and answer so."""

    def __init__(self, *answers: Any, there: dict[int, bool]) -> None:
        self.answers, self.there = answers, there

    def foreach_env_runner_async(self, ask: Any, tag: str) -> None:
        """They are under way."""

    def fetch_ready_async_reqs(self, **how: Any) -> list[tuple[int, Any]]:
        return [(answer.worker_index, answer) for answer in self.answers]

    def foreach_env_runner(self, ask: Any, **how: Any) -> list[Any]:
        return list(self.there.items())

    def healthy_env_runner_ids(self) -> list[int]:
        return list(self.there)


@pytest.mark.parametrize(
    ("second", "there", "begun_anew"),
    [
        (Newcomer(2), {1: True, 2: False}, [2]),  # it ended before it was asked
        (sampled(2), {1: True, 2: False}, [2]),  # it ended after it had answered
        (sampled(2), {1: True}, []),  # it has ended, and is not there yet: that RLlib notices
        (sampled(2), {1: True, 2: True}, []),
    ],
)
def test_of_those_that_sample_ahead_who_was_begun_anew_is_known_before_it_is_asked_again(
    second: Any, there: dict[int, bool], begun_anew: list[int]
) -> None:
    first, gathered = sampled(1), harvest(overlap=True)
    group: Any = AheadGroup(first, second, there=there)
    gathered.ahead.begin(group, lambda runner: runner)
    gathered.ahead.finish(group)
    assert gathered.gather(group, lambda runner: runner)[0] is first
    assert gathered.begun_anew == begun_anew
    gathered.ahead._held = [first]  # and once only
    gathered.gather(group, lambda runner: runner)
    assert gathered.begun_anew == []


def test_only_empty_iterations_in_a_row_end_the_training_and_the_reason_is_told() -> None:
    gathered = harvest(restart_failed_sub_environments=True)
    gathered.gather(group_of(sampled(1), FAILED), lambda runner: runner)
    gathered.count_empty()
    gathered.count_full()
    gathered.count_empty()
    with pytest.raises(NoSamplesError, match=r"2 iterations in a row(.|\n)*ValueError: no road") as caught:
        gathered.count_empty()
    assert isinstance(caught.value.__cause__, SamplingError)


def test_the_reason_is_that_of_the_last_iteration() -> None:
    """An environment raised in one before; now both runners are lost."""
    gathered = harvest(restart_failed_sub_environments=True)
    gathered.gather(group_of(sampled(1), FAILED), lambda runner: runner)
    gathered.count_empty()
    gathered.gather(group_of(), lambda runner: runner)
    with pytest.raises(NoSamplesError, match="env runner 1 is lost: its process ended") as caught:
        gathered.count_empty()
    assert caught.value.__cause__ is None
    assert "no road" not in str(caught.value)


def test_what_is_lost_with_its_runner_is_told_and_the_others_is_learned_from(caplog: pytest.LogCaptureFixture) -> None:
    answers, gathered = [sampled(runner) for runner in (1, 2, 3)], harvest(runners=3)
    with caplog.at_level(logging.WARNING):
        left = gathered.without_lost(answers, LostFragments([0, 2]))
    assert left == [answers[1]]
    assert caplog.messages == [f"what env runner {lost} sampled is lost with its process" for lost in (1, 3)]
    gathered.count_empty()
    with pytest.raises(NoSamplesError, match="what env runner 3 sampled is lost"):
        gathered.count_empty()
