"""Dialects: populations in communities that seldom meet, and who understands whom afterwards.

    python -m popcomm.analysis.experiments.communities --out runs/communities [--seeds 3] [--docs docs]

Six speakers and six listeners play referential_v0, seated in communities with more or less exchange between them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments.figures import DOTTED, seeds_and_means
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import difference, paired
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of, whole_folder

from popcomm.language.drawing import BLUE, INK, MUTED, ORANGE, card, dress, heatmap, legend
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rollout.crossplay import CrossPlay, cross_play

NAME = "communities"
MEMBERS = 6  # of each species
WORLDS, MINIBATCH = 504, 126  # multiples of 6, so that all communities have equally many
VALUES, VOCABULARY, LENGTH = 10, 50, 2
MESSAGES = 600_000  # of all speakers together, in a run
LOOKS = 6  # how often a run is measured, the last time at its end
# Two communities from none to full exchange; three at the ends and in between.
ARMS = tuple(itertools.product([2], [0.0, 0.01, 0.05, 0.2, 1.0])) + tuple(itertools.product([3], [0.0, 0.05, 1.0]))

Array = NDArray[Any]
Record = Mapping[str, Any]
Arms = Mapping[tuple[int, float], Sequence[Record]]  # {(communities, mixing): its runs by seed}


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"said in each run [{MESSAGES}]")


def planned(options: Options) -> list[Trial]:
    arms = [{"communities": communities, "mixing": mixing} for communities, mixing in ARMS]
    return trials_of(options, train, arms, asked=options.messages)


def settings(communities: int, mixing: float, seed: int) -> PopulationPPOConfig:
    """The configuration of a run."""
    return (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"attributes": 2, "values": VALUES, "rounds": 31})
        .communication({"kind": "symbols", "vocab_size": VOCABULARY, "length": LENGTH}, gradient="straight_through")
        .population(agent="gru", members=MEMBERS, seating="communities", communities=communities, mixing=mixing)
        .training(
            learn_from="answers", lr=5e-3, gamma=0.0, vf_clip_param=10.0, num_epochs=1,
            minibatch_size=MINIBATCH, message_entropy_coeff=0.1, quality_coeff=0.0, message_balance_coeff=0.0,
        )
        .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=8)
        .debugging(seed=seed)
    )  # fmt: skip


def train(communities: int, mixing: float, seed: int, asked: int) -> Record:
    """One run of so many messages, measured on its way and at its end; `seconds` is CPU time of this process."""
    began = time.process_time()
    algorithm: PopulationPPO = settings(communities, mixing, seed).build_algo()
    untrained = measure(cross_play(algorithm), communities)
    curve, said, accuracy = [{"messages": 0, **untrained}], 0, float("nan")
    for look in range(1, LOOKS + 1):
        while said < asked * look / LOOKS:
            result = algorithm.train()
            said, accuracy = result["num_env_steps_sampled_lifetime"], result["popcomm"]["world/accuracy"]
        played = cross_play(algorithm)
        curve.append({"messages": said, **measure(played, communities)})
    algorithm.stop()
    seconds, met = time.process_time() - began, exchange(communities, mixing)
    told = {"exchange": met, **curve[-1], "sampled_accuracy": accuracy, "seconds": seconds}
    return {**told, "curve": curve, "matrix": played.accuracy.tolist()}


# ---- measures ----

CHANCE = 0.01  # one meaning of a hundred, guessed
SOME = 0.05  # the mixing that the claims are about


def same_community(members: int, communities: int) -> Array:
    """[P, P] bool, which members are of one community: p and q if p G // P = q G // P."""
    group = np.arange(members) * communities // members
    return group[:, None] == group[None]


def distances(messages: Array) -> Array:
    """Share of the meanings for which two speakers have different messages: [S, M, length] -> [S, S] in 0 ... 1."""
    return (messages[:, None] != messages[None]).any(-1).mean(-1)


def measure(played: CrossPlay, communities: int) -> dict[str, float]:
    """Intelligibility and distance, as means within communities and between them.

    `within` and `between` are shares of meanings understood; `distance_within` is over pairs of different speakers, nan
    where a community has but one.
    """
    speakers = len(played.accuracy)
    same, apart = same_community(speakers, communities), distances(played.messages)
    others = same & ~np.eye(speakers, dtype=bool)
    return {
        "within": float(played.accuracy[same].mean()),
        "between": float(played.accuracy[~same].mean()),
        "distance_within": float(apart[others].mean()) if others.any() else float("nan"),
        "distance_between": float(apart[~same].mean()),
    }


def exchange(communities: int, mixing: float) -> float:
    """The share of conversations whose speaker and listener are of different communities.

    A seat holds a stranger with probability q = mixing (1 - 1 / G), and any other community is as likely; the two
    seats of a world are filled apart: 1 - (1 - q)^2 - q^2 / (G - 1).
    """
    q = mixing * (1 - 1 / communities)
    return 1 - (1 - q) ** 2 - q**2 / (communities - 1)


def grouped(records: Sequence[Record]) -> Arms:
    """In the order of communities and mixing."""
    ordered = sorted(records, key=lambda r: (r["communities"], r["mixing"]))
    return arms_of(ordered, lambda r: (r["communities"], r["mixing"]))


def claims(by_arm: Arms) -> list[Claim]:
    """What is said of two communities, as far as there are runs."""
    none, some, full = (by_arm.get((2, mixing), []) for mixing in (0.0, SOME, 1.0))
    found = []
    if none:
        highest = max(r["between"] for r in none)
        text = f"Those who never meet understand one another as by chance: at most {3 * CHANCE:g} in every run"
        found.append(Claim(text, f"at most {highest:.3f}", highest <= 3 * CHANCE))
    gain = paired(some, none, lambda r: r["between"])
    if gain is not None:
        text = f"Mixing {SOME:g} makes strangers understood: the interval of the gain over mixing 0 excludes 0"
        found.append(Claim(text, gain.shown(3), gain.paired.low > 0))
        apart = difference([a["distance_between"] for a in some], [a["distance_within"] for a in some])
        text = f"At mixing {SOME:g} they still speak more differently than those of one community: it excludes 0"
        found.append(Claim(text, apart.shown(3), apart.paired.low > 0))
    if full:
        gap = max(abs(r["within"] - r["between"]) for r in full)
        text = "At mixing 1 there are no strangers: within and between differ by 0.01 at most in every run"
        found.append(Claim(text, f"at most {gap:.3f}", gap <= 0.01))
    return found


# ---- figure and page ----

MATRIX_ARMS = ((2, 0.0), (2, SOME))
COLOURS = {"within": BLUE, "between": ORANGE}
MARKERS = {2: ("o", "-", -0.06), 3: ("^", ":", 0.06)}  # by communities, a little apart


def draw(records: Sequence[Record]) -> Figure:
    """Intelligibility and distance against mixing, every seed a point; and who understands whom in single runs."""
    by_arm = grouped(records)
    mixings = sorted({mixing for _, mixing in by_arm})
    figure = card(11, 8.2, "Communities that seldom meet: who understands whom, and who says the same")
    axes = figure.subplots(2, 2)
    dress(axes[0, 0], "Intelligibility", "mixing", "share of meanings understood")
    dress(axes[0, 1], "Distance of languages", "mixing", "share of meanings said differently")
    for kind, (communities, (mark, dash, aside)) in itertools.product(COLOURS, MARKERS.items()):
        arms = {mixing: runs for (groups, mixing), runs in by_arm.items() if groups == communities}
        label = f"{kind}, {communities} communities"
        for panel, key in zip(axes[0], (kind, f"distance_{kind}"), strict=True):
            values = {mixings.index(mixing) + aside: [r[key] for r in runs] for mixing, runs in arms.items()}
            seeds_and_means(panel, values, COLOURS[kind], mark, label, linestyle=dash, linewidth=1.8)
    axes[0, 0].axhline(CHANCE, color=MUTED, linewidth=1.2, linestyle=DOTTED, label="chance")
    for panel in axes[0]:
        panel.set_xticks(range(len(mixings)), [f"{m:g}" for m in mixings])
        panel.set_ylim(-0.03, 1.05)
    legend(axes[0, 0], loc="best")
    for panel, arm in zip(axes[1], MATRIX_ARMS, strict=True):
        _matrix(panel, by_arm.get(arm, []), arm)
    return figure


def _matrix(axes: Axes, runs: Sequence[Record], arm: tuple[int, float]) -> None:
    communities, mixing = arm
    dress(axes, grid=None)
    if not runs:
        axes.set_title(f"mixing {mixing:g}: no run yet", fontsize=10, loc="left", color=INK)
        return
    dress(axes, f"Mixing {mixing:g}, seed {runs[0]['seed']}: speakers by listeners", "listener", "speaker", grid=None)
    matrix = np.array(runs[0]["matrix"])
    heatmap(axes, matrix, "share of meanings understood", vmin=0, vmax=1)
    for edge in np.arange(1, communities) * len(matrix) / communities - 0.5:
        axes.axhline(edge, color="white", linewidth=2)
        axes.axvline(edge, color="white", linewidth=2)
    for (row, column), value in np.ndenumerate(matrix):
        ink = "white" if value < 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)


def page(records: Sequence[Record]) -> dict[str, Any]:
    by_arm = grouped(records)

    def gap(runs: Sequence[Record], first: str, second: str) -> str:
        return difference([r[first] for r in runs], [r[second] for r in runs]).shown(3)

    gains = {
        arm: gain.shown(3)
        for arm, runs in by_arm.items()
        if arm[1] and (gain := paired(runs, by_arm.get((arm[0], 0.0), []), lambda r: r["between"]))
    }
    untrained = [[r["curve"][0]["within"], r["curve"][0]["between"]] for r in records]
    told = {"records": records, "arms": by_arm, "claims": claims(by_arm), "untrained": np.mean(untrained)}
    return {**told, "gap": gap, "gains": gains}


def results(options: Options, _: Sequence[Trial]) -> list[Record]:
    """Of all runs of so many messages. Raises UserError: there are none."""
    return list(whole_folder(options, lambda row: {"asked": options.messages}))


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results, arguments=arguments)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
