"""The communication gap as a page: a figure, tables in Markdown, and the same numbers as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from popcomm.analysis.experiments.gap_measures import (
    PREDICTION,
    RECONSTRUCTION,
    RETURN,
    VOCABULARY,
    VOCABULARY_BELOW,
    WORLD_R2,
    Gap,
    claims,
)
from popcomm.analysis.experiments.intervals import mean_interval
from popcomm.analysis.experiments.swarm_controls import MEANINGS

from popcomm.language.drawing import BLUE, GREEN, MUTED, ORANGE, PURPLE, card, dress, legend

PICTURE = "communication_gap.png"
LOOKS = {"talking": (BLUE, "-"), "silent": (ORANGE, "--"), "noise": (PURPLE, "-.")}
SCRIPTED_DOTS = {"random": (0, (1, 3)), "alone": (0, (1, 1.5)), "told": (0, (5, 2))}
POINTS = 200  # of a mean curve
LEAST_R2 = -0.5  # R² has no lower end, and a young estimator is far below zero

Arms = Mapping[str, Sequence[pd.DataFrame]]


def draw(arms: Arms, scripted: Mapping[str, float]) -> Figure:
    """Four panels against environment steps: return, world model, losses, vocabulary. Thin lines are seeds.

    Args:
        arms: {"talking", "silent" and "noise": tables of progress}.
        scripted: mean returns of scripted swarms, drawn as levels.
    """
    figure = card(11, 7.6, "What messages are worth to a swarm")
    returns, r2, losses, vocabulary = figure.subplots(2, 2).ravel()
    steps = "environment steps"
    dress(returns, "Return (grey: swarms that do not learn)", steps, "return per agent and episode")
    dress(r2, f"What is known of the world's state (cut at {LEAST_R2})", steps, "R² of the world estimator")
    dress(losses, "Losses that ground the messages (talking)", steps, "mean squared error")
    dress(vocabulary, "Symbols in use", steps, "share of the vocabulary")
    for name, tables in arms.items():
        colour, dash = LOOKS[name]
        _curves(returns, tables, RETURN, name, colour, dash)
        _curves(r2, tables, WORLD_R2, name, colour, dash)
        _curves(vocabulary, tables, VOCABULARY, name, colour, dash)
    talking = arms["talking"]
    _curves(losses, talking, RECONSTRUCTION, "reconstruction (what the sender saw)", BLUE, "-")
    _curves(losses, talking, PREDICTION, "prediction (what comes next)", GREEN, "-.")
    for name, value in scripted.items():
        _level(returns, value, name, SCRIPTED_DOTS[name])
    _level(vocabulary, VOCABULARY_BELOW, f"{VOCABULARY_BELOW:.0%}", SCRIPTED_DOTS["alone"])
    r2.set_ylim(max(LEAST_R2, min(-0.1, r2.get_ylim()[0])), 1)
    losses.set_ylim(bottom=0)
    vocabulary.set_ylim(0, 1.05)
    for axes in (returns, r2, losses, vocabulary):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in (returns, r2, losses, vocabulary):
        legend(axes, loc="best")
    return figure


def _curves(axes: Axes, tables: Sequence[pd.DataFrame], key: str, label: str, colour: str, dash: str) -> None:
    """Each seed thin, their mean thick, where all of them were measured."""
    curves = [(t["env_steps"].to_numpy(float), t[key].to_numpy(float)) for t in (_measured(t, key) for t in tables)]
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return
    for x, y in curves:
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.4)
    grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), POINTS)
    mean = np.mean([np.interp(grid, x, y) for x, y in curves], 0)
    axes.plot(grid, mean, color=colour, linestyle=dash, linewidth=2.4, label=label)


def _measured(table: pd.DataFrame, key: str) -> pd.DataFrame:
    return table.dropna(subset=[key]) if key in table else table.iloc[:0].assign(**{key: np.nan})


def _level(axes: Axes, value: float, label: str, dash: Any) -> None:
    """A horizontal line, named beyond its right end, where no curve is."""
    axes.axhline(value, color=MUTED, linestyle=dash, linewidth=1.2)
    axes.annotate(
        label,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=MUTED,
    )


def markdown(gap: Gap, config: str, command: str, versions: Mapping[str, str]) -> str:
    """The page; the picture lies beside it. config: the talking swarm's; command: what made all this."""
    lines = [
        "# The communication gap",
        "",
        f"The config `{config}` in three ways, {len(gap.seeds)} seeds each, {gap.env_steps:,} environment steps per "
        "run: *talking* as it is; *silent*, with `communication.messages: null`; and *noise*, with "
        "`communication.noise: 1.0`: the same network and the same losses, and every symbol is replaced on the way by "
        "one drawn evenly. Written by",
        "",
        f"    {command}",
        "",
        f"![Learning curves]({PICTURE})",
        "",
        "Thin lines are seeds, thick lines their mean. Where the config staggers the worlds, the first episodes are "
        "cut short, so the first returns are small.",
        "",
        "## What was to be shown",
        "",
        *_table(
            ["claim", "measured", "holds"], [[c.text, c.measured, "yes" if c.holds else "**no**"] for c in claims(gap)]
        ),
        "",
        "Start: the first 5 % of training. End: the last 20 %. Numbers are means over seeds; intervals are t.",
        "",
        "Noise is the control that decides: silence takes away the messages, but also the parts of the network that "
        "speak and listen, and losses that shape the rest (the reconstruction of what a sender saw, the price of "
        "symbols), so that a difference to it may be theirs. Under noise all of these are there, and the only thing "
        "that lacks is what was said.",
        "",
        f"## Return at the end, per agent and full episode of {gap.episode} steps",
        "",
        *_returns(gap),
        "",
        *_table(["difference", *(f"talking minus {name}" for name in gap.gaps)], _differences(gap)),
        "",
        "Run s of all kinds has seed s. With few seeds the bootstrap is too narrow; go by the t intervals.",
        "",
        "For scale, swarms that do not learn:",
        "",
        *_table(
            ["swarm", "return", "what it does"],
            [[name, f"{v:.2f}", MEANINGS[name]] for name, v in gap.scripted.items()],
        ),
        "",
        "## What the messages hold",
        "",
        *_language(gap),
        "",
        "The R² is of an estimator that is supervised on the true state of the world during training, through the "
        "messages (`popcomm/agents/grounding.py`): it says how much of the state they carry, and is no sign that a "
        "language emerged by itself.",
        "",
        "A symbol is used if it is said at least a tenth as often as by chance (1 / V), before any noise. The "
        "effective vocabulary is 2 to the entropy of the symbols, over V.",
        "",
        f"A run took {gap.minutes['talking']:.1f} minutes talking, {gap.minutes['silent']:.1f} silent and "
        f"{gap.minutes['noise']:.1f} with noise. " + ", ".join(f"{name} {v}" for name, v in versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _returns(gap: Gap) -> list[str]:
    columns = {name: (np.array(values), ".2f", "") for name, values in gap.returns.items()}
    talking = columns["talking"][0]
    columns |= {f"talking minus {name}": (talking - columns[name][0], "+.2f", "+") for name in gap.gaps}
    rows = [
        [f"seed {seed}", *(f"{values[at]:{digits}}" for values, digits, _ in columns.values())]
        for at, seed in enumerate(gap.seeds)
    ]
    rows.append(["**mean**", *(f"**{values.mean():{digits}}**" for values, digits, _ in columns.values())])
    rows.append(["95 %", *(mean_interval(values).shown(2, sign) for values, _, sign in columns.values())])
    return _table(["", *columns], rows)


def _differences(gap: Gap) -> list[list[str]]:
    names = {
        "paired": "t, paired by seed, 95 %",
        "unpaired": "t (Welch), 95 %",
        "bootstrap": "bootstrap of pairs, 95 %",
    }
    rows = [["mean", *(f"{found.mean:+.2f}" for found in gap.gaps.values())]]
    for key, name in names.items():
        rows.append([name, *(getattr(found, key).shown(2) for found in gap.gaps.values())])
    return rows


def _language(gap: Gap) -> list[str]:
    header = ["", *(f"seed {seed}" for seed in gap.seeds), "mean"]
    rows = {
        "world estimator R², talking": gap.world_r2["talking"],
        "world estimator R², silent": gap.world_r2["silent"],
        "world estimator R², noise": gap.world_r2["noise"],
        "reconstruction loss, start": gap.reconstruction["first"],
        "reconstruction loss, end": gap.reconstruction["last"],
        "prediction loss, start": gap.prediction["first"],
        "prediction loss, end": gap.prediction["last"],
        "vocabulary used, start": gap.vocabulary["first"],
        "vocabulary used, end": gap.vocabulary["last"],
        "vocabulary used, end, noise": gap.vocabulary_noise,
        "effective vocabulary, start": gap.effective["first"],
        "effective vocabulary, end": gap.effective["last"],
        "bits of a symbol on what its sender saw, end": gap.information,
    }
    return _table(
        header,
        [[name, *(_number(value) for value in [*values, np.mean(values)])] for name, values in rows.items()],
    )


def _number(value: float) -> str:
    """A dash where it was not measured."""
    return f"{value:.3f}" if math.isfinite(value) else "—"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def as_json(gap: Gap, command: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Everything, with null for what was not measured."""
    content = {**gap._asdict(), "gaps": {name: _spelled(found) for name, found in gap.gaps.items()}}
    content["claims"] = [claim._asdict() for claim in claims(gap)]
    return _plain({"command": command, "versions": dict(versions), **content})


def _spelled(difference: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in difference._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
