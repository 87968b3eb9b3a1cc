"""Asking learners, on actors of paper: `tests/system/test_lost_learner.py` has real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from popcomm.rllib import learners
from popcomm.rllib.learners import LearnerLostError

NEVER = object()


class Actor:
    """A learner that answers, raises, has died, or never comes to an answer (NEVER)."""

    def __init__(self, answer: object) -> None:
        self.answer, self.apply = answer, self

    def remote(self, func: Callable[[Any], Any]) -> tuple[Actor, Callable[[Any], Any]]:
        return self, func


class Group:
    is_local = False

    def __init__(self, *answers: object) -> None:
        self.learners = {number: Actor(answer) for number, answer in enumerate(answers)}
        self._worker_manager = self

    def actors(self) -> dict[int, Actor]:
        return self.learners


def double(learner: Any) -> Any:
    return 2 * learner


@pytest.fixture(autouse=True)
def _paper(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(asked: list[Any], num_returns: int, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        ready = [ask for ask in asked if ask[0].answer is not NEVER]
        assert ready or timeout, "waits for ever"
        done = ready[-num_returns:]
        return done, [ask for ask in asked if ask not in done]

    def get(asked: Any) -> Any:
        actor, func = asked
        if isinstance(actor.answer, Exception) and (func is double or isinstance(actor.answer, ActorDiedError)):
            raise actor.answer
        return func(actor.answer)

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", get)


def test_answers_are_in_the_order_of_the_learners_whoever_is_done_first() -> None:
    assert learners.ask(Group(1, 2, 3), double) == [2, 4, 6]


def test_a_learner_that_is_lost_is_told_though_another_never_answers() -> None:
    with pytest.raises(LearnerLostError, match=r"^learner 1 of 2 is lost: its process ended"):
        learners.ask(Group(ActorDiedError(), NEVER), double)


def test_a_learner_that_is_lost_is_told_where_another_raises_for_lack_of_its_gradients() -> None:
    with pytest.raises(LearnerLostError, match=r"^learner 1 of 2 is lost"):
        learners.ask(Group(ActorDiedError(), ConnectionError("closed by peer")), double)


def test_what_a_learner_raises_is_raised_where_all_are_there() -> None:
    with pytest.raises(ZeroDivisionError):
        learners.ask(Group(1, ZeroDivisionError()), double)


def test_all_that_are_lost_are_named_and_none_that_is_busy() -> None:
    with pytest.raises(LearnerLostError, match=r"^learner 1, 3 of 3 is lost"):
        learners.check_all_are_there(Group(ActorDiedError(), 1, ActorDiedError()))
    learners.check_all_are_there(Group(1, NEVER))
