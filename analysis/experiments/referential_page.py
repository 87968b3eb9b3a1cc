"""The table of the reconstruction game, beside EGG's figures, its learning curves, and what they do and do not say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from popcomm.language.drawing import BLUE, GREEN, ORANGE, card, dress, legend, png

if TYPE_CHECKING:
    from popcomm.analysis.experiments.referential import Outcome

PAIR, POPULATION = "pair, straight-through", "population 5 x 5, straight-through"
LARGE = "population 10 x 10, straight-through"
STYLES = {"pair": (BLUE, "-"), "population 5": (ORANGE, "--"), "population 10": (GREEN, "-.")}


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


def line(outcome: Outcome) -> str:
    """One run in one line."""
    return (
        f"{outcome.case}, seed {outcome.seed}: accuracy {outcome.mean:.3f} (worst pair {outcome.least:.2f}), "
        f"{outcome.messages:,} messages in {outcome.cpu_seconds:.1f} CPU s, {outcome.rate:,.0f} a second"
    )


def write(folder: Path, cases: Sequence[str], done: Sequence[Outcome], command: str) -> None:
    """referential.md, .png and .json into the folder."""
    groups = {case: [o for o in done if o.case == case] for case in cases}
    groups = {case: runs for case, runs in groups.items() if runs}
    (folder / "referential.md").write_text(markdown(groups, command), encoding="utf-8")
    (folder / "referential.png").write_bytes(png(draw(groups)))
    (folder / "referential.json").write_text(json.dumps([asdict(o) for o in done], indent=1) + "\n")


def markdown(groups: dict[str, list[Outcome]], command: str) -> str:
    """The page; groups: {case: its runs, one for each seed}."""
    rows = [_row(case, runs) for case, runs in groups.items()]
    bars = [line for case, runs in groups.items() for line in _bars(case, runs)] + _time(groups)
    versions = ", ".join(f"{name} {version(name)}" for name in ("popcomm", "ray", "torch"))
    return "\n".join(
        [
            "# The reconstruction game, beside EGG",
            "",
            "A speaker sees a meaning of two attributes with ten values each and says two symbols out of 50; a "
            "listener names both attributes. Speaker and listener are EGG's: a GRU of width 128, embeddings of 32. In "
            "a population every message goes from a member drawn at random to another drawn at random (partner "
            "sampling), and all pairs of a batch learn in one step. Written by",
            "",
            f"    {command}",
            "",
            f"with {versions}. Each run has the same budget of messages; rates count CPU seconds of the one process, "
            "one thread, sampling and learning together.",
            "",
            "| game | seeds | accuracy of all pairs | worst pair | attributes | messages / CPU s | EGG: accuracy | "
            "EGG: messages / s |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Accuracy is the share of the 100 meanings whose two attributes are both understood, speaker and listener "
            "taking their likeliest choice: mean over pairs and seeds, and in brackets the lowest and highest seed. By "
            "chance it is .01. As in EGG's figures the meanings are those of training: this is success of "
            "communication, not generalisation. The EGG figures were measured on another machine, so the rates beside "
            "them compare machines too.",
            "",
            "## Bars",
            "",
            "| bar | measured | |",
            "| --- | --- | --- |",
            *bars,
            "",
            "![Learning curves](referential.png)",
            "",
            "## What differs from EGG's game",
            "",
            "- Messages have exactly two symbols and no end symbol. The vocabulary of 50 leaves room: with ten "
            "symbols, where only a perfect code names all meanings, a bare straight-through loop stopped at .65.",
            "- The straight-through gradient is that of the softmax at the symbols that were sampled; there is no "
            "temperature to anneal. An entropy bonus on messages keeps symbols in play.",
            "- Under Reinforce the speaker's reward is what EGG uses too, the listener's log-probability of the right "
            "answer, with a learned baseline, PPO's clipped ratio and one pass over each batch.",
            "- Reinforce in populations is sensitive to the age of its samples: with ten updates for each "
            "batch (pairs have eight) the cross-play accuracy was .47 to .63 over three seeds, and .76 in one run at a "
            "step size of 5e-3; with two, as here, it is what the table says.",
            "- EGG's populations train one pair per batch. Here all members learn from every batch, each from its own "
            "share, so a population of 25 pairs makes as many gradient steps as a single pair.",
            "",
        ]
    )


def _row(case: str, runs: Sequence[Outcome]) -> str:
    means = [o.mean for o in runs]
    peer = PEERS.get(case)
    theirs = (peer.accuracy, f"{peer.rate:,}" if peer.rate else "") if peer else ("", "")
    cells = (
        case,
        str(len(runs)),
        f"{mean(means):.3f} ({min(means):.2f} to {max(means):.2f})",
        f"{min(o.least for o in runs):.2f}",
        f"{mean(o.attributes for o in runs):.3f}",
        f"{np.median([o.rate for o in runs]):,.0f}",
        *theirs,
    )
    return f"| {' | '.join(cells)} |"


def _bars(case: str, runs: Sequence[Outcome]) -> list[str]:
    peer = PEERS.get(case)
    if peer is None:
        return []
    lowest = min(o.mean for o in runs)
    lines = [_bar(f"{case}: accuracy of every seed", lowest, peer.accuracy_bar, ".3f")]
    if case.startswith("population"):
        lines.append(_bar(f"{case}: worst pair of every seed", min(o.least for o in runs), peer.least_bar or 0, ".2f"))
    if peer.rate_bar:
        rate = float(np.median([o.rate for o in runs]))
        lines.append(_bar(f"{case}: messages / CPU s, twice EGG's", rate, peer.rate_bar, ",.0f"))
    return lines


def _bar(what: str, value: float, bar: float, form: str) -> str:
    return f"| {what} >= {bar:{form}} | {value:{form}} | {'met' if value >= bar else '**missed**'} |"


def _time(groups: dict[str, list[Outcome]]) -> list[str]:
    """Whether ten by ten members take at most twice the time of five by five."""
    if POPULATION not in groups or LARGE not in groups:
        return []
    small, large = (float(np.median([o.cpu_seconds for o in groups[name]])) for name in (POPULATION, LARGE))
    verdict = "met" if large <= 2 * small else "**missed**"
    return [f"| 10 x 10: CPU time of 5 x 5, times <= 2 | {large / small:.2f} | {verdict} |"]


def draw(groups: dict[str, list[Outcome]]) -> Figure:
    """Accuracy in training against messages, a thin line for each run; straight-through beside Reinforce."""
    figure = card(11, 4.2, "The reconstruction game: accuracy while learning")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, way in zip(panels, ("straight-through", "Reinforce"), strict=True):
        dress(axes, way, "messages", "accuracy (sampled words and answers)")
        for case, runs in groups.items():
            if not case.endswith(way):
                continue
            colour, dash = next(look for start, look in STYLES.items() if case.startswith(start))
            for number, outcome in enumerate(runs):
                x, y = np.array(outcome.curve, float).T
                label = case.split(",")[0] if number == 0 else None
                axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.4, alpha=0.8, label=label)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        legend(axes, loc="upper left")
    return figure
