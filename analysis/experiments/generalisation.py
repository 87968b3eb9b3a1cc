"""Do systematic languages generalise? Structure of what pairs and populations say, and combinations nobody was shown.

    python -m popcomm.analysis.experiments.generalisation --out runs/generalisation [--seeds 5] [--docs docs] [--quick]

The reconstruction game with a fifth of the combinations of attribute values kept out of training: two attributes of ten
values, and three of five; as many messages as meanings, or many more; a pair, or five speakers and five listeners that
all meet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import correlation, mean_interval, mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm import language
from popcomm.cli import documents, schema
from popcomm.language.compositionality import Metric, chance
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, VERMILLION, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import cross_play

NAME = "generalisation"
HELD_OUT = 0.2  # share of the combinations
EPISODES = 64  # of an evaluation, which nobody asks for here
STEPS, QUICK_STEPS = 640_000, 20_000  # environment steps of a run; 31 of 32 say something
KNOWN = 0.9  # share of the seen meanings from which on a language counts as learned
SHUFFLES = 19
RIDGE = 1e-3

Array = NDArray[Any]
Record = Mapping[str, Any]


class Game(NamedTuple):
    attributes: int
    values: int  # of each
    symbols: tuple[int, int]  # vocabularies: as many messages as meanings, and many more

    @property
    def meanings(self) -> int:
        return int(self.values**self.attributes)


GAMES = {"2 x 10": Game(2, 10, (10, 50)), "3 x 5": Game(3, 5, (5, 25))}
MEMBERS = {1: "pair", 5: "5 x 5"}
ARMS = [
    {"game": name, "symbols": symbols, "members": members}
    for name, game in GAMES.items()
    for symbols in game.symbols
    for members in MEMBERS
]
# What a measure of structure is called, and whether less of it is more systematic.
STRUCTURE: dict[str, tuple[Metric, bool]] = {
    "topsim": (language.topographic_similarity, False),
    "posdis": (language.positional_disentanglement, False),
    "bosdis": (language.bag_of_symbols_disentanglement, False),
    "TRE": (language.tree_reconstruction_error, True),
}


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    return trials_of(options, train, ARMS, env_steps=QUICK_STEPS if options.quick else STEPS)


def settings(game: str, symbols: int, members: int, seed: int) -> PopulationPPOConfig:
    """The configuration of a run: a shipped one; which combinations are held out is another draw for every seed."""
    played = GAMES[game]
    own = {
        "environment.env_config.attributes": played.attributes,
        "environment.env_config.values": played.values,
        "environment.env_config.held_out": HELD_OUT,
        "environment.env_config.meaning_seed": seed,
        "communication.messages.vocab_size": symbols,
        "communication.messages.length": played.attributes,
        "debugging.seed": seed,
    }
    if members > 1:
        own |= {f"population.members.{role}": members for role in ("speaker", "listener")}
    file = "referential" if members == 1 else "referential_population"
    return schema.apply(documents.load(file, [f"{key}={value}" for key, value in own.items()]), PopulationPPOConfig())


def train(game: str, symbols: int, members: int, seed: int, env_steps: int) -> Record:
    """One run, measured at its end; `seconds` is CPU time of its iterations."""
    training, began = LocalTraining(settings(game, symbols, members, seed), EPISODES), time.process_time()
    while training.env_steps < env_steps:
        training.iterate()
    seconds, population = time.process_time() - began, training.population()
    seen, new = (cross_play(population, split) for split in ("train", "held_out"))
    languages = [structure(seen.meanings, said) for said in seen.messages]
    read = [
        additive_reader(seen.meanings, known, new.meanings, unknown)
        for known, unknown in zip(seen.messages, new.messages, strict=True)
    ]
    similar = language.inter_speaker_similarity(seen.messages) if members > 1 else None
    return {
        "seen": seen.accuracy.mean(), "held_out": new.accuracy.mean(),
        "gap": float(language.generalisation_gap(seen.accuracy, new.accuracy)),
        "seen_attributes": seen.attribute_accuracy.mean(), "held_out_attributes": new.attribute_accuracy.mean(),
        **{key: np.mean([told[key] for told in languages]) for key in languages[0]},
        "read": np.mean(read), "words": np.mean([len(np.unique(said, axis=0)) for said in seen.messages]),
        "similarity": similar, "seconds": seconds,
    }  # fmt: skip


# ---- measures ----


def structure(meanings: Array, messages: Array) -> dict[str, float]:
    """Of one language, meanings [M, A] and messages [M, L]: all of STRUCTURE, and what each is by chance.

    Chance: the same messages for meanings that were dealt anew.
    """
    found = {}
    for name, (metric, lower) in STRUCTURE.items():
        found[name] = metric(meanings, messages)
        found[f"{name} by chance"] = chance(metric, meanings, messages, SHUFFLES, lower=lower).mean
    return found


def additive_reader(seen: Array, said: Array, new: Array, of_new: Array) -> float:
    """The share of new meanings that one understands who knows the others and adds up what stands at each position.

    For each attribute the value with the highest score, a linear function of one-hot symbols, fitted by ridge
    regression: what a language lends itself to, apart from what its listeners have made of it.

    Args:
        seen: [M, A]; said: [M, L], their messages.
        new: [M', A]; of_new: [M', L].
    """
    symbols = int(max(said.max(), of_new.max())) + 1
    known, asked = (np.eye(symbols)[words].reshape(len(words), -1) for words in (said, of_new))
    centre = known.mean(0)
    inverse = np.linalg.inv((known - centre).T @ (known - centre) + RIDGE * np.eye(known.shape[1]))
    right = np.ones(len(new), bool)
    for told, wanted in zip(seen.T, new.T, strict=True):
        one_hot = np.eye(int(seen.max()) + 1)[told]
        weights = inverse @ (known - centre).T @ (one_hot - one_hot.mean(0))
        right &= (one_hot.mean(0) + (asked - centre) @ weights).argmax(1) == wanted
    return float(right.mean())


def arm_of(record: Record) -> tuple[str, int, int]:
    return record["game"], record["symbols"], record["members"]


def grouped(records: Sequence[Record]) -> dict[tuple[str, int, int], list[Record]]:
    """{(game, symbols, members): its runs by seed}, in the order of ARMS."""
    return arms_of(records, arm_of, [arm_of(arm) for arm in ARMS])


def related(records: Sequence[Record], of: Callable[[Record], float], within: bool) -> tuple[float, Any]:
    """Rank correlation of a number of the runs and of what they understand of held-out combinations, and its interval.

    Args:
        within: arms, so that what tells arms from each other does not count.
    """
    arms = [arm_of(record) for record in records] if within else None
    return correlation([of(record) for record in records], [record["held_out"] for record in records], arms)


def systematic(name: str) -> Callable[[Record], float]:
    """A measure of structure, turned where lower is more systematic."""
    return (lambda record: -record[name]) if STRUCTURE[name][1] else itemgetter(name)


def pooled(records: Sequence[Record], chosen: Callable[[Record], bool]) -> list[Record]:
    """One for each seed that has all arms: the mean of what chosen runs understand of held-out combinations."""
    by_seed = arms_of(records, itemgetter("seed"))
    whole = {seed: runs for seed, runs in by_seed.items() if len({arm_of(run) for run in runs}) == len(ARMS)}
    return [
        {"seed": seed, "held_out": float(np.mean([run["held_out"] for run in runs if chosen(run)]))}
        for seed, runs in whole.items()
    ]


def at_need(record: Record) -> bool:
    return bool(record["symbols"] == GAMES[record["game"]].symbols[0])


def claims(records: Sequence[Record]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    found: list[Claim] = []
    for (game, symbols, members), runs in grouped(records).items():
        if game == "2 x 10" and members == 1 and len(runs) > 1:
            values, guess = [run["held_out"] for run in runs], 1 / GAMES[game].meanings
            text = f"Pairs with {symbols} symbols understand held-out combinations of {game} (by chance {guess:g})"
            found.append(Claim(text, mean_shown(values, 3), mean_interval(values).low > guess))
    for text, first, second in (
        ("Populations understand more held-out combinations than pairs", lambda r: r["members"] > 1, None),
        ("With as many messages as meanings, more are understood than with symbols to spare", at_need, None),
    ):
        pair = pooled(records, first), pooled(records, second or (lambda r, first=first: not first(r)))
        found += outdone(f"{text} ({{seeds}} seeds)", *pair, itemgetter("held_out"), least=2)
    for name in STRUCTURE:
        rho, interval = related(records, systematic(name), within=True)
        if np.isfinite(rho):
            text = (
                f"Within arms, runs whose languages are more systematic ({name}) understand more ({len(records)} runs)"
            )
            found.append(Claim(text, f"{rho:+.2f} {interval.shown(2)}", interval.low > 0))
    return found


# ---- figure and page ----

COLOURS = {("2 x 10", 10): ORANGE, ("2 x 10", 50): BLUE, ("3 x 5", 5): VERMILLION, ("3 x 5", 25): GREEN}
MARKS = {1: "o", 5: "s"}


def named(arm: tuple[str, int, int]) -> str:
    game, symbols, members = arm
    return f"{game}, {symbols} symbols, {MEMBERS[members]}"


def _accuracies(axes: Axes, groups: Mapping[tuple[str, int, int], Sequence[Record]]) -> None:
    """Seen and held-out combinations, an arm a row, a run a point."""
    dress(axes, "Understood: seen (open) and held-out combinations", "share of meanings, all pairs", grid="x")
    for row, (arm, runs) in enumerate(groups.items()):
        colour, mark = COLOURS[arm[:2]], MARKS[arm[2]]
        for key, fill, up in (("seen", "none", 0.12), ("held_out", colour, -0.12)):
            values = [run[key] for run in runs]
            axes.scatter(values, [row - up] * len(values), s=30, marker=mark, facecolors=fill, edgecolors=colour)
            axes.plot([np.mean(values)] * 2, [row - up - 0.16, row - up + 0.16], color=INK, linewidth=1.6)
    axes.set_yticks(range(len(groups)), [named(arm) for arm in groups])
    axes.set_xlim(-0.04, 1.04)
    axes.invert_yaxis()


def draw(records: Sequence[Record]) -> Figure:
    """What is understood, arm by arm; and against structure, and against what an additive reader makes of it."""
    groups = grouped(records)
    figure = card(14, 5, "Structure of languages, and combinations that nobody was shown")
    first, *others = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    _accuracies(first, groups)
    for axes, (key, title) in zip(
        others, (("topsim", "topographic similarity"), ("read", "an additive reader's share")), strict=True
    ):
        dress(axes, f"Held out, against {title}", title, "share of held-out meanings", grid="both")
        for arm, runs in groups.items():
            x, y = ([run[name] for run in runs] for name in (key, "held_out"))
            axes.scatter(x, y, s=30, marker=MARKS[arm[2]], color=COLOURS[arm[:2]], alpha=0.75, label=named(arm))
        axes.set_ylim(-0.04, 1.04)
    others[1].plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    legend(others[0], loc="upper left", fontsize=7)
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    learned = [record for record in records if record["seen"] >= KNOWN]

    def shown(runs: Sequence[Record], key: str, digits: int = 2) -> str:
        return mean_shown([run[key] for run in runs], digits)

    def tied(of: Callable[[Record], float]) -> list[str]:
        """Over all runs, within arms, and within arms of those that have learned."""
        asked = ((records, False), (records, True), (learned, True))
        told = [related(runs, of, within) if runs else (float("nan"), None) for runs, within in asked]
        return [f"{rho:+.2f} {interval.shown(2)}" if np.isfinite(rho) else "-" for rho, interval in told]

    ties = {**{name: tied(systematic(name)) for name in STRUCTURE}, "additive reader": tied(itemgetter("read"))}
    return {
        "records": records, "groups": grouped(records), "claims": claims(records), "shown": shown, "ties": ties,
        "learned": learned, "known": KNOWN, "games": GAMES, "titles": MEMBERS, "structure": STRUCTURE,
        "held_out": HELD_OUT, "steps": records[0]["env_steps"],
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
