"""Does sampling while learning earn what taking turns earns?

    python -m popcomm.analysis.experiments.overlap_returns --out runs/overlap_returns [--seeds 5] [--docs docs]

The shipped swarm with one remote env runner, with `env_runners.overlap` and without, for the same environment steps;
each run is `popcomm train` in a process of its own, and what is there is not made again. The two ways learn from other
samples, so that the same seed does not make the same run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.communication_gap import LENGTH, RETURN, at_end
from popcomm.analysis.experiments.figures import seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import mean_shown, paired
from popcomm.analysis.experiments.records import arms_of
from popcomm.analysis.experiments.runs import LEAN, Run, runs_of

from popcomm.errors import UserError
from popcomm.language.drawing import BLUE, ORANGE, card, dress, legend

NAME, FILE = "overlap_returns", "swarm"
ENV_STEPS = 260_000  # of a run, as in the file
QUICK_STEPS = 10_240
MARGIN = 0.1  # of what taking turns earns; talking is worth four times as much there
OVERLAP, TURNS = "sampling while learning", "taking turns"
REMOTE = (*LEAN, "recording.checkpoint_every=0", "env_runners.num_env_runners=1")
ARMS = {OVERLAP: (*REMOTE, "env_runners.overlap=true"), TURNS: REMOTE}
DASHES = {OVERLAP: ("-", BLUE), TURNS: ("--", ORANGE)}

Record = Mapping[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env-steps", type=int, default=ENV_STEPS, help=f"of each run [{ENV_STEPS}]")


def planned(options: Options) -> list[Run]:
    names = {arm.replace(" ", "_"): changes for arm, changes in ARMS.items()}
    steps = QUICK_STEPS if options.quick else options.env_steps
    return runs_of(options.out, FILE, names, range(1, options.seeds + 1), steps)


def measured(options: Options, runs: Sequence[Run]) -> list[Record]:
    """Of those that are complete. Raises UserError: there are none."""
    found = [record_of(run) for run in runs if run.is_complete()]
    if not found:
        raise UserError(f"--out {options.out} has no whole run of {runs[0].env_steps} environment steps yet")
    return found


def record_of(run: Run) -> Record:
    """Its return per boid and whole episode over the last fifth, and on the way; `behind`: in how many iterations the
    weights that sampled were older than those that learned."""
    table, document = run.table, run.document
    episode = document["environment"]["env_config"]["max_steps"]
    earned = table[RETURN] / table[LENGTH] * episode
    return {
        "arm": next(arm for arm in ARMS if run.name.startswith(arm.replace(" ", "_"))),
        "seed": document["debugging"]["seed"],
        "env_steps": int(table["env_steps"].iloc[-1]),
        "return": at_end(table, RETURN) / at_end(table, LENGTH) * episode,
        "behind": int(table["charts/updates_behind"].sum()) if "charts/updates_behind" in table else 0,
        "curve": [[steps, value] for steps, value in zip(table["env_steps"], earned, strict=True) if value == value],
    }


def claims(records: Sequence[Record]) -> list[Claim]:
    """That the difference is small: the whole interval lies within the margin."""
    arms = arms_of(records, itemgetter("arm"), ARMS)
    gap = paired(arms.get(OVERLAP, ()), arms.get(TURNS, ()), itemgetter("return"))
    if gap is None:
        return []
    most = MARGIN * sum(run["return"] for run in arms[TURNS]) / len(arms[TURNS])
    text = f"Sampling while learning earns what taking turns earns, give or take {most:.1f} ({MARGIN:.0%} of it)"
    return [Claim(text, gap.shown(1), -most < gap.paired.low and gap.paired.high < most)]


def draw(records: Sequence[Record]) -> Figure:
    """Returns on the way: seeds thin, means thick."""
    figure = card(6.4, 4.4, "Sampling while learning, and taking turns")
    axes = figure.subplots()
    dress(axes, "ten boids", "environment steps", "return per boid and episode")
    for arm, runs in arms_of(records, itemgetter("arm"), ARMS).items():
        dash, colour = DASHES[arm]
        points = [np.array(run["curve"], float) for run in runs if run["curve"]]
        seeds_and_mean(axes, [(curve[:, 0], curve[:, 1]) for curve in points], colour, dash, arm)
    legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(runs: Sequence[Record]) -> str:
        return mean_shown([run["return"] for run in runs], 1)

    arms = arms_of(records, itemgetter("arm"), ARMS)
    return {"arms": arms, "claims": claims(records), "shown": shown, "steps": records[0]["env_steps"], "file": FILE}


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, measured, arguments=arguments, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
