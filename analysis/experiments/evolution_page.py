"""The evolution of vocabularies as a page: a figure, tables in Markdown, and the same numbers as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter
from popcomm.analysis.experiments.evolution_games import COPIES, ROUNDS, VOCABULARY
from popcomm.analysis.experiments.evolution_measures import (
    BOUNDS,
    CLAIM,
    ON_MEANING,
    OVERALL,
    RENAMED,
    WHOLE,
    WON,
    Curve,
    settled_by,
)
from popcomm.analysis.experiments.intervals import difference

from popcomm.language.drawing import BLUE, CARD, GREEN, MUTED, ORANGE, PURPLE, VERMILLION, card, dress, legend
from popcomm.language.drift import SETTLED

PICTURE = "vocabulary_evolution.png"
SWARM = "swarm"
# Arms in the order of the page: name, colour, dash.
LOOKS = {
    "pair, bonus": (BLUE, "-"),
    "pair, no bonus": (ORANGE, "--"),
    "five and five, bonus": (GREEN, "-."),
    SWARM: (PURPLE, "-"),
}
Arms = Mapping[str, Sequence[Curve]]


def draw(arms: Arms) -> Figure:
    """Four panels against episodes (log): names, meanings, distance from the end, the swarm. Thin lines are seeds."""
    figure = card(11, 8, "How vocabularies change over training")
    names, meaning, last, swarm = figure.subplots(2, 2).ravel()
    games, bits = "games played, one message each", "bits above chance, 0 to 1"
    dress(names, "Referential games: meanings renamed at the next checkpoint", games, "share of the meanings")
    dress(meaning, "Referential games: drift of what is said on a meaning", games, bits)
    dress(last, "Referential games: meanings named otherwise than in the end", games, "share of the meanings")
    dress(swarm, "Swarm: drift of symbols to the next checkpoint", "episodes of 100 steps", bits)
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
    _marks(names, BOUNDS[RENAMED], in_games, "lower left")
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
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if bound is not None:
        axes.axhline(bound, color=VERMILLION, linestyle=":", linewidth=1.3, label=f"bound, {bound:g}")
    for name, episodes in claims.items():
        axes.axvline(episodes, color=MUTED, linestyle=(0, (1, 3)), linewidth=1.3)
        axes.annotate(
            name,
            (episodes, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -3),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
            color=MUTED,
        )
    if where == "upper center":
        axes.set_ylim(top=1.4 * axes.get_ylim()[1])
    axes.set_xlim(right=max(axes.get_xlim()[1], 1.8 * max(claims.values())))
    legend(axes, loc=where, frameon=True, facecolor=CARD, edgecolor="none", framealpha=0.9)


def markdown(arms: Arms, commands: Sequence[str], versions: Mapping[str, str]) -> str:
    """The page; the picture lies beside it. commands: what made all this."""
    games = {arm: curves for arm, curves in arms.items() if arm != SWARM and curves}
    lines = [
        "# Does a vocabulary settle?",
        "",
        f"The original work says that the vocabulary of a population stabilises after about {CLAIM:,} episodes. Here "
        "vocabularies are looked at over training, in referential games and in the swarm. Written by",
        "",
        *(f"    {command}" for command in commands),
        "",
        f"![Drift against episodes]({PICTURE})",
        "",
        "Thin lines are seeds, thick lines their mean; a dot is where a game was won (accuracy stays above "
        f"{WON:.0%}). Each checkpoint is about 1.4 times later than the one before.",
        "",
        "## The answer",
        "",
        *_answer(games, arms.get(SWARM, ())),
        "",
        "## How it is measured",
        "",
        METHOD.rstrip(),
        "",
        *(["## Referential games", "", *_games(games), "", *_bonus(games)] if games else ()),
        *(["## The swarm", "", *_swarm(arms[SWARM]), ""] if SWARM in arms else ()),
        "## Limits",
        "",
        LIMITS.rstrip(),
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


METHOD = f"""\
- *Renamed*: the share of the 100 meanings whose likeliest message (the greedy one, by `cross_play`) is another at the
  next checkpoint. Settled: under {BOUNDS[RENAMED]:.0%} from there on.
- *On the same meaning*: the Jensen-Shannon divergence (bits; 0 the same, 1 nothing in common) of {COPIES} messages
  drawn on each meaning; in the swarm of each position's symbols on the same label (the cell in which the sender sees
  the beacon), averaged over positions. The mean over meanings, weighted with how often they occur.
- Where a meaning has several messages, as the bonus pays for, the likeliest can change while those drawn hardly do: the
  first measure is the stricter one.
- *All that is said*: the same without regard to meaning. It cannot see a language whose words swap their meanings, and
  it also moves when there is something else to talk about.
- Divergences are above chance: less the mean divergence when the messages of both checkpoints are dealt anew at random.
  Settled: under {SETTLED} bits from there on. Both bounds are conventions, set before these runs.
- Games: `referential_v0`, 2 attributes of 10 values, {VOCABULARY} symbols, messages of 2; `gru` agents, the
  straight-through gradient, listeners learn from the answers. With the bonus, `message_entropy_coeff` is 0.1, and
  without it 0. Five and five are partners at random.
- The swarm is the config `swarm`. Its messages go into windows of 50 steps (127 episodes) by when they were said, each
  message once.
"""
LIMITS = f"""\
- *Settled* is about steps of a factor of 1.4 in time, up to the end of training: a longer run may move again, and one
  quiet last step is enough to count.
- The unit of the original's 10,000 episodes is not known here: a game is one message, an episode of the games'
  environment {ROUNDS} of them, and an episode of the swarm 1,000 (10 agents, 100 steps).
- The swarm's runs end at about 1,100 episodes, a ninth of the claim: they can show that a vocabulary is settled
  before, but not that it stays so up to 10,000, or settles only then.
- One learning rate and one batch size, without decay. How fast names drift without need depends on them: with a
  learning rate that falls to zero any language settles.
- Few seeds, so wide intervals.
"""


def _verdict(games: Arms) -> str:
    """The claim against all runs of the games."""
    runs = [c for curves in games.values() for c in curves]
    early = [float(c.accuracy[np.searchsorted(c.episodes, CLAIM)]) for c in runs if c.accuracy is not None]
    by = {n: settled_by(runs, RENAMED, n) for n in (CLAIM, CLAIM * ROUNDS, math.inf)}
    told = "The claim is not confirmed in any run. " if not by[CLAIM * ROUNDS] else ""
    return (
        f"{told}Of {len(runs)} runs of the games, {by[CLAIM]} had settled by {CLAIM:,} games, {by[CLAIM * ROUNDS]} by "
        f"{CLAIM:,} episodes of {ROUNDS} games, and {by[math.inf]} by the end (by names; on the same meaning "
        f"{settled_by(runs, ON_MEANING, math.inf)}). After {CLAIM:,} games accuracy is {_spread(early, '.2f')}: with "
        "one game as an episode, the claim is about a time when there is nothing yet that could be stable."
    )


def _answer(games: Arms, swarm: Sequence[Curve]) -> list[str]:
    lines = [_verdict(games), ""] if games else []
    for arm, curves in games.items():
        early = [settled_by(curves, RENAMED, episodes) for episodes in (CLAIM, CLAIM * ROUNDS)]
        lines.append(
            f"- **{arm}** ({len(curves)} seeds, {min(c.episodes[-1] for c in curves):,.0f} games): "
            f"{_settlement(curves, RENAMED)}; {_settlement(curves, ON_MEANING)}. "
            f"Of the names with which the game was won, {_spread([c.kept() for c in curves], '.0%')} are the same at "
            f"the end. Names had settled by {CLAIM:,} games in {early[0]} of {len(curves)}, and by {CLAIM:,} episodes "
            f"of {ROUNDS} games in {early[1]}."
        )
    if swarm:
        lines.append(
            f"- **swarm** ({len(swarm)} seeds, {min(c.episodes[-1] for c in swarm):,.0f} episodes): "
            f"{_settlement(swarm, ON_MEANING)}; {_settlement(swarm, OVERALL)}. Nothing is known of {CLAIM:,} episodes."
        )
    return lines


def _settlement(curves: Sequence[Curve], measure: str) -> str:
    since = [s for c in curves if (s := c.settled(measure)) is not None]
    end = _spread([c.at_end(measure) for c in curves], ".0%" if measure == RENAMED else ".3f")
    unit = "" if measure == RENAMED else " bits"
    when = f", from {_spread(since, ',.0f')} on" if since else ""
    return f"*{measure}* settles in {len(since)} of {len(curves)}{when} (last step: {end}{unit})"


def _spread(values: Sequence[float], form: str) -> str:
    """The values of all seeds, or their range."""
    known = [v for v in values if math.isfinite(v)]
    if not known:
        return "(none)"
    low, high = (format(v, form) for v in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


def _games(games: Arms) -> list[str]:
    header = [
        "", "seed", "accuracy at the end", "won at (games)", "names kept since", "renamed, last step",
        "on the same meaning, last step", "all that is said, last step", "settled: renamed",
        "settled: on the same meaning",
    ]  # fmt: skip
    rows = []
    for arm, curves in games.items():
        for c in curves:
            assert c.accuracy is not None
            ends = [f"{c.at_end(m):{form}}" for m, form in ((RENAMED, ".0%"), (ON_MEANING, ".3f"), (OVERALL, ".3f"))]
            kept = f"{c.kept():.0%}" if math.isfinite(c.kept()) else ""
            since = [_when(c.settled(m)) for m in (RENAMED, ON_MEANING)]
            rows.append([arm, str(c.seed), f"{c.accuracy[-1]:.3f}", _when(c.won), kept, *ends, *since])
    return _table(header, rows)


def _bonus(games: Arms) -> list[str]:
    """The difference that the entropy bonus makes, paired by seed."""
    on, off = games.get("pair, bonus", ()), games.get("pair, no bonus", ())
    pairs = [(a, b) for a in on for b in off if a.seed == b.seed]
    rows = []
    for name, digits, of in (
        ("meanings renamed, last step (share)", 2, lambda c: c.at_end(RENAMED)),
        ("drift on the same meaning, last step (bits)", 3, lambda c: c.at_end(ON_MEANING)),
        ("names kept since the game was won (share)", 2, lambda c: c.kept()),
    ):
        known = [both for a, b in pairs if np.isfinite(both := (of(a), of(b))).all()]
        if len(known) >= 2:
            found = difference(*zip(*known, strict=True))
            rows.append([name, str(len(known)), f"{found.mean:+.{digits}f}", found.paired.shown(digits)])
    if not rows:
        return []
    told = "What the bonus changes in pairs (Student's t, paired by seed):"
    return [told, "", *_table(["with the bonus minus without", "seeds", "mean", "95 %"], rows), ""]


def _swarm(curves: Sequence[Curve]) -> list[str]:
    header = [
        "seed", "episodes", "on the same label: first step", "last step", "all that is said: first step", "last step",
        "settled: same label", "settled: all", "whole messages, last step (by chance)",
    ]  # fmt: skip
    rows = []
    for c in curves:
        label, said = (c.measures[m].consecutive_above_chance for m in (ON_MEANING, OVERALL))
        whole = c.measures[WHOLE]
        rows.append(
            [str(c.seed), f"{c.episodes[-1]:,.0f}", *(f"{v:.3f}" for v in (label[0], label[-1], said[0], said[-1]))]
            + [_when(c.settled(m)) for m in (ON_MEANING, OVERALL)]
            + [f"{whole.consecutive[-1]:.3f} ({whole.consecutive_chance[-1]:.3f})"]
        )
    note = (
        "There are so many whole messages (5 symbols out of 64) that most of their divergence is that of chance, in "
        "brackets; symbols by position say more."
    )
    return [*_table(header, rows), "", note]


def _when(episodes: float | None) -> str:
    return "never" if episodes is None else f"{episodes:,.0f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def as_json(arms: Arms, commands: Sequence[str], versions: Mapping[str, str]) -> dict[str, Any]:
    """Everything, with null for what does not exist."""
    runs = {arm: [_run(curve) for curve in curves] for arm, curves in arms.items()}
    return _plain(
        {"commands": list(commands), "versions": dict(versions), "claim": CLAIM, "bounds": BOUNDS, "runs": runs}
    )


def _run(curve: Curve) -> dict[str, Any]:
    settled = {
        m: {"to_next": curve.settled(m), "to_last": curve.settled(m, True)} for m in curve.measures if m in BOUNDS
    }
    measures = {name: found._asdict() for name, found in curve.measures.items()}
    return {**curve._asdict(), "measures": measures, "won": curve.won, "settled": settled}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
