"""Does it help to learn to talk on a dense graph, if agents are to live on a sparse one?

    python -m popcomm.analysis.experiments.curricula --out runs/curricula [--seeds 5] [--jobs 2] [--docs docs]

Boids that tell one another of a beacon, 10 and 50 of them: hearing the two nearest from the start; all others at first,
and fewer and fewer down to the two nearest; and all others to the end. All arms of a size have the same agent-steps,
and all are tried on the sparse graph in the end.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm.cli import documents, schema
from popcomm.language.drawing import BLUE, MUTED, ORANGE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig

NAME = "curricula"
FILE = "swarm"
SIZES = (10, 50)  # boids in a world
ROWS = 1200  # boids in all worlds together
LEAST = 2  # neighbours heard on the sparse graph
AGENT_STEPS, QUICK_STEPS = 480_000, 24_000  # of a run
FADES = (0.2, 0.7)  # shares of the steps between which links go
LOOKS = 4
SCOUTS = 1280  # boids in the worlds of an evaluation
SPARSE, CURRICULUM, DENSE = "sparse", "curriculum", "dense"
TITLES = {
    SPARSE: "the two nearest, from the start",
    CURRICULUM: "all others, then fewer and fewer",
    DENSE: "all others, to the end",
}
ARMS = tuple(TITLES)
COLOURS = {SPARSE: MUTED, CURRICULUM: BLUE, DENSE: ORANGE}
DASHES = {SPARSE: (0, (5, 2)), CURRICULUM: "-", DENSE: (0, (1, 1.5))}

Record = Mapping[str, Any]


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--agents", nargs="+", type=int, choices=SIZES, default=list(SIZES), help="both unless said")
    parser.add_argument("--agent-steps", type=int, default=AGENT_STEPS, help=f"of each run [{AGENT_STEPS}]")


def planned(options: Options) -> list[Trial]:
    arms = [{"agents": agents, "arm": arm} for agents, arm in itertools.product(options.agents, ARMS)]
    return trials_of(options, train, arms, agent_steps=QUICK_STEPS if options.quick else options.agent_steps)


def topology(arm: str, env_steps: int) -> dict[str, Any]:
    """Who hears whom in a run of so many environment steps."""
    if arm == SPARSE:
        return {"kind": "k_nearest", "k": LEAST}
    if arm == DENSE:
        return {"kind": "full"}
    begin, end = (round(share * env_steps) for share in FADES)
    schedule = {"kind": "linear", "begin": begin, "end": end}
    return {"kind": "curriculum", "least": LEAST, "keep": "nearest", "schedule": schedule}


def settings(agents: int, arm: str, seed: int, agent_steps: int) -> PopulationPPOConfig:
    """The configuration of a run: the shipped swarm, with shorter messages and fewer worlds."""
    worlds, env_steps = ROWS // agents, agent_steps // agents
    overrides = [
        f"environment.env_config.num_agents={agents}", "communication.messages.vocab_size=16",
        "communication.messages.length=2", f"env_runners.num_worlds_per_env_runner={worlds}",
        f"training.minibatch_size={worlds // 3}", f"training.lr=[[0, 2.0e-3], [{env_steps}, 3.0e-4]]",
        f"debugging.seed={seed}",
    ]  # fmt: skip
    document = documents.load(FILE, overrides)
    document["communication"]["topology"] = topology(arm, env_steps)
    return schema.apply(document, PopulationPPOConfig())


def train(agents: int, arm: str, seed: int, agent_steps: int) -> Record:
    """One run, looked at on its way and tried on the sparse graph in the end; `seconds` is CPU time of this process."""
    began = time.process_time()
    episodes, env_steps = -(-SCOUTS // agents), agent_steps // agents
    training = LocalTraining(settings(agents, arm, seed, agent_steps), episodes)
    curve = [[steps * agents, training.greedy()] for steps in training.looks(env_steps, LOOKS)]
    spent = time.process_time() - began
    alone = LocalTraining(settings(agents, SPARSE, seed, agent_steps), episodes)
    alone.learner.networks["swarm"].set_state(training.learner.networks["swarm"].get_state())
    silent = alone.config.copy(copy_frozen=False).communication(dropout=1.0)
    deaf = LocalTraining(silent, episodes)
    deaf.learner.networks["swarm"].set_state(training.learner.networks["swarm"].get_state())
    return {"score": curve[-1][1], "sparse": alone.greedy(), "deaf": deaf.greedy(), "curve": curve, "seconds": spent}


# ---- measures, figure and page ----


def grouped(records: Sequence[Record]) -> dict[int, dict[str, list[Record]]]:
    """{boids: {arm: its runs by seed}}."""
    sizes = arms_of(records, lambda r: r["agents"], SIZES)
    return {agents: arms_of(runs, lambda r: r["arm"], ARMS) for agents, runs in sizes.items()}


def claims(records: Sequence[Record]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    asked = (
        (CURRICULUM, SPARSE, "it earns more than one that was sparse from the start"),
        (CURRICULUM, DENSE, "and more than one that loses its links at once"),
    )
    found: list[Claim] = []
    for agents, arms in grouped(records).items():
        for arm, beside, words in asked:
            text = f"{agents} boids, a curriculum, on the sparse graph: {words}"
            found += outdone(text, arms.get(arm, ()), arms.get(beside, ()), itemgetter("sparse"), 2)
    return found


def draw(records: Sequence[Record]) -> Figure:
    """Returns on the way, each arm on the graph that it has then: seeds thin, means thick."""
    groups = grouped(records)
    figure = card(5.4 * len(groups), 4.6, "Learning to talk on dense and on sparse graphs")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (agents, arms) in zip(panels, groups.items(), strict=True):
        dress(axes, f"{agents} boids", "agent-steps", "return per boid and episode, on its own graph")
        for arm, runs in arms.items():
            curves = [(curve[:, 0], curve[:, 1]) for curve in (np.array(run["curve"], float) for run in runs)]
            seeds_and_mean(axes, curves, COLOURS[arm], DASHES[arm], TITLES[arm])
        legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(runs: Sequence[Record], key: str) -> str:
        return mean_shown([run[key] for run in runs], 2)

    return {
        "records": records, "groups": grouped(records), "claims": claims(records), "shown": shown, "titles": TITLES,
        "fades": FADES, "steps": records[0]["agent_steps"], "least": LEAST,
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, arguments=arguments, seeds=5, quick=1, jobs=2)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
