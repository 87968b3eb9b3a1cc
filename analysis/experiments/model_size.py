"""What is the smallest model that learns to talk? Success against the number of weights, in two worlds.

    python -m popcomm.analysis.experiments.model_size --out runs/model_size [--docs docs]

Part "game": a speaker and a listener, TinyAgents from 1,000 to 10 million weights, play referential_v0 for the same
number of messages, and are then tried on all meanings. Part "swarm": boids of several sizes, talking and silent, in
swarm_v0. Results of the game are appended to results.jsonl one by one, swarms have run folders, and what is there is
not made again.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from popcomm.analysis.experiments.communication_gap import RETURN, at_end
from popcomm.analysis.experiments.figures import DASHED, DOTS, level, seeds_and_means
from popcomm.analysis.experiments.frame import Experiment, Options
from popcomm.analysis.experiments.intervals import Interval, mean_interval
from popcomm.analysis.experiments.records import RESULTS, Trial, arms_of, stored
from popcomm.analysis.experiments.runs import LEAN, Run, algorithm_of

from popcomm.cli import documents
from popcomm.cli.train import checked_config
from popcomm.envs.swarm_references import controls
from popcomm.language.drawing import BLUE, GREEN, ORANGE, PURPLE, card, dress, legend
from popcomm.rollout.crossplay import cross_play

NAME = "model_size"
GAME, SWARM = "model_size_sweep", "swarm"  # shipped configs
MESSAGES, LONG = 40_000, 5  # per run; how many times as many in long runs
LOOKS = 20  # at the accuracy, while a run lasts
HEAD_WIDTH = 8  # as wide as FLARE's own measurements favour
# Of a network: what has a part in no action and no message.
IDLE = ("critic", "predictor", "world_estimator", "decoder")

Rows = Sequence[Mapping[str, Any]]


# ---- runs ----


@dataclass(frozen=True)
class Shape:
    """Of a TinyAgent."""

    width: int
    depth: int = 2

    @property
    def heads(self) -> int:
        """At least one for each symbol of a message."""
        return max(2, self.width // HEAD_WIDTH)

    @property
    def lr(self) -> float:
        """Adam's step size goes with 1 / width, as for all matrices in Yang et al. 2022 (Tensor Programs V), but is at
        most 0.003: the best of a few trials at widths 16, 64 and 256."""
        return min(0.003, 0.2 / self.width)

    @property
    def entropy(self) -> float:
        """Weight of the messages' entropy (nats): narrow pairs do not get off the ground with more, wide ones stop
        at messages with two meanings with less. From trials at widths 16, 64 and 104."""
        return 0.05 if self.width > 100 else 0.02


# The ladder, 1,000 to 10 million weights; the same number of weights in fewer or more layers; more messages.
LADDER = tuple(Shape(width) for width in (4, 8, 16, 32, 56, 104, 184, 320, 600))
OTHER_DEPTHS = (Shape(48, 1), Shape(24, 4))
LARGE = 1_500_000  # weights from which on there is one seed
LONGER = tuple(Shape(width) for width in (8, 16, 32))
SWARM_WIDTHS, SWARM_HEADS, SWARM_STEPS = (4, 16, 64), 4, 40_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swarm-seeds", type=int, default=1, help="runs of each swarm; 0 leaves them out [1]")


def check(options: Options) -> str | None:
    return "--swarm-seeds must be at least 0" if options.swarm_seeds < 0 else None


def planned(options: Options) -> list[Trial | Run]:
    """The games, then the swarms."""
    games = [Trial(options.out / RESULTS, key, play) for key in games_of(options.seeds)]
    return [*games, *(run for _, run in swarm_runs(options.out, options.swarm_seeds))]


def games_of(seeds: int) -> list[dict[str, Any]]:
    """All runs of the game, what tells each from others: the ladder with a seed at a time, for an early picture."""

    def key(shape: Shape, seed: int, budget: int = MESSAGES) -> dict[str, Any]:
        return {"part": "game", **asdict(shape), "seed": seed, "budget": budget}

    keys = [key(shape, 1) for shape in LADDER] + [key(shape, 1, LONG * MESSAGES) for shape in LONGER]
    small = [shape for shape in LADDER if weights_of(document(shape, 1)) < LARGE]
    keys += [key(shape, seed) for seed in range(2, seeds + 1) for shape in small]
    return keys + [key(shape, seed) for shape in OTHER_DEPTHS for seed in range(1, seeds + 1)]


def document(shape: Shape, seed: int) -> dict[str, Any]:
    """The configuration of a run of the game."""
    agent = "population.agent_config"
    return documents.load(
        GAME,
        [
            f"{agent}.hidden_dim={shape.width}",
            f"{agent}.num_heads={shape.heads}",
            f"{agent}.depth={shape.depth}",
            f"training.lr={shape.lr}",
            f"training.message_entropy_coeff={shape.entropy}",
            f"debugging.seed={seed}",
        ],
    )


def weights_of(document: dict[str, Any]) -> int:
    """Numbers, over one member of every species, that have a part in what is said and done."""
    config = checked_config(document)
    with torch.device("meta"):
        plan = config.plan
        agents = [species.agent_class(species.spec, **species.agent_config) for species in plan.species.values()]
    parts = [(name, part) for agent in agents for name, part in agent.named_children() if name not in IDLE]
    return sum(p.numel() for _, part in parts for p in part.parameters())


def play(part: str, width: int, depth: int, seed: int, budget: int) -> dict[str, Any]:
    """Train a pair for so many messages and try it on all meanings, everybody taking its likeliest choice.

    Returns:
        "accuracy" at the end, share of all meanings that are named in full; "curve" [[messages, accuracy]]; "weights";
        "cpu_s".
    """
    asked = document(Shape(width, depth), seed)
    config, began = checked_config(asked), time.process_time()
    rounds = config.env_config["rounds"]
    curve: list[tuple[int, float]] = []
    with algorithm_of(config) as algorithm:
        messages = 0
        while messages < budget:
            steps = algorithm.train()["popcomm"]["env_steps"]
            messages = steps * rounds // (rounds + 1)  # the last step of an episode is for answers only
            if messages >= budget * (len(curve) + 1) / LOOKS:
                curve.append((messages, float(cross_play(algorithm).accuracy.mean())))
    seconds = time.process_time() - began
    return {"weights": weights_of(asked), "accuracy": curve[-1][1], "curve": curve, "cpu_s": round(seconds, 1)}


def swarm_runs(out: Path, seeds: int) -> Iterator[tuple[dict[str, Any], Run]]:
    """(what tells it from others, the run): boids of every width, talking and silent."""
    for seed in range(1, seeds + 1):
        for width in SWARM_WIDTHS:
            size = (f"population.agent_config.hidden_dim={width}", f"population.agent_config.num_heads={SWARM_HEADS}")
            for arm, changes in {"talking": (), "silent": ("communication.messages=null",)}.items():
                path = out / "runs" / f"{arm}-width{width}-seed{seed}"
                overrides = (*LEAN, "recording.checkpoint_every=0", *size, *changes, f"debugging.seed={seed}")
                key = {"part": "swarm", "arm": arm, "width": width, "seed": seed}
                yield key, Run(path, SWARM, overrides, SWARM_STEPS)


# ---- measures ----

LEARNED = 0.95  # share of all meanings that are named in full
CHANCE = 1 / 25  # a listener that guesses; the meanings of the config model_size_sweep
LADDER_DEPTH = 2


class Results(NamedTuple):
    game: Rows
    swarm: Rows


def results(options: Options, _: Any) -> Results:
    """All games in the folder, and the swarms that are complete."""
    swarm = []
    for key, run in swarm_runs(options.out, options.swarm_seeds):
        if run.is_complete():
            table = run.table
            measured = {"return": at_end(table, RETURN), "seconds": float(table["time_s"].iloc[-1])}
            swarm.append({**key, "weights": weights_of(run.document), "budget": SWARM_STEPS, **measured})
    return Results([row for row in stored(options.out / RESULTS) if row["part"] == "game"], swarm)


class Size(NamedTuple):
    """All runs of one shape with one budget."""

    weights: int
    width: int
    depth: int
    budget: int
    accuracies: list[float]  # one per seed
    learned_at: list[int | None]  # messages after which the accuracy was LEARNED for the first time
    seconds: float  # of CPU, mean

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> Interval | None:
        """Student's t at 95 %, within 0 and 1; None with one seed."""
        low, high = mean_interval(self.accuracies)
        return None if math.isnan(low) else Interval(max(0.0, low), min(1.0, high))

    @property
    def has_learned(self) -> bool:
        """In every seed."""
        return min(self.accuracies) >= LEARNED


def sizes(games: Rows) -> list[Size]:
    """Results grouped by shape and budget, the fewest messages and the smallest networks first."""
    groups = arms_of(games, lambda row: (row["budget"], row["weights"], row["width"], row["depth"]))
    found = []
    for (budget, *shape), rows in sorted(groups.items()):
        reached = [learned_at(row["curve"]) for row in rows]
        seconds = float(np.mean([row["cpu_s"] for row in rows]))
        found.append(Size(*shape, budget, [row["accuracy"] for row in rows], reached, seconds))
    return found


def learned_at(curve: Sequence[Sequence[float]]) -> int | None:
    """Messages at the first look [messages, accuracy] with an accuracy of LEARNED; None if there is none."""
    return next((int(messages) for messages, accuracy in curve if accuracy >= LEARNED), None)


def smallest(found: Sequence[Size], learned: bool = True) -> Size | None:
    """The one with the fewest weights that has learned in every seed, or (learned=False) in any."""
    good = [size for size in found if (size.has_learned if learned else max(size.accuracies) >= LEARNED)]
    return min(good, key=lambda size: size.weights, default=None)


def pairs_of(swarms: Rows) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(talking, silent) of the same width and seed, by width."""
    known = {(row["arm"], row["width"], row["seed"]): row for row in swarms}
    both = sorted((w, s) for arm, w, s in known if arm == "talking" and ("silent", w, s) in known)
    return [(known["talking", w, s], known["silent", w, s]) for w, s in both]


# ---- figure and page ----

ARMS = {"talking": (BLUE, "o"), "silent": (ORANGE, "s")}


def draw(found: Results) -> Figure:
    """Accuracy against weights, and the swarms' returns; points are seeds, lines their means."""
    figure = card(11, 4.6, "What is the smallest model that learns to talk?")
    if found.swarm:
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        _draw_swarm(right, found.swarm)
    else:
        left = figure.subplots()
    _draw_game(left, sizes(found.game))
    return figure


def _draw_game(axes: Axes, found: Sequence[Size]) -> None:
    dress(axes, "A game of 25 meanings", "weights of speaker and listener", "meanings named in full, share", "both")
    budget = min((size.budget for size in found), default=0)
    ladder = {s.weights: s.accuracies for s in found if s.depth == LADDER_DEPTH and s.budget == budget}
    others = {s.weights: s.accuracies for s in found if s.depth != LADDER_DEPTH}
    longer = {s.weights: s.accuracies for s in found if s.budget > budget}
    times = max((s.budget for s in found), default=0) // budget if budget else 1
    seeds_and_means(axes, ladder, BLUE, "o", f"{budget:,} messages, {LADDER_DEPTH} layers", linewidth=1.8)
    seeds_and_means(axes, others, GREEN, "^", f"{budget:,} messages, 1 or 4 layers")
    label = f"{times} times as many messages, {LADDER_DEPTH} layers"
    seeds_and_means(axes, longer, PURPLE, "D", label, linewidth=1.2, linestyle="--")
    level(axes, LEARNED, f"learned: {LEARNED:.0%}", DASHED)
    level(axes, CHANCE, "chance", DOTS)
    if found:
        _log_weights(axes)
    axes.set_ylim(0, 1.04)
    legend(axes, loc="lower right", bbox_to_anchor=(1, 0.08))


def _draw_swarm(axes: Axes, swarms: Rows) -> None:
    dress(axes, "A swarm, talking and silent", "weights of a talking boid", "return per agent and episode", "both")
    x = {row["width"]: row["weights"] for row in sorted(swarms, key=itemgetter("weights")) if row["arm"] == "talking"}
    for arm, (colour, mark) in ARMS.items():
        returns = arms_of([row for row in swarms if row["arm"] == arm], itemgetter("width"), x)
        groups = {x[width]: [row["return"] for row in rows] for width, rows in returns.items()}
        seeds_and_means(axes, groups, colour, mark, arm, linewidth=1.6)
    level(axes, _alone(), "alone (scripted)", DOTS)
    _log_weights(axes)
    legend(axes, loc="best")


def _log_weights(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


@cache
def _alone() -> float:
    """Return of the scripted swarm in which each steers to where it saw the beacon last."""
    return controls(documents.load("swarm")["environment"]["env_config"])["alone"]


def page(found: Results) -> dict[str, Any]:
    shapes = sizes(found.game)
    budget = min((size.budget for size in shapes), default=0)
    short, longer = ([s for s in shapes if (s.budget == budget) == first] for first in (True, False))
    told = {"short": short, "longer": longer, "smallest": smallest, "learned": LEARNED, "budget": budget}
    scale = {"swarm_budget": SWARM_STEPS, "alone": _alone() if found.swarm else None}
    return {**told, **scale, "swarms": pairs_of(found.swarm)}


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results, Results._asdict, arguments, check)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
