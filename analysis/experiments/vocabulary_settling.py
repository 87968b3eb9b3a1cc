"""Does a vocabulary settle within 100,000 episodes? Games and a swarm, against a population that stood still.

    python -m popcomm.analysis.experiments.vocabulary_settling --out runs/settling [--seeds 5] [--docs docs] [--quick]

Vocabulary evolution again, to ten times the claimed number of *episodes*, and with another null: at every checkpoint
the frozen population speaks twice, in worlds and with random numbers of their own, and what two such samples differ by
is what a language that does not change would show. Short episodes, so that there are enough of them: a pair in games of
seven rounds, with and without a bonus on the entropy of messages, and a swarm of three boids, one of them a scout.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from popcomm.analysis.experiments.evolution_games import drawn_messages
from popcomm.analysis.experiments.figures import DOTTED
from popcomm.analysis.experiments.frame import Experiment, Options
from popcomm.analysis.experiments.intervals import Interval, mean_interval, mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm import language
from popcomm.cli import documents, schema
from popcomm.language.drawing import BLUE, MUTED, ORANGE, PURPLE, VERMILLION, card, dress, legend
from popcomm.language.drift import SETTLED, given_label, stable_from, whole_messages
from popcomm.language.drift import symbol_counts as counts_of
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import cross_play
from popcomm.rollout.population import Population

NAME = "vocabulary_settling"
CLAIM = 10_000  # episodes after which a vocabulary is said to be stable
EPISODES, QUICK_EPISODES = 100_000, 1_500
FIRST = 250  # episodes before the first checkpoint but the one before training
ROUNDS, WORLDS = 7, 512  # of a game
BOIDS, STEPS, SYMBOLS, LENGTH = 3, 12, 16, 3  # of a swarm
SWARMS = 256  # worlds of it
SPOKEN = 128  # worlds of a swarm's sample, an episode each
RENAMED_BOUND = 0.05

ARMS = ("pair, bonus", "pair, no bonus", "swarm")

Array = NDArray[Any]
Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    episodes = QUICK_EPISODES if options.quick else EPISODES
    return trials_of(options, train, [{"arm": arm} for arm in ARMS], episodes=episodes)


def settings(arm: str, seed: int) -> PopulationPPOConfig:
    """The configuration of a run: a shipped one with short episodes, and a step size that does not fall."""
    games = {
        "environment.env_config.rounds": ROUNDS,
        "env_runners.num_worlds_per_env_runner": WORLDS,
        "env_runners.rollout_fragment_length": ROUNDS + 2,
        "training.message_entropy_coeff": 0.0 if arm.endswith("no bonus") else 0.1,
    }
    swarm = {
        "environment.env_config.num_agents": BOIDS,
        "environment.env_config.scout_fraction": 1 / BOIDS,
        "environment.env_config.max_steps": STEPS,
        "communication.messages.vocab_size": SYMBOLS,
        "communication.messages.length": LENGTH,
        "communication.topology": {"kind": "full"},
        "training.lr": 2e-3,
        "training.num_epochs": 1,
        "training.minibatch_size": SWARMS // 4,
        "env_runners.num_worlds_per_env_runner": SWARMS,
        "env_runners.rollout_fragment_length": STEPS + 1,
    }
    own = {**(swarm if arm == "swarm" else games), "debugging.seed": seed}
    file = "swarm" if arm == "swarm" else "referential"
    document = documents.load(file, [f"{key}={json.dumps(value)}" for key, value in own.items()])
    return schema.apply(document, PopulationPPOConfig())


def train(arm: str, seed: int, episodes: int) -> Record:
    """One run, written down at checkpoints; `seconds` is CPU time of this process."""
    began, training = time.process_time(), LocalTraining(settings(arm, seed), 64)
    write = spoken if arm == "swarm" else played
    when, pages = [], []
    for number, due in enumerate([0, *checkpoints(episodes)]):
        while training.episodes < due:
            training.iterate()
        if when and training.episodes == when[-1]:
            continue  # an iteration may end more episodes than there are between two of them
        when.append(training.episodes)
        pages.append(write(training.population(), seed, number))
    found = of_swarm(pages) if arm == "swarm" else of_games(pages)
    return {"when": when, **found, "seconds": time.process_time() - began}


def checkpoints(last: int) -> list[int]:
    """Episodes about a factor of 1.4 apart, from FIRST to the last.

    >>> checkpoints(1000)
    [250, 354, 500, 707, 1000]
    """
    count = int(np.ceil(2 * np.log2(max(last / FIRST, 1)) - 1e-9))
    return [round(last / 2 ** (step / 2)) for step in range(count, -1, -1)]


def seeds_of(seed: int, page: int) -> list[int]:
    """Two for each checkpoint, and never the same."""
    return [int(word) for word in np.random.SeedSequence([seed, page]).generate_state(2)]


def played(population: Population, seed: int, page: int) -> Mapping[str, Any]:
    """What a pair says of each meaning: the likeliest message, two samples of what is drawn, and what is understood."""
    found = cross_play(population)
    rollout = population.rollout(worlds=1)
    agent = next(iter(rollout.players.actors.values())).network.agent
    twice = [drawn_messages(agent, rollout.world, each)[0] for each in seeds_of(seed, page)]
    return {"said": found.messages[0], "drawn": twice, "score": float(found.accuracy.mean())}


def spoken(population: Population, seed: int, page: int) -> Mapping[str, Any]:
    """What scouts say, in two samples of whole episodes: symbols [M, L], labels [M]; and the mean return of them."""
    twice, scores = [], []
    for each in seeds_of(seed, page):
        rollout = population.rollout(seed=each, worlds=SPOKEN, env_config={"stagger": False})
        rollout.begin()
        said, labels, score = [], [], 0.0
        for _ in range(STEPS):
            turn, after = rollout.step()
            assert turn.sent is not None
            assert turn.seen.labels is not None
            said.append(turn.sent.numpy().copy())
            labels.append(turn.seen.labels.numpy().copy())
            score += float(after.rewards.mean())
        rollout.close()
        told = np.stack(labels, 1) >= 0  # [B, T, N]
        world = np.broadcast_to(np.arange(SPOKEN)[:, None, None], told.shape)[told]
        twice.append((np.stack(said, 1)[told], np.stack(labels, 1)[told], world))
        scores.append(score)
    return {"samples": twice, "score": float(np.mean(scores))}


# ---- measures ----


def above_stillness(measure: Callable[[Array, Array], float], first: Sequence[Array], then: Sequence[Array]) -> float:
    """How much further apart two checkpoints are than two samples of either: the change of the language itself.

    Args:
        measure: of two samples.
        first, then: two samples each.
    """
    across = np.mean([measure(one, other) for one in first for other in then])
    return float(across - (measure(*first) + measure(*then)) / 2)


def of_games(pages: Sequence[Mapping[str, Any]]) -> Record:
    """Of C checkpoints: accuracy [C]; renamed and drift to the next and to the last [C - 1]; stillness [C]."""
    every = np.stack([np.stack(page["drawn"]) for page in pages])  # [C, 2, M, copies, L]
    codes, size = whole_messages(every.reshape(-1, every.shape[-1]))
    codes = codes.reshape(every.shape[:-1])
    meanings = np.repeat(np.arange(every.shape[2]), every.shape[3])

    def counted(sample: Array) -> Array:
        pairs = meanings * size + sample.reshape(-1)
        return np.bincount(pairs, minlength=(meanings[-1] + 1) * size).reshape(-1, size)

    counts = [[counted(sample) for sample in twice] for twice in codes]
    said = np.stack([page["said"] for page in pages])
    return {
        "score": [page["score"] for page in pages], **_changes(counts, lambda p, q: float(given_label(p, q))),
        "renamed": (said[:-1] != said[1:]).any(-1).mean(-1), "from end": (said[:-1] != said[-1:]).any(-1).mean(-1),
        "bits": [None] * len(pages),
    }  # fmt: skip


def of_swarm(pages: Sequence[Mapping[str, Any]]) -> Record:
    """The same of a swarm, without names: drift of the symbols on a label, by position, and bits that messages tell."""
    labels = 1 + max(int(sample[1].max(initial=0)) for page in pages for sample in page["samples"])

    def counted(sample: Any) -> Array:
        symbols, label, _ = sample
        return counts_of(symbols, SYMBOLS, np.zeros(len(label), int), label, labels, 1)[0]  # [L, G, V]

    counts = [[counted(sample) for sample in page["samples"]] for page in pages]
    bits = [language.information(page["samples"][0][0], *page["samples"][0][1:]).bits for page in pages]
    nothing = [None] * (len(pages) - 1)
    return {
        "score": [page["score"] for page in pages],
        **_changes(counts, lambda p, q: float(np.mean(given_label(p, q)))), "renamed": nothing, "from end": nothing,
        "bits": bits,
    }  # fmt: skip


def _changes(counts: Sequence[Sequence[Array]], measure: Callable[[Array, Array], float]) -> Record:
    last = counts[-1]
    return {
        "drift": [above_stillness(measure, now, then) for now, then in pairwise(counts)],
        "to end": [above_stillness(measure, now, last) for now in counts[:-1]],
        "stillness": [measure(*twice) for twice in counts],
    }


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    return arms_of(records, itemgetter("arm"), ARMS)


def settled(run: Record, key: str, bound: float) -> int | None:
    """The episode from which on a measure stays under its bound; None: never, or it was not measured."""
    if run[key][0] is None:
        return None
    found = stable_from(np.array(run[key], float), bound, np.array(run["when"][:-1]))
    return None if found is None else int(found)


def still_moving(runs: Sequence[Record], key: str) -> list[tuple[int, float, Interval]]:
    """At every checkpoint after the first: episodes, the mean change to the next over seeds, and its interval."""
    rows = []
    for index in range(1, min(len(run[key]) for run in runs)):
        values = [float(run[key][index]) for run in runs]
        rows.append((runs[0]["when"][index], float(np.mean(values)), mean_interval(values)))
    return rows


def verdict(runs: Sequence[Record]) -> str:
    """What the intervals say of the step across the claim, and of the last one."""
    if len(runs) < 2:
        return "one seed only"
    rows = still_moving(runs, "drift")
    near = min(rows, key=lambda row: abs(np.log(row[0] / CLAIM)))
    told = []
    for name, (when, mean, interval) in (("from there", near), ("last step", rows[-1])):
        state = "moves" if interval.low > SETTLED else "is still" if interval.high < SETTLED else "is undecided"
        told.append(f"{name} ({when:,}) it {state}: {mean:.3f} {interval.shown(3, '')} bits")
    return "; ".join(told)


# ---- figure and page ----

COLOURS = {"pair, bonus": BLUE, "pair, no bonus": ORANGE, "swarm": PURPLE}


def draw(records: Sequence[Record]) -> Figure:
    """Change to the next checkpoint and distance from the end, above stillness; names; and how well it goes."""
    groups = grouped(records)
    figure = card(12, 8, "Vocabularies over a hundred thousand episodes")
    drift, end, names, score = figure.subplots(2, 2).ravel()
    dress(drift, "Change to the next checkpoint", "episodes", "bits above two samples of the same")
    dress(end, "Distance from the last checkpoint", "episodes", "bits above two samples of the same")
    dress(names, "Games: meanings renamed at the next checkpoint", "episodes", "share of meanings")
    dress(score, "Games: understood. Swarm: bits that scouts tell, of 4", "episodes", "share; bits / 4")
    for arm, runs in groups.items():
        for axes, key in ((drift, "drift"), (end, "to end"), (names, "renamed")):
            _curve(axes, runs, key, arm)
        tells = [{**run, "told": [b / 4 for b in run["bits"]] if arm == "swarm" else run["score"]} for run in runs]
        _curve(score, tells, "told", arm)
    for axes in (drift, end, names, score):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.axvline(CLAIM, color=MUTED, linestyle=DOTTED, linewidth=1.2)
        if axes.get_legend_handles_labels()[0]:
            legend(axes, loc="best", fontsize=8)
    drift.axhline(SETTLED, color=VERMILLION, linestyle=":", linewidth=1.2)
    names.axhline(RENAMED_BOUND, color=VERMILLION, linestyle=":", linewidth=1.2)
    return figure


def _curve(axes: Axes, runs: Sequence[Record], key: str, arm: str) -> None:
    """Each seed thin, their mean thick; the moment before training has no place on the axis."""
    if runs[0][key][0] is None:
        return
    length = min(len(run[key]) for run in runs)
    for run in runs:
        axes.plot(run["when"][1:length], run[key][1:length], color=COLOURS[arm], linewidth=0.8, alpha=0.45)
    mean = np.mean([np.array(run[key][:length], float) for run in runs], 0)
    axes.plot(runs[0]["when"][1:length], mean[1:], color=COLOURS[arm], linewidth=2.2, label=arm)


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str, digits: int = 3) -> str:
        values = [run[key][-1] for run in runs]
        return "-" if values[0] is None else mean_shown(values, digits)

    def since(runs: Sequence[Record], key: str, bound: float) -> str:
        """In how many runs it settled, by the claim and by the end."""
        if runs[0][key][0] is None:
            return "-"
        told = [settled(run, key, bound) for run in runs]
        early = sum(when is not None and when <= CLAIM for when in told)
        return f"{early}, {sum(when is not None for when in told)} of {len(runs)}"

    return {
        "records": records, "groups": groups, "verdict": verdict, "shown": shown, "since": since, "claim": CLAIM,
        "settled": SETTLED, "bound": RENAMED_BOUND, "rounds": ROUNDS, "boids": BOIDS, "steps": STEPS,
        "spoken": SPOKEN, "symbols": SYMBOLS, "length": LENGTH, "episodes": records[0]["episodes"],
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
