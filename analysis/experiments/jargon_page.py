"""The jargon experiment as a page: learning curves, tables with intervals, and what they say of c11np's claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from popcomm.analysis.experiments.intervals import Interval
from popcomm.analysis.experiments.jargon_measures import (
    AGREED,
    AT_END,
    KEPT,
    PLAIN,
    Record,
    Records,
    arms,
    claims,
    mean_interval,
    paired,
    value,
    wilson,
)

from popcomm.language.drawing import GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION, card, dress

PICTURE = "jargon.png"
COLOURS = {
    "no channel": MUTED,
    PLAIN: INK,
    "feedback": SKY,
    "+ repetition": ORANGE,
    "+ publishing": GREEN,
    "+ deprivation": PURPLE,
}
DASHES = {"fading": "--", "gated": ":"}
PANELS = {
    "reward": ("Reward (grey levels: scripted)", "per agent-step"),
    "agreement": ("Agreement", "share of members with the population's word"),
    "distinct": ("Different words for the kinds", "words"),
    "load": ("Load of the channel", "transmissions per world and step"),
}
LEVELS = {"forage": "forage", "watch": "watch", "hear": "heard once", "told": "told"}


def line(record: Record) -> str:
    """One run in one line."""
    formed = "no jargon" if record["formed"] is None else f"a jargon after {record['formed']:,} steps"
    return (
        f"{record['condition']}, seed {record['seed']}: {formed}, reward {_number(value(record, 'end.reward'))} "
        f"({_number(value(record, 'bare.reward'))} without reflexes), {record['seconds']:.0f} CPU s"
    )


def draw(records: Records) -> Figure:
    """Reward, agreement, distinct words and load over training: means over seeds, a line for each condition."""
    figure = card(11.5, 8.4, "As agents converge to a jargon")
    panels = figure.subplots(2, 2).ravel()
    for axes, (name, (title, unit)) in zip(panels, PANELS.items(), strict=True):
        dress(axes, title, "environment steps", unit)
        for condition, runs in arms(records).items():
            _curve(axes, runs, name, condition)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for name, label in LEVELS.items():
        level = float(np.mean([r["references"][name] for r in records]))
        panels[0].axhline(level, color=MUTED, linewidth=1, linestyle=(0, (1, 3)))
        panels[0].annotate(label, (1, level), xycoords=("axes fraction", "data"), fontsize=7, color=MUTED, va="center")
    panels[1].set_ylim(0, 1.05)
    panels[1].axhline(AGREED, color=MUTED, linewidth=1, linestyle=(0, (1, 3)))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncol=5, fontsize=8, frameon=False)
    return figure


def _curve(axes: Axes, runs: Records, name: str, condition: str) -> None:
    """The mean over seeds, where all were measured."""
    told = [(r["curves"]["env_steps"], r["curves"].get(name)) for r in runs]
    pairs = [np.array([(x, y) for x, y in zip(*t, strict=True) if y is not None], float) for t in told if t[1]]
    pairs = [p for p in pairs if len(p)]
    if not pairs:
        return
    grid = np.linspace(max(p[0, 0] for p in pairs), min(p[-1, 0] for p in pairs), 200)
    mean = np.mean([np.interp(grid, *p.T) for p in pairs], 0)
    stem, _, way = condition.partition(", ")
    axes.plot(grid, mean, color=COLOURS.get(stem, VERMILLION), linestyle=DASHES.get(way, "-"), label=condition)


def markdown(records: Records, command: str, versions: Mapping[str, str]) -> str:
    """The page; the picture lies beside it. command: what made all this."""
    by_arm = arms(records)
    kinds, steps = records[0]["kinds"], max(r["env_steps"] for r in records)
    seeds = sorted({r["seed"] for r in records})
    lines = [
        "# As agents converge to a jargon",
        "",
        f"Troops of agents without memory, each with weights of its own, live in `alarm_v0`: predators of {kinds} "
        "kinds come, few see which, and all should flee as fits it. They may warn one another in words, and the "
        "channel may have the reflexes of c11np, which agents do not control: immediate feedback, word repetition, "
        "artificial publishing and sensory deprivation; each row of the ladder adds one. *Fading*: schedules take "
        "them away by half of training. *Gated*: they go as a jargon comes. Written by",
        "",
        f"    {command}",
        "",
        f"{len(seeds)} seeds, {steps:,} environment steps a run, {sum(r['seconds'] for r in records) / 60:.0f} CPU "
        f"minutes for {len(records)} runs ({', '.join(f'{name} {v}' for name, v in versions.items())}).",
        "",
        f"![Reward, agreement, words and load over training]({PICTURE})",
        "",
        "Lines are means over seeds.",
        "",
        "## What c11np claims, and what was measured",
        "",
        *_claims(records),
        "",
        "Verdicts follow from the 95 % intervals (Student's t over seeds, paired by seed where two conditions are "
        "compared), which are not corrected for their number: *confirmed* if the whole interval is on the claimed "
        "side, *contradicted* if it is on the other, *not confirmed* otherwise. A claim of several parts needs all of "
        "them; a check only shows that a reflex does what it should. Not confirmed is not refuted: with few seeds only "
        "large effects show.",
        "",
        f"A *jargon* has formed when, for every one of the {kinds} kinds, at least {AGREED:g} of the members have the "
        f"population's word, and the kinds have different words, for {KEPT} iterations; where it is a number, it is "
        "the mean agreement times the share of kinds with a word of their "
        "own, since one word for everything is agreed on and says nothing. Runs in which none formed count with their "
        "whole length.",
        "",
        "## All conditions",
        "",
        *_conditions(by_arm),
        "",
        "Means over seeds with 95 % t intervals. *Formed*: runs in which a jargon formed, and Wilson's 95 % interval "
        f"of the probability. Scripted troops earn {_references(records)}.",
        "",
        "## What remains without reflexes",
        "",
        "After training all reflexes are taken away, and the same agents live on in new episodes.",
        "",
        *_bare(by_arm),
        "",
        f"## Against a plain channel ({PLAIN})",
        "",
        "Differences, the condition minus the plain channel with the same seed; 95 % paired t intervals.",
        "",
        *_against_plain(by_arm),
        "",
        "## The channel",
        "",
        f"Means over the last {AT_END:.0%} of training and over seeds.",
        "",
        *_channel(by_arm),
        "",
        "## What this is not",
        "",
        "One world, one network, one length of training, one rate of repetition and publishing. The settings were "
        "found in some twenty trials with seeds 1 to 3, nearly all with a plain channel: three kinds, because with "
        "four or more the population often called all by one word; a lexicon of 16 words, because bits or Reinforce "
        "learned too slowly for this length; no entropy bonus on words, because with one all talk all the time. "
        "Reflexes were not tuned. Words are learned through their hearers (straight-through). Intervals are not cut at "
        "0 and 1. "
        "Agreement is about what watchers say: hearers can also learn several words for a kind.",
    ]
    return "\n".join(lines) + "\n"


def _claims(records: Records) -> list[str]:
    lines: list[str] = []
    for claim in claims(records):
        lines += [f"### {claim.text}: {claim.verdict}", ""]
        rows = [list(part) for part in claim.parts]
        lines += [*_table(["compared", "measured", "verdict"], rows), ""] if rows else ["No run tells.", ""]
    return lines[:-1]


def _references(records: Records) -> str:
    found = records[0]["references"]
    words = {
        "forage": "by foraging always",
        "flee": "by one flight always",
        "watch": "where watchers flee and tell nobody",
        "hear": "where a word is heeded once",
        "told": "at most",
    }
    return ", ".join(f"{found[name]:.3f} {text}" for name, text in words.items())


def _conditions(by_arm: Mapping[str, Records]) -> list[str]:
    rows = []
    for name, runs in by_arm.items():
        formed, interval = wilson(runs)
        cells = [_mean(runs, f"end.{key}") for key in ("reward", "informed", "false_alarms", "agreement", "distinct")]
        share = f"{formed} of {len(runs)} [{interval.low:.2f}, {interval.high:.2f}]"
        rows.append([name, str(len(runs)), *cells, share, _time(runs)])
    header = ["condition", "seeds", "reward", "informed", "false alarms", "agreement", "words", "formed", "after steps"]
    return _table(header, rows)


def _time(runs: Records) -> str:
    """Mean step at which a jargon formed, of the runs in which one did."""
    found = [r["formed"] for r in runs if r["formed"] is not None]
    return f"{np.mean(found):,.0f}" if found else "-"


def _bare(by_arm: Mapping[str, Records]) -> list[str]:
    keys = ("reward", "informed", "false_alarms", "agreement", "distinct", "jargon")
    rows = [[name, *(_mean(runs, f"bare.{key}") for key in keys)] for name, runs in by_arm.items()]
    return _table(["condition", "reward", "informed", "false alarms", "agreement", "words", "jargon"], rows)


def _against_plain(by_arm: Mapping[str, Records]) -> list[str]:
    rows = []
    for name, runs in by_arm.items():
        if name == PLAIN:
            continue
        cells = []
        for key, digits in (("formed", 0), ("over_training", 3), ("end.reward", 3), ("bare.reward", 3)):
            told = paired(runs, by_arm.get(PLAIN, []), key)
            known = told is not None and not math.isnan(told.mean) and not (key == "formed" and name == "no channel")
            cells.append(f"{told.mean:+,.{digits}f} {told.paired.shown(digits)}" if told and known else "-")
        rows.append([name, *cells])
    return _table(["condition", "steps until formed", "jargon over training", "reward", "reward, no reflexes"], rows)


def _channel(by_arm: Mapping[str, Records]) -> list[str]:
    keys = {"load": 1, "words": 1, "drops": 2, "reproduction": 2, "lifetime": 2}
    rows = []
    for name, runs in by_arm.items():
        means = [(np.mean([value(r, f"end.{key}") for r in runs]), digits) for key, digits in keys.items()]
        rows.append([name, *(_number(float(mean), digits) for mean, digits in means)])
    header = ["condition", "load", "words alive", "drops", "reproduction number", "life of a word (steps)"]
    return _table(header, rows)


def _mean(runs: Records, key: str) -> str:
    values = [value(r, key) for r in runs]
    if any(math.isnan(v) for v in values):
        return "-"
    mean, interval = mean_interval(values)
    return f"{mean:.3f} {_shown(interval)}".strip()


def _shown(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"


def _number(number: float, digits: int = 3) -> str:
    return "-" if math.isnan(number) else f"{number:,.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
