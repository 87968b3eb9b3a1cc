"""Does a vocabulary settle? Its drift over training, in referential games and in the swarm, over seeds.

    python -m popcomm.analysis.experiments.vocabulary_evolution --out runs/vocabulary_evolution [--docs docs]

What is complete is not trained again. Writes vocabulary_evolution.md, .png and .json into the folder, also while some
of the runs are still to come (`--measure`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter
from popcomm.analysis.experiments import evolution_measures as measures
from popcomm.analysis.experiments.evolution_games import COPIES, ROUNDS, VOCABULARY, Diary, Play
from popcomm.analysis.experiments.evolution_measures import CLAIM, ON_MEANING, OVERALL, RENAMED, Curve, settled_by
from popcomm.analysis.experiments.figures import DOTTED, panels
from popcomm.analysis.experiments.frame import Experiment, Options
from popcomm.analysis.experiments.intervals import difference
from popcomm.analysis.experiments.runs import Run, runs_of
from popcomm.analysis.history import History

from popcomm.errors import UserError
from popcomm.language.drawing import BLUE, CARD, GREEN, MUTED, ORANGE, PURPLE, VERMILLION, legend
from popcomm.language.drift import SETTLED

NAME = "vocabulary_evolution"
PARTS = ("games", "swarm")
# Members of each species, weight of the entropy bonus, seeds left out at the end: five and five cost most, and a swarm.
GAMES = {"pair, bonus": (1, 0.1, 0), "pair, no bonus": (1, 0.0, 0), "five and five, bonus": (5, 0.1, 1)}
SWARM_FEWER = 1
ITERATIONS, ENV_STEPS = 256, 130_000
QUICK_ITERATIONS, QUICK_ENV_STEPS = 4, 4_000
# Conversations often enough that no episode is missed, and of enough worlds for thousands of messages a window.
RECORDED = (
    "recording.picture_every=0", "recording.conversation_every=5", "recording.conversation_worlds=16",
    "recording.checkpoint_every=0",
)  # fmt: skip
QUICK = (
    "environment.env_config.max_steps=20", "env_runners.num_worlds_per_env_runner=32", "training.minibatch_size=32",
    "recording.conversation_every=2",
)  # fmt: skip
WINDOWS_IN_EPISODE = 2

SWARM = "swarm"
Arms = Mapping[str, Sequence[Curve]]


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is looked at [both]")


def planned(options: Options) -> list[Play | Run]:
    """The games, a seed of all kinds after the other, then the swarms; where they cost most a seed fewer."""
    iterations, env_steps = (QUICK_ITERATIONS, QUICK_ENV_STEPS) if options.quick else (ITERATIONS, ENV_STEPS)

    def seeds(fewer: int) -> range:
        return range(1, max(1, options.seeds - fewer) + 1)

    games = [
        Play(options.out / "games" / f"{_stem(arm)}-seed{seed}.npz", *how, seed, iterations)
        for arm, (*how, fewer) in GAMES.items()
        for seed in seeds(fewer)
    ]
    arms = {SWARM: (*RECORDED, *(QUICK if options.quick else ()))}
    swarms = runs_of(options.out, "swarm", arms, seeds(SWARM_FEWER), env_steps)
    chosen = {"games": sorted(games, key=lambda play: play.seed), "swarm": swarms}
    return [made for part, runs in chosen.items() if part in options.parts for made in runs]


def _stem(arm: str) -> str:
    return arm.replace(", ", "-").replace(" ", "-")


# ---- measures ----


def results(options: Options, made: Sequence[Play | Run]) -> dict[str, list[Curve]]:
    """The curves of what is complete; arms without any are left out."""
    arms: dict[str, list[Curve]] = {arm: [] for arm in (*GAMES, SWARM)}
    named = {_stem(arm): arm for arm in GAMES}
    for found in made:
        if not found.is_complete():
            continue
        if isinstance(found, Play):
            arms[named[found.name.rpartition("-")[0]]].append(measures.of_games(Diary.load(found.path), found.seed))
        else:
            arms[SWARM].append(_swarm_curve(found))
    if not any(arms.values()):
        raise UserError(f"--measure: no run in {options.out} is complete; leave it out to train them")
    return {arm: curves for arm, curves in arms.items() if curves}


def _swarm_curve(run: Run) -> Curve:
    document, history = run.document, History.read(run.path, most_parts=None)
    steps = document["environment"]["env_config"]["max_steps"]
    seed, vocabulary = document["debugging"]["seed"], document["communication"]["messages"]["vocab_size"]
    worlds = document["env_runners"]["num_worlds_per_env_runner"]
    return measures.of_swarm(history, seed, worlds, steps, steps // WINDOWS_IN_EPISODE, vocabulary)


# ---- figure and page ----

# Arms in the order of the page: name, colour, dash.
LOOKS = dict(zip((*GAMES, SWARM), ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, "-")), strict=True))


def draw(arms: Arms) -> Figure:
    """Four panels against episodes (log): names, meanings, distance from the end, the swarm. Thin lines are seeds."""
    games, bits = "games played, one message each", "bits above chance, 0 to 1"
    figure, (names, meaning, last, swarm) = panels(
        *("How vocabularies change over training", 11, 8),
        ("Referential games: meanings renamed at the next checkpoint", games, "share of the meanings"),
        ("Referential games: drift of what is said on a meaning", games, bits),
        ("Referential games: meanings named otherwise than in the end", games, "share of the meanings"),
        ("Swarm: drift of symbols to the next checkpoint", "episodes of 100 steps", bits),
    )
    for arm, curves in arms.items():
        colour, dash = LOOKS[arm]
        if arm == SWARM:
            _curves(swarm, curves, ON_MEANING, f"{ON_MEANING} (label)", colour, "-")
            _curves(swarm, curves, OVERALL, OVERALL, MUTED, "--")
        else:
            _curves(names, curves, RENAMED, arm, colour, dash)
            _curves(meaning, curves, ON_MEANING, arm, colour, dash)
            _curves(last, curves, RENAMED, arm, colour, dash, to_last=True)
    in_games = {"10k games": CLAIM, f"10k episodes\nof {ROUNDS} games": CLAIM * ROUNDS}
    for axes in (names, last):
        axes.set_ylim(0, 1.15)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    _marks(names, measures.BOUNDS[RENAMED], in_games, "lower left")
    _marks(meaning, SETTLED, in_games, "upper center")
    _marks(last, None, in_games, "lower left")
    _marks(swarm, SETTLED, {"10k episodes": CLAIM}, "upper center")
    return figure


def _curves(
    axes: Axes, curves: Sequence[Curve], measure: str, label: str, colour: str, dash: str, to_last: bool = False
) -> None:
    """Each seed thin, with a dot where its game was won; the mean of all of them thick."""
    shown = []
    for curve in curves:
        found = curve.measures[measure]
        values = found.to_last_above_chance if to_last else found.consecutive_above_chance
        axes.plot(curve.episodes[:-1], values, color=colour, linewidth=0.8, alpha=0.5)
        at = np.flatnonzero(curve.episodes[:-1] == curve.won)
        axes.plot(curve.episodes[at], values[at], color=colour, linestyle="none", marker="o", markersize=5)
        shown.append(values)
    if shown and len({len(values) for values in shown}) == 1:
        episodes = np.mean([curve.episodes[:-1] for curve in curves], 0)
        axes.plot(episodes, np.mean(shown, 0), color=colour, linestyle=dash, linewidth=2.2, label=label)


def _marks(axes: Axes, bound: float | None, claims: Mapping[str, float], where: str) -> None:
    """A log axis of episodes with the bound and the claims; nothing at all where there are no curves."""
    axes.set_visible(axes.has_data())
    if not axes.has_data():
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # the one of before went with the scale
    if bound is not None:
        axes.axhline(bound, color=VERMILLION, linestyle=":", linewidth=1.3, label=f"bound, {bound:g}")
    for name, episodes in claims.items():
        axes.axvline(episodes, color=MUTED, linestyle=DOTTED, linewidth=1.3)
        beside: dict[str, Any] = {"xytext": (3, -3), "textcoords": "offset points", "va": "top"}
        axes.annotate(name, (episodes, 1), xycoords=("data", "axes fraction"), **beside, fontsize=7.5, color=MUTED)
    if where == "upper center":
        axes.set_ylim(top=1.4 * axes.get_ylim()[1])
    axes.set_xlim(right=max(axes.get_xlim()[1], 1.8 * max(claims.values())))
    legend(axes, loc=where, frameon=True, facecolor=CARD, edgecolor="none", framealpha=0.9)


def page(arms: Arms) -> dict[str, Any]:
    games = {arm: curves for arm, curves in arms.items() if arm != SWARM and curves}
    played = [c for curves in games.values() for c in curves]
    early = [float(c.accuracy[np.searchsorted(c.episodes, CLAIM)]) for c in played if c.accuracy is not None]
    by = [settled_by(played, RENAMED, until) for until in (CLAIM, CLAIM * ROUNDS, math.inf)]
    return {
        "games": games, "swarm": arms.get(SWARM, []), "played": played, "early": early, "by": by, "bonus": bonus(games),
        "claim": CLAIM, "rounds": ROUNDS, "won": measures.WON, "copies": COPIES, "vocabulary": VOCABULARY,
        "RENAMED": RENAMED, "ON_MEANING": ON_MEANING, "OVERALL": OVERALL, "WHOLE": measures.WHOLE, "settled": SETTLED,
        "bounds": measures.BOUNDS, "settled_by": settled_by, "settlement": settlement, "kept": kept,
        "last_episode": last_episode,
    }  # fmt: skip


def settlement(curves: Sequence[Curve], measure: str) -> tuple[list[float], list[float]]:
    """From when on a measure is settled, of the runs in which it is; and its value at the end, of all runs."""
    since = [s for c in curves if (s := c.settled(measure)) is not None]
    return since, [c.at_end(measure) for c in curves]


def kept(curves: Sequence[Curve]) -> list[float]:
    """Shares of the names with which a game was won, of the runs that won it."""
    return [share for c in curves if math.isfinite(share := c.kept())]


def last_episode(curves: Sequence[Curve]) -> float:
    """As far as all of them went."""
    return min(c.episodes[-1] for c in curves)


def bonus(games: Arms) -> list[tuple[str, int, str, str]]:
    """The difference that the entropy bonus makes, paired by seed: what, seeds, mean, interval."""
    pairs = [(a, b) for a in games.get("pair, bonus", ()) for b in games.get("pair, no bonus", ()) if a.seed == b.seed]
    rows = []
    for name, digits, of in (
        ("meanings renamed, last step (share)", 2, lambda c: c.at_end(RENAMED)),
        ("drift on the same meaning, last step (bits)", 3, lambda c: c.at_end(ON_MEANING)),
        ("names kept since the game was won (share)", 2, lambda c: c.kept()),
    ):
        known = [both for a, b in pairs if np.isfinite(both := (of(a), of(b))).all()]
        if len(known) >= 2:
            found = difference(*zip(*known, strict=True))
            rows.append((name, len(known), f"{found.mean:+.{digits}f}", found.paired.shown(digits)))
    return rows


def numbers(arms: Arms) -> dict[str, Any]:
    runs = {arm: [_run(curve) for curve in curves] for arm, curves in arms.items()}
    return {"claim": CLAIM, "bounds": measures.BOUNDS, "runs": runs}


def _run(curve: Curve) -> dict[str, Any]:
    known = [m for m in measures.BOUNDS if m in curve.measures]
    settled = {m: {"to_next": curve.settled(m), "to_last": curve.settled(m, True)} for m in known}
    return {**curve._asdict(), "won": curve.won, "settled": settled}


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results, numbers, arguments, quick=3, page_only="--measure")
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
