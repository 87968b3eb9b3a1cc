"""Remote learners: all of them are asked, and one whose process ends is told in a sentence, at once.

RLlib never begins a learner anew. It would wait for those that are left, which may wait for the lost one's gradients,
and afterwards learn with nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError

from popcomm.errors import LostError

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 10.0  # for Ray to notice that a process has ended; who is busy is not waited for any longer


class LearnerLostError(LostError):
    """The process of a learner ended."""


def ask(group: Any, func: Callable[[Any], Answer]) -> list[Answer]:
    """What `func` returns for each learner of RLlib's LearnerGroup, in their order.

    Raises:
        LearnerLostError: one of them is no longer there, whether the others have answered or not.
        Exception: what `func` raised.
    """
    if group.is_local:
        return [result.get() for result in group.foreach_learner(func)]
    with loss_told(group):
        asked = waiting = [learner.apply.remote(func) for learner in _learners(group)]
        answers: dict[Any, Answer] = {}
        while waiting:
            # The first that is done, since an error of it may be why the others never are.
            done, waiting = ray.wait(waiting, num_returns=1)
            answers |= {answer: ray.get(answer) for answer in done}
        return [answers[answer] for answer in asked]


def hand_over(group: Any, runner: Any) -> bool:
    """Give a runner of this process the weights of a learner of this process, tensor to tensor; False: none is here.

    RLlib makes arrays of them on the way, which takes as long as an update of a small network.
    """
    if not group.is_local or runner is None:
        return False

    def give(learner: Any) -> None:
        for name, module in runner.module.items():
            module.load_state_dict(learner.module[name].unwrapped().state_dict())

    ask(group, give)
    return True


@contextmanager
def loss_told(group: Any) -> Iterator[None]:
    """Within, whatever goes wrong because a learner is not there is told as that.

    Raises:
        LearnerLostError: one is not.
    """
    try:
        yield
    except LostError:
        raise
    except Exception as error:
        check_all_are_there(group, error)
        raise


def check_all_are_there(group: Any, cause: Exception | None = None) -> None:
    """Raises LearnerLostError: one is not. To be called where RLlib would ask them, which tells it in many lines."""
    learners = _learners(group)
    if lost := _lost(learners):
        raise LearnerLostError(
            f"learner {', '.join(map(str, lost))} of {len(learners)} is lost: its process ended; it was killed, ran "
            "out of memory, or its node is gone"
        ) from cause


def _learners(group: Any) -> list[Any]:
    """The actors; none where the driver itself learns."""
    return [] if group.is_local else list(group._worker_manager.actors().values())


def _lost(learners: Sequence[Any]) -> list[int]:
    """The numbers, from 1, of those whose process has ended."""
    if not learners:
        return []
    pings = [learner.apply.remote(_answer) for learner in learners]
    done, _ = ray.wait(pings, num_returns=len(pings), timeout=PATIENCE_SECONDS)
    return [number for number, ping in enumerate(pings, 1) if ping in done and _ended(ping)]


def _answer(learner: Any) -> None:
    """Which a process that is there does, once it is done with what it does."""


def _ended(ping: Any) -> bool:
    try:
        ray.get(ping)
    except RayActorError:
        return True
    return False
