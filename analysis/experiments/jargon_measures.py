"""What the jargon experiment is measured by: when a jargon formed, what outlives the reflexes, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from popcomm.analysis.experiments.intervals import Difference, Interval, paired
from popcomm.analysis.experiments.records import arms_of

AGREED, KEPT = 0.9, 5  # agreement, and for how many iterations
POINTS = 100  # of a stored curve
FADE_TO = 0.5  # share of training at which reflexes that fade are gone
AT_END = 0.1  # share of training whose mean is "at the end"
# Names in the records, and where progress.jsonl has them.
SERIES = {
    "reward": "charts/reward", "informed": "world/informed", "false_alarms": "world/false_alarms",
    "agreement": "language/agreement", "least": "language/agreement_least",
    "distinct": "language/distinct_modal_words", "load": "channel/load", "words": "channel/distinct_words",
    "drops": "channel/drops", "reproduction": "channel/reproduction", "lifetime": "channel/lifetime",
}  # fmt: skip

Record = Mapping[str, Any]
Records = Sequence[Record]


class Claim(NamedTuple):
    """A statement of c11np, what was measured of it, and what the intervals say."""

    text: str
    parts: tuple[tuple[str, str, str], ...]  # (what was compared, mean and interval, verdict)
    verdict: str


def jargon(agreement: float, distinct: float, kinds: int) -> float:
    """Agreement times the share of kinds with a word of their own: one word for everything is no jargon.

    >>> jargon(1.0, 1, 5), jargon(0.9, 5, 5)
    (0.2, 0.9)
    """
    return agreement * distinct / kinds


def check_measured(table: pd.DataFrame) -> None:
    """Raises ValueError if the progress of a run that talks lacks its agreement: it would count as none."""
    for name in ("agreement", "least", "distinct"):
        if SERIES[name] not in table or table[SERIES[name]].isna().all():
            raise ValueError(f"progress.jsonl has no {SERIES[name]}, and the run had a channel")


def formed_at(table: pd.DataFrame, kinds: int) -> int | None:
    """Environment steps at which a jargon was reached that lasted for KEPT iterations; None: it never was.

    There is a jargon in an iteration in which AGREED or more of the members agree on every kind's word, and all kinds
    have words of their own.
    """
    keys = (SERIES["least"], SERIES["distinct"])
    if not set(keys) <= set(table):
        return None
    there = ((table[keys[0]] >= AGREED) & (table[keys[1]] >= kinds)).to_numpy()
    if len(there) < KEPT:
        return None
    lasting = np.lib.stride_tricks.sliding_window_view(there, KEPT).all(1)
    return int(table["env_steps"].iloc[int(lasting.argmax())]) if lasting.any() else None


def curves(table: pd.DataFrame) -> dict[str, list[float | None]]:
    """{"env_steps" and the names of SERIES: at most POINTS means over equal parts of training}; None: not measured."""
    parts = np.array_split(np.arange(len(table)), min(POINTS, len(table)))
    columns = {"env_steps": "env_steps", **{name: key for name, key in SERIES.items() if key in table}}
    return {name: [finite(table[key].iloc[rows].mean()) for rows in parts] for name, key in columns.items()}


def at_end(table: pd.DataFrame) -> dict[str, float | None]:
    """Means over the last AT_END of training of all SERIES."""
    late = table[table["env_steps"] > (1 - AT_END) * table["env_steps"].max()]
    return {name: finite(late[key].mean()) if key in late else None for name, key in SERIES.items()}


def over_training(table: pd.DataFrame, kinds: int, first: float = 0.0, last: float = 1.0) -> float:
    """Mean of `jargon` over the iterations: high for one that forms early and stays; 0 without a channel.

    first, last: shares of training between which iterations count.
    """
    keys = (SERIES["agreement"], SERIES["distinct"])
    if not set(keys) <= set(table):
        return 0.0
    share = table["env_steps"] / table["env_steps"].max()
    told = (table[keys[0]] * table[keys[1]] / kinds)[(share > first) & (share <= last)].mean()  # where there were any
    return 0.0 if np.isnan(told) else float(told)


def finite(value: float) -> float | None:
    """None where it was not measured."""
    return float(value) if math.isfinite(value) else None


def arms(records: Records) -> dict[str, list[Record]]:
    """{condition: its runs by seed}, in the order in which conditions first appear."""
    return arms_of(records, lambda r: r["condition"])


def value(record: Record, key: str) -> float:
    """A number of a record: "over_training", "formed" or "end.informed", "bare.jargon"; nan where it is missing.

    "formed" is the step at which a jargon formed; runs in which none did count as their whole length, so differences
    of it are rather too small than too large.
    """
    if key == "formed":
        return float(record["env_steps"] if record["formed"] is None else record["formed"])
    part: Any = record
    for name in key.split("."):
        part = (part or {}).get(name)
    return float("nan") if part is None else float(part)


def apart(first: Records, second: Records, key: str, other: str | None = None) -> Difference | None:
    """Of `key`, first minus second (there of `other`), over the seeds that both have; None: there are none."""
    return paired(first, second, lambda r: value(r, key), lambda r: value(r, other or key))


def verdict(interval: Interval, level: float = 0.0, more: bool = True) -> str:
    """ "confirmed" if the whole interval is above the level (or below, where less was claimed), "contradicted" if all
    of it is on the other side, else "not confirmed"."""
    above, below = interval.low > level, interval.high < level
    if not above and not below:
        return "not confirmed"
    return "confirmed" if above == more else "contradicted"


def overall(verdicts: Sequence[str]) -> str:
    """Of several parts: all must be confirmed; one that is contradicted decides."""
    if not verdicts:
        return "not measured"
    for word in ("contradicted", "not measured", "not confirmed"):
        if word in verdicts:
            return word
    return "confirmed"


class Part(NamedTuple):
    """Something that is compared, seed by seed."""

    what: str
    arm: str
    against: str
    key: str
    more: bool = True  # whether more of it was claimed
    against_key: str | None = None  # of the other arm; None: the same
    margin: float = 0.0  # by how much it may be less, where more (or as much) was claimed
    counts: bool = True  # False: a check that the condition does what it should, on which no verdict hangs


PLAIN = "no reflexes"
FADED = ("+ repetition, fading", "+ publishing, fading", "+ deprivation, fading")
LOSS = 0.1  # of the jargon that still counts as remaining

OVER_TRAINING = "jargon, mean over training, with minus without"
LIFE = Part(
    "check: a word's life in steps, with repetition minus without", "+ repetition", "feedback", "end.lifetime",
    counts=False,
)  # fmt: skip


def _remains(arm: str) -> Part:
    text = f"{arm}: jargon at the end, no reflex left, minus just after the fade (not less by {LOSS:g})"
    return Part(text, arm, arm, "bare.jargon", against_key="after_fade", margin=LOSS)


def _beyond_plain(what: str, arm: str, key: str) -> Part:
    return Part(f"{what}, {arm} minus {PLAIN}", arm, PLAIN, key)


# What c11np says, and what is held against it.
STATEMENTS: dict[str, Sequence[Part]] = {
    "Immediate feedback speeds convergence": [
        _beyond_plain("env steps until a jargon forms", "feedback", "formed")._replace(more=False)
    ],
    "Repetition keeps words alive long enough for a jargon to form": [
        LIFE, Part(OVER_TRAINING, "+ repetition", "feedback", "over_training"),
    ],
    "Publishing helps: it seeds words": [Part(OVER_TRAINING, "+ publishing", "+ repetition", "over_training")],
    "Deprivation makes agents listen": [
        Part("informed at the end, all reflexes faded, trained with deprivation minus without",
             "+ deprivation, fading", "+ publishing, fading", "bare.informed"),
    ],
    "Reflexes raise reward while they act": [
        _beyond_plain("reward at the end", arm, "end.reward")
        for arm in ("feedback", "+ repetition", "+ publishing", "+ deprivation")
    ],
    "The jargon remains when reflexes fade": [_remains(arm) for arm in FADED],
    "What grew with reflexes is better than what grew without": [
        _beyond_plain("jargon at the end, no reflex left", arm, "bare.jargon")
        for arm in (*FADED, "+ deprivation, gated")
    ],
}  # fmt: skip


def claims(records: Records) -> list[Claim]:
    """All statements, with the verdicts that follow from the intervals."""
    by_arm = arms(records)
    found = []
    for text, parts in STATEMENTS.items():
        told = [_compared(by_arm, part) for part in parts]
        counted = [row[2] for row, part in zip(told, parts, strict=True) if part.counts]
        found.append(Claim(text, tuple(told), overall(counted)))
    return found


def _compared(by_arm: Mapping[str, Records], part: Part) -> tuple[str, str, str]:
    told = apart(by_arm.get(part.arm, []), by_arm.get(part.against, []), part.key, part.against_key)
    if told is None or math.isnan(told.mean):
        return part.what, "-", "not measured"
    digits = 0 if part.key == "formed" else 3
    return part.what, told.shown(digits), verdict(told.paired, -part.margin, part.more)
