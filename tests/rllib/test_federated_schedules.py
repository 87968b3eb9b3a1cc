"""What an epsilon of federated averaging refuses of schedules: those that tell members how well all others do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.schedules import Clock, Schedule
from tests.rllib.test_federated import PRIVATE, SYMBOLS, config_of


class Own(Schedule):
    """A schedule of one's own, which may look at the clock's performance."""

    def strength(self, clock: Clock) -> float:
        return min(1.0, clock.performance.get("reward", 1.0))


def scheduled(where: str, schedule: Any, ways: Any = PRIVATE) -> PopulationPPOConfig:
    """A schedule in every place that has one."""
    quiet = {"gradient": "reinforce", "credit": "step", "messages": SYMBOLS}
    words = {"kind": "words", "bits": 8, "min_on": 2, "max_on": 4}
    return {
        "reflexes": lambda: config_of(
            ways, **{**quiet, "messages": words}, reflexes=[{"kind": "publishing", "rate": 0.5, "schedule": schedule}]
        ),
        "topology": lambda: config_of(ways, **quiet, topology={"kind": "curriculum", "schedule": schedule}),
        "vocabulary": lambda: config_of(ways, **quiet, vocabulary={"first": 2, "schedule": schedule}),
        "losses": lambda: config_of(ways).training(loss_schedules={"any": schedule}),
    }[where]()


PLACES = {
    "reflexes": "communication.reflexes: the schedule of publishing",
    "topology": "communication.topology.schedule",
    "vocabulary": "communication.vocabulary.schedule",
    "losses": "training.loss_schedules.any",
}


@pytest.mark.parametrize("where", PLACES)
def test_with_an_epsilon_no_schedule_follows_what_all_members_earn(where: str) -> None:
    gated = {"kind": "gated", "measure": "reward"}
    sentence = f"training.federated.epsilon is 4.0, and {PLACES[where]} is "
    for schedule, how in ((gated, "'gated', which follows the reward"), (Own(), "of your own, which may follow")):
        with pytest.raises(UserError, match=re.escape(sentence + how)):
            scheduled(where, schedule).validate()
    steps = {"kind": "cosine", "begin": 0, "end": 99}
    others = [(PRIVATE, steps), ({"every": 3}, gated)]
    for ways, schedule in others if where != "losses" else []:  # mlp has no losses that could be scheduled
        scheduled(where, schedule, ways).validate()
