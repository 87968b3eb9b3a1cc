"""Does a network that grows its edges come to what a dense one does, at a quarter of the operations?

    python -m popcomm.analysis.experiments.bottom_up_networks --out runs/bottom_up [--seeds 5] [--docs docs] [--quick]

Cooperative navigation with 3, 5, 7 and 16 agents, who see all or their own landmark alone, and traffic lights of a
4 x 4 grid (SUMO; the extra `traffic`): edges that gradients ask for (csnr, raw), random ones and a given graph, against
independent agents and a dense network, at equal samples. Of 7 agents it is also played in noise of six kinds. Arms of a
game and seed share a process; its result is appended to results.jsonl, and what is there is not made again. The page is
of all that is in the folder. Writes bottom_up_networks.md, .png and .json into it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments.bottom_up_runs import ARMS, GAMES, NOISY_ARMS, train
from popcomm.analysis.experiments.figures import of_runs, seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_interval, mean_shown, paired
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of, whole_folder

from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, VERMILLION, card, dress, legend

NAME = "bottom_up_networks"
TITLES = {
    "csnr": "grown, by `csnr`",
    "raw": "grown, by `raw` (the paper's words)",
    "random": "grown at random",
    "given": "a given graph",
    "none": "independent",
    "full": "dense",
}
COLOURS = {"csnr": ORANGE, "raw": VERMILLION, "random": PURPLE, "given": GREEN, "none": MUTED, "full": BLUE}
DASHES = {"csnr": "-", "raw": "--", "random": ":", "given": "-.", "none": (0, (1, 1)), "full": (0, (5, 1))}
PARTS = ("navigation", "traffic")
SPARE = 0.1  # of what a dense network gained over random play: by so much less is still comparable
NOISES = ("gaussian", 0.3)  # the noise of the paper's summary
QUICK_SHARE = 0.05  # of the samples

Record = Mapping[str, Any]
Floats = NDArray[np.floating[Any]]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is trained [all]")


def planned(options: Options) -> list[Trial]:
    """All arms of a navigation together, seconds each; of traffic, minutes each, one by one."""
    games = {name: game for name, game in GAMES.items() if PARTS[not game.is_navigation] in options.parts}
    each = [
        {"game": name, "arms": list(arms), "env_steps": steps_of(options, name)}
        for name, game in games.items()
        for arms in ([game.arms] if game.is_navigation else [(arm,) for arm in game.arms])
    ]
    return trials_of(options, train, each)


def steps_of(options: Options, game: str) -> int:
    """Of each run of a game."""
    return int(GAMES[game].env_steps * (QUICK_SHARE if options.quick else 1))


def results(options: Options, _: Sequence[Trial]) -> list[Record]:
    """A record for each run of both parts, asked for this time or not. Raises UserError: there are none."""
    return [
        {"game": row["game"], "arm": arm, "seed": row["seed"], "env_steps": row["env_steps"], **run,
         "scripts": row["scripts"]}
        for row in whole_folder(options, lambda row: {"env_steps": steps_of(options, row["game"])})
        for arm, run in row["runs"].items()
    ]  # fmt: skip


# ---- measures ----


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """{game: {arm: its runs by seed}}."""
    games = arms_of(records, lambda r: r["game"], GAMES)
    return {game: arms_of(runs, lambda r: r["arm"], ARMS) for game, runs in games.items()}


def score(run: Record) -> float:
    return float(run["score"])


def gained(runs: Sequence[Record]) -> list[float]:
    """By how much runs came above random play, or where it is not known above their own first episode."""
    first = [np.mean([p["score"] for p in r["curve"][: GAMES[r["game"]].fragments]]) for r in runs]
    return [float(r["score"] - r["scripts"].get("random", own)) for r, own in zip(runs, first, strict=True)]


def lost(run: Record, kind: str = NOISES[0], strength: float = NOISES[1]) -> float:
    """How much less a run earns in a noise than without it."""
    return float(run["score"] - run["noise"][kind][f"{strength:g}"])


def comparable(game: str, arms: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """That csnr comes to no less than dense, but for SPARE of what dense gained."""
    gap = paired(arms.get("csnr", []), arms.get("full", []), score)
    if gap is None or len(arms["csnr"]) < 2:
        return []
    share, gains = np.mean([r["flops_share"] for r in arms["csnr"]]), gained(arms["full"])
    spare = SPARE * np.mean(gains)
    text = f"{game}: `csnr` at {share:.0%} of the operations is comparable to dense (at most {spare:.2g} less)"
    return [Claim(text, gap.shown(2), bool(mean_interval(gains).low > 0 and gap.paired.low > -spare))]


def claims(groups: Mapping[str, Mapping[str, Sequence[Record]]]) -> list[Claim]:
    """The paper's summary, and what makes a criterion worth its while, game by game."""
    found: list[Claim] = []
    for game, arms in groups.items():
        found += comparable(game, arms)
        for other, words in (("none", "than independent agents do"), ("random", "than with random edges")):
            text = f"{game}: with `csnr` they earn more {words}"
            found += outdone(text, arms.get("csnr", []), arms.get(other, []), score, 2, 2)
        found += robust(game, arms)
        found += neighbourly(game, arms)
    return found


def robust(game: str, arms: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """That dense loses more in the paper's noise."""
    csnr, full = ([r for r in arms.get(arm, []) if r["noise"]] for arm in ("csnr", "full"))
    text = f"{game}: in gaussian noise of {NOISES[1]} dense loses more than `csnr`"
    return outdone(text, full, csnr, lost, 2, 2)


def neighbourly(game: str, arms: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """That pairs which a street joins are more among those that grew than among all."""
    runs = arms.get("csnr", [])
    if not runs or "road_share" not in runs[0] or len(runs) < 2:
        return []
    within = mean_interval([r["road_share"] for r in runs])
    chance = runs[0]["road_chance"]
    text = f"{game}: what `csnr` joins is joined by a street more often than by chance ({chance:.2f})"
    return [Claim(text, f"{np.mean([r['road_share'] for r in runs]):.2f} {within.shown(2)}", within.low > chance)]


# ---- figure and page ----


def draw(records: Sequence[Record]) -> Figure:
    """Returns over training, game by game, and what is left of them in noise."""
    groups = grouped(records)
    noisy = [(game, kind) for game in groups for kind in GAMES[game].noise]
    panels, columns = len(groups) + len(noisy), 3
    figure = card(13, 3.4 * -(-panels // columns), "Networks that grow their edges")
    every = figure.subplots(-(-panels // columns), columns, squeeze=False).ravel()
    for axes in every[panels:]:
        axes.set_visible(False)
    for axes, (game, arms) in zip(every, groups.items(), strict=False):
        draw_training(axes, game, arms)
    for axes, (game, kind) in zip(every[len(groups) :], noisy, strict=False):
        draw_noise(axes, game, kind, groups[game])
    return figure


def draw_training(axes: Axes, game: str, arms: Mapping[str, Sequence[Record]]) -> None:
    dress(axes, game, "environment steps", "return of an agent and episode")
    for arm, runs in arms.items():
        curves = [by_episode(across, up, GAMES[game].fragments) for across, up in of_runs(runs)]
        seeds_and_mean(axes, [curve for curve in curves if len(curve[0])], COLOURS[arm], DASHES[arm], arm)
    for name, value in next(iter(arms.values()))[0]["scripts"].items():
        axes.axhline(value, color=INK, linewidth=0.7, linestyle=":")
        axes.annotate(name, (1, value), xycoords=("axes fraction", "data"), fontsize=7, ha="right", va="bottom")
    legend(axes, loc="best", ncols=2, fontsize=7)


def by_episode(across: Floats, up: Floats, fragments: int) -> tuple[Floats, Floats]:
    """A curve of fragments [I] by whole episodes [I // fragments]: where each ends, and its mean; the rest is left out.

    Traffic comes and goes within an episode, and returns of its parts with it.
    """
    whole = len(up) // fragments * fragments
    return across[:whole].reshape(-1, fragments)[:, -1], up[:whole].reshape(-1, fragments).mean(1)


def draw_noise(axes: Axes, game: str, kind: str, arms: Mapping[str, Sequence[Record]]) -> None:
    strengths = GAMES[game].noise[kind]
    unit = {"missing": "probability", "stuck": "probability", "delay": "steps"}.get(kind, "units of observations")
    dress(axes, f"{game}: {kind}", f"strength ({unit})", "return of an agent and episode")
    for arm in NOISY_ARMS:
        runs = [r for r in arms.get(arm, []) if r["noise"]]
        if runs:
            values = np.array([[r["score"], *(r["noise"][kind][f"{s:g}"] for s in strengths)] for r in runs])
            axes.plot([0, *strengths], values.T, color=COLOURS[arm], linewidth=0.6, alpha=0.4)
            axes.plot([0, *strengths], values.mean(0), color=COLOURS[arm], linestyle=DASHES[arm], marker="o", label=arm)
    legend(axes, loc="best", fontsize=7)


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(runs: Sequence[Record], key: str) -> str:
        return mean_shown([r[key] for r in runs], 1)

    def noised(runs: Sequence[Record], kind: str, strength: float) -> float:
        return float(np.mean([r["score"] - lost(r, kind, strength) for r in runs]))

    groups = grouped(records)
    return {
        "records": records, "groups": groups, "claims": claims(groups), "titles": TITLES, "shown": shown,
        "noises": {game: GAMES[game].noise for game in groups}, "noisy_arms": NOISY_ARMS, "spare": SPARE,
        "noised": noised,
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results=results, arguments=arguments, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
