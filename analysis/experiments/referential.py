"""The reconstruction game beside EGG's baselines: accuracy and speed of pairs and of populations that all meet.

    python -m popcomm.analysis.experiments.referential --seeds 3 --out runs/referential [--docs docs]

Rates are of one run at a time: leave --jobs at 1.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import panels
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.records import RESULTS, Trial, arms_of, results_of
from popcomm.analysis.experiments.runs import algorithm_of

from popcomm.cli import documents
from popcomm.cli.train import checked_config
from popcomm.language.drawing import BLUE, GREEN, ORANGE, legend
from popcomm.rollout.crossplay import cross_play

NAME = "referential"
MESSAGES = 320_000  # the budget of every run, EGG's of the baselines
REINFORCE = ("communication.gradient=reinforce", "training.message_entropy_coeff=0.2", "training.lr=3e-3")

# In populations the rewards age with every update of the other members: two updates for each batch instead of ten.
FRESH = ("env_runners.num_worlds_per_env_runner=100", "training.minibatch_size=50", "training.lr=4e-3")

Record = Mapping[str, Any]


# ---- runs ----


@dataclass(frozen=True)
class Case:
    """A row of the table: a shipped config with overrides."""

    name: str
    file: str
    overrides: tuple[str, ...] = ()


def of_size(members: int) -> tuple[str, str]:
    return (f"population.members.speaker={members}", f"population.members.listener={members}")


CASES = (
    Case("pair, straight-through", "referential"),
    Case("pair, Reinforce", "referential", (*REINFORCE, "training.minibatch_size=64")),
    Case("population 5 x 5, straight-through", "referential_population", of_size(5)),
    Case("population 5 x 5, Reinforce", "referential_population", (*of_size(5), *REINFORCE, *FRESH)),
    Case("population 10 x 10, straight-through", "referential_population", of_size(10)),
    Case("pair, silent", "referential", ("communication.messages=null",)),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"budget of each run [{MESSAGES:,}]")
    parser.add_argument("--only", action="append", help="cases by a part of their name; again for more")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override, for all")


def planned(options: Options) -> list[Trial]:
    """Raises UserError: a configuration that does not exist, or cannot be trained."""
    wanted = [c for c in CASES if not options.only or any(part in c.name for part in options.only)]
    for case in wanted:
        document = documents.load(case.file, settings_of(case, 1, options.set))
        if not options.page_only:
            checked_config(document)

    def key(case: Case, seed: int) -> dict[str, Any]:
        settings = settings_of(case, seed, options.set)
        return {"case": case.name, "seed": seed, "messages": options.messages, "settings": settings}

    runs = itertools.product(wanted, range(1, options.seeds + 1))
    return [Trial(options.out / RESULTS, key(*run), train) for run in runs]


def settings_of(case: Case, seed: int, overrides: Sequence[str] = ()) -> list[str]:
    """What is changed in the shipped config."""
    return [*case.overrides, *overrides, f"debugging.seed={seed}"]


def results(options: Options, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Of all cases, also of those that were not asked for this time; not what other settings left in the folder."""
    everything = argparse.Namespace(**{**vars(options), "only": None, "page_only": True})
    return results_of(planned(everything))


def train(case: str, seed: int, messages: int, settings: Sequence[str]) -> Record:
    """Train one run to its budget of messages and cross-play its members.

    Returns:
        "messages" that were said; "cpu_seconds" of this process, training alone; accuracies of all pairs on all
        meanings, everybody taking its likeliest choice: "mean" over pairs of the share of meanings understood whole,
        "least" of the worst pair, "attributes", mean share of them understood; "curve" [[messages, accuracy in
        training, of sampled words and sampled answers]].
    """
    config = checked_config(documents.load({c.name: c.file for c in CASES}[case], list(settings)))
    with algorithm_of(config) as algorithm:
        said, curve, began = 0, [], time.process_time()
        while said < messages:
            said += _messages(algorithm)
            curve.append((said, algorithm.train()["popcomm"].get("world/accuracy", float("nan"))))
        seconds = time.process_time() - began
        mean, least, attributes = _understood(algorithm)
    told = {"said": said, "cpu_seconds": seconds, "mean": mean, "least": least, "attributes": attributes}
    return {**told, "curve": curve}


def _messages(algorithm: Any) -> int:
    """Messages of one iteration: in `rounds` of every `rounds + 2` rows of an episode something is said."""
    config = algorithm.config
    rounds = config.env_config["rounds"]
    rows = config.plan.total_worlds * config.rollout_fragment_length
    return round(rows * config.env_config["speakers"] * rounds / (rounds + 2))


def _understood(algorithm: Any) -> tuple[float, float, float]:
    """Mean and least accuracy of all pairs, and the share of attributes; in silence what the runs last scored."""
    if algorithm.config.message_kind is None:
        scored = algorithm.train()["popcomm"]
        return scored["world/accuracy"], scored["world/accuracy"], scored["world/attribute_accuracy"]
    played = cross_play(algorithm)
    return float(played.accuracy.mean()), float(played.accuracy.min()), float(played.attribute_accuracy.mean())


# ---- measures ----

PAIR, POPULATION = "pair, straight-through", "population 5 x 5, straight-through"
LARGE = "population 10 x 10, straight-through"


class Peer(NamedTuple):
    """EGG 54eb11c on the same game: one core, GRU 128, embedding 32, 320,000 messages; medians of three seeds."""

    name: str
    accuracy: str
    rate: int | None  # messages per second
    accuracy_bar: float
    least_bar: float | None
    rate_bar: float | None


PEERS = {
    PAIR: Peer("Gumbel-Softmax", ".90 (.79 to .98)", 8800, 0.98, 0.98, 17600),
    "pair, Reinforce": Peer("Reinforce", "1.00", 5500, 0.99, 0.99, 11000),
    POPULATION: Peer("Gumbel-Softmax", ".25 (.92 with five times the messages)", None, 0.95, 0.9, None),
    "population 5 x 5, Reinforce": Peer("Reinforce", ".08", None, 0.95, 0.9, None),
}


def rate(record: Record) -> float:
    """Messages per CPU second."""
    return record["said"] / record["cpu_seconds"]


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{case: its runs by seed}, in the order of CASES."""
    order = [case.name for case in CASES]
    return arms_of(sorted(records, key=lambda r: order.index(r["case"])), lambda r: r["case"])


def bars(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """What EGG's figures ask of every seed, and that ten by ten members take at most twice the time of five by five."""
    found = []
    for case, peer in PEERS.items():
        runs = groups.get(case)
        if not runs:
            continue
        found.append(_bar(f"{case}: accuracy of every seed", min(r["mean"] for r in runs), peer.accuracy_bar, ".3f"))
        if case.startswith("population"):
            least = min(r["least"] for r in runs)
            found.append(_bar(f"{case}: worst pair of every seed", least, peer.least_bar or 0, ".2f"))
        if peer.rate_bar:
            middle = float(np.median([rate(r) for r in runs]))
            found.append(_bar(f"{case}: messages / CPU s, twice EGG's", middle, peer.rate_bar, ",.0f"))
    if POPULATION in groups and LARGE in groups:
        small, large = (np.median([r["cpu_seconds"] for r in groups[name]]) for name in (POPULATION, LARGE))
        text, times = "10 x 10: CPU time of 5 x 5, times <= 2", float(large / small)
        found.append(Claim(text, f"{times:.2f}", times <= 2))
    return found


def _bar(what: str, value: float, bar: float, form: str) -> Claim:
    return Claim(f"{what} >= {bar:{form}}", f"{value:{form}}", value >= bar)


# ---- figure and page ----

STYLES = {"pair": (BLUE, "-"), "population 5": (ORANGE, "--"), "population 10": (GREEN, "-.")}


def draw(records: Sequence[Record]) -> Figure:
    """Accuracy in training against messages, a thin line for each run; straight-through beside Reinforce."""
    ways, labels = ("straight-through", "Reinforce"), ("messages", "accuracy (sampled words and answers)")
    title = "The reconstruction game: accuracy while learning"
    figure, every = panels(title, 11, 4.2, *((way, *labels) for way in ways), sharey=True)
    for axes, way in zip(every, ways, strict=True):
        for case, runs in grouped(records).items():
            if not case.endswith(way):
                continue
            colour, dash = next(look for start, look in STYLES.items() if case.startswith(start))
            for number, record in enumerate(runs):
                x, y = np.array(record["curve"], float).T
                label = case.split(",")[0] if number == 0 else None
                axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.4, alpha=0.8, label=label)
        axes.set_ylim(0, 1.02)
        legend(axes, loc="upper left")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)
    rates = {case: np.median([rate(r) for r in runs]) for case, runs in groups.items()}
    return {"groups": groups, "rates": rates, "bars": bars(groups), "peers": PEERS}


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, results, arguments=arguments)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
