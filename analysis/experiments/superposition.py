"""Does a message that is put together of several encoders help? Three ways to weigh them, against one encoder.

    python -m popcomm.analysis.experiments.superposition --out runs/superposition [--seeds 5] [--docs docs] [--quick]

The game is that of message_credit: every seat sees one of a few kinds and must name, a step later, the kind that one
other seat saw; all hear all, and all are paid the mean. Messages are vectors of two numbers, learned through the
channel. All arms have as many weights, to within a few in a hundred: who has one encoder has wider hidden layers for
the others' K.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from matplotlib.figure import Figure
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.message_credit import (
    FRAGMENT,
    WORLDS,
    AskedWorld,
    BySlot,
    area,
    draw_scores,
    learned,
    shown,
)
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm.language.drawing import BLUE, GREEN, MUTED, ORANGE, card
from popcomm.rllib import PopulationPPOConfig

NAME = "superposition"
SEATS, KINDS, SIZE, ENCODERS, HIDDEN = 5, 4, 2, 4, 24
STEPS, QUICK_STEPS = 40_000, 6_000  # environment steps of a run
TITLES = {
    "one": "one encoder, wider hidden layers",
    "random": "four, weighed at random in training, alike in play",
    "learned": "four, weighed by the network (softmax)",
    "top_1": "four, the one with the highest score",
}
ARMS = tuple(TITLES)
COLOURS = {"one": MUTED, "random": ORANGE, "learned": GREEN, "top_1": BLUE}

Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    arms = [{"arm": arm} for arm in ARMS]
    return trials_of(options, train, arms, env_steps=QUICK_STEPS if options.quick else STEPS)


def settings(arm: str, seed: int, hidden: int) -> PopulationPPOConfig:
    """The configuration of a run; who must name whose kind is another one for every seed."""
    parts = {} if arm == "one" else {"superposition": {"encoders": ENCODERS, "measure": arm}}
    return (
        PopulationPPOConfig()
        .environment(AskedWorld, env_config={"layout_seed": seed, "kinds": KINDS, "seats": SEATS})
        .communication(messages={"kind": "vectors", "size": SIZE, **parts}, topology={"kind": "full"})
        .population(agent=BySlot, agent_config={"hidden": hidden}, members=SEATS, seating="fixed")
        .training(
            lr=3e-3, gamma=0.9, lambda_=0.9, entropy_coeff=0.01, num_epochs=4, minibatch_size=WORLDS,
            message_balance_coeff=0.0,
        )
        .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=FRAGMENT)
        .debugging(seed=seed)
    )  # fmt: skip


def weights(arm: str, hidden: int) -> int:
    """How many weights a member has."""
    config = settings(arm, 1, hidden)
    config.validate()
    with torch.device("meta"):
        agent = BySlot(config.plan.species["seat"].spec, hidden)
    return sum(parameter.numel() for parameter in agent.parameters()) // SEATS


@cache
def width(arm: str) -> int:
    """Of hidden layers, so that weights come next to those of "learned", which has most, at HIDDEN."""
    aim = weights("learned", HIDDEN)
    return min(range(HIDDEN, 2 * HIDDEN), key=lambda hidden: abs(weights(arm, hidden) - aim))


def train(arm: str, seed: int, env_steps: int) -> Record:
    """One run, measured on its way and at its end; `seconds` is CPU time of its iterations."""
    hidden = width(arm)
    training = LocalTraining(settings(arm, seed, hidden), 256)
    curve, seconds = learned(training, env_steps)
    return {
        "score": curve[-1]["score"], "curve": curve, "hidden": hidden, "weights": weights(arm, hidden),
        "seconds": seconds,
    }  # fmt: skip


# ---- measures, figure and page ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}, in the order of ARMS."""
    return arms_of(records, lambda r: r["arm"], ARMS)


def claims(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """Of every measure, whether it learns faster than one encoder, on the same seeds."""
    found: list[Claim] = []
    for arm in ARMS[1:]:
        text = f"`{arm}` learns faster than one encoder: mean score over the training ({{seeds}} seeds)"
        found += outdone(text, groups.get(arm, []), groups.get("one", []), area, least=2)
    return found


def draw(records: Sequence[Record]) -> Figure:
    """Scores over the training, every seed thin."""
    figure = card(9, 4.6, "Messages of one encoder and of four")
    draw_scores(figure.subplots(), grouped(records), COLOURS, KINDS)
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)
    return {
        "records": records, "groups": groups, "claims": claims(groups), "titles": TITLES, "shown": shown,
        "seats": SEATS, "kinds": KINDS, "size": SIZE, "chance": 1 / KINDS, "steps": records[0]["env_steps"],
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
