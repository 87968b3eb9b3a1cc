"""The sections that one can look into: conversations, single symbols, exchanges, two agents side by side.

What they show is in the page as data (`conversation.browsed`), and their scripts are in templates. Without scripts a
table stands in their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from popcomm.analysis import members
from popcomm.analysis.conversation import browsed
from popcomm.analysis.exchanges import exchanges
from popcomm.analysis.page import Section, Table
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import closer, counted, missing, no_talk

POINTS = 200  # of a curve
SHOWN = 20  # rows of a table that stands in the place of a picture
NAMES = ("curves", "conversation", "symbol", "exchanges", "pair")
NO_MEASURE = ("iteration", "env_steps", "agent_steps", "time_s")


def sections(run: RunFolder, data: dict[str, Any]) -> list[Section]:
    """All for which the run has something. `data` is what `data_of` gives of it."""
    made = (
        curves(run, data["curves"]),
        conversation(run, data["talk"]),
        symbol(data["talk"]),
        exchanges(run),
        pair(run, data["talk"]),
    )
    return [section for section in made if section is not None]


def data_of(run: RunFolder, over_training: bool = True) -> dict[str, Any]:
    """What the scripts of a page draw.

    Args:
        over_training: the history of symbols too, for which all conversations are read.
    """
    data = {"curves": curves_of(run), "talk": browsed(run.talk)}
    return data | ({"symbols": symbols_of(run)} if over_training else {})


def curves_of(run: RunFolder) -> dict[str, Any]:
    """{"x": its name, "measures": {key: [{"label", "x", "y"}]}} of all that was measured twice at least."""
    measures = {}
    for key in run.progress:
        values = run.measured(key)
        if key in NO_MEASURE or len(values) < 2:
            continue
        values = values.iloc[np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int)]
        steps = run.progress["env_steps"].reindex(values.index) if "env_steps" in run.progress else values.index
        measures[str(key)] = [{"label": "", "x": [float(at) for at in steps], "y": heights(values)}]
    return {"x": "environment steps", "measures": dict(sorted(measures.items()))}


def heights(values: Iterable[float]) -> list[float | None]:
    """Of a curve, with four digits; null for what is no number."""
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def symbols_of(run: RunFolder) -> dict[str, Any]:
    """{"env_steps": [C], "totals": [C], "counts": {symbol: [C]}} of the checkpoints of `history`."""
    history = run.history
    if not len(history.symbols):
        return {"env_steps": [], "totals": [], "counts": {}}
    size, checkpoints = int(history.symbols.max()) + 1, len(history.env_steps)
    said = history.symbols >= 0
    codes = (history.checkpoint[:, None] * size + history.symbols)[said]
    table = np.bincount(codes, minlength=checkpoints * size).reshape(checkpoints, size)
    return {
        "env_steps": history.env_steps.tolist(),
        "totals": table.sum(1).tolist(),
        "counts": {str(which): table[:, which].tolist() for which in np.flatnonzero(table.any(0))},
    }


def curves(run: RunFolder, drawn: dict[str, Any]) -> Section | None:
    keys = drawn["measures"]
    if not keys:
        return None
    rows = [(key, f"{run.first(key):.3g}", f"{run.last(key):.3g}", f"{len(run.measured(key)):,}") for key in keys]
    table = Table("All measures", ("measure", "first tenth", "last tenth", "times measured"), rows)
    return closer("curves", [], table, widget="curves")


def conversation(run: RunFolder, talk: dict[str, Any]) -> Section:
    if not talk["episodes"]:
        return missing("conversation", no_talk(run))
    read, episodes = talk["read"], talk["episodes"]
    findings = [f"{counted(len(episodes), 'episode')} and {counted(len(talk['rows']['step']), 'agent step')} are here."]
    if talk["cut"]:
        findings.append("What came before is in the folder conversations of the run.")
    if read is not None:
        findings.append(
            f"By {read['by']}, {read['right']:.0%} of the {read['labelled']:,} messages of speakers that saw something "
            f"with a label are read as it; the commonest label alone would be right for {read['commonest']:.0%}."
        )
    elif run.talk.symbols is not None:
        findings.append("What speakers saw has fewer than two labels, so that messages cannot be read.")
    return closer("conversation", findings, _last_step(talk), widget="conversation")


def _last_step(talk: dict[str, Any]) -> Table:
    rows, newest = talk["rows"], talk["episodes"][0]
    last = rows["step"][newest["stop"] - 1]
    there = [i for i in range(newest["start"], newest["stop"]) if rows["step"][i] == last][:SHOWN]
    cells = [
        (
            _named(talk, i), _seen(rows["label"][i]), _said(rows["said"][i]), _reading(rows["reading"][i]),
            _said(rows["did"][i]), ", ".join(map(str, rows["heard"][i])) or "nobody",
        )
        for i in there
    ]  # fmt: skip
    caption = f"The last step recorded: world {newest['world']}, episode {newest['episode']}, step {last}"
    return Table(caption, ("speaker", "saw", "said", "read as", "did", "heard by seats"), cells)


def _named(talk: dict[str, Any], row: int) -> str:
    seat, name = talk["rows"]["seat"][row], talk["agents"][talk["rows"]["agent"][row]]
    return f"member {name} on seat {seat}" if talk["who"] == "member" else f"seat {name}"


def _seen(label: int) -> str:
    return "nothing with a label" if label < 0 else f"label {label}"


def _said(values: list[Any] | None) -> str:
    return "nothing" if values is None else " ".join(map(str, values))


def _reading(reading: list[Any] | None) -> str:
    return "" if reading is None else f"label {reading[0]} ({reading[1]:.0%} of {reading[2]})"


def symbol(talk: dict[str, Any]) -> Section | None:
    frame = _symbol_frame(talk)
    if frame.empty:
        return None
    total = len(frame)
    rows = []
    for which, own in sorted(frame.groupby("symbol"), key=lambda item: (-len(item[1]), item[0]))[:SHOWN]:
        labels = own.loc[own["label"] >= 0, "label"].value_counts()
        goes = f"label {labels.index[0]} ({labels.iloc[0] / labels.sum():.0%} of {labels.sum()})" if len(labels) else ""
        sayer = own["agent"].value_counts()
        rows.append((str(which), f"{len(own):,}", f"{len(own) / total:.1%}", goes, talk["agents"][sayer.index[0]]))
    columns = ("symbol", "times", "share of all", "goes with most", f"{talk['who']} that says it most")
    return closer("symbol", [], Table("The commonest symbols", columns, rows), widget="symbol")


def _symbol_frame(talk: dict[str, Any]) -> pd.DataFrame:
    """A row for each symbol that was said: symbol, label, agent. Empty where nothing is said in symbols."""
    rows = talk["rows"]
    symbolic = (
        (i, symbol)
        for i, said in enumerate(rows["said"])
        if said is not None and all(isinstance(part, int) and part >= 0 for part in said)
        for symbol in said
    )
    table = np.array(list(symbolic), np.int64).reshape(-1, 2)
    frame = pd.DataFrame({"symbol": table[:, 1]})
    return frame.assign(**{name: np.array(rows[name], np.int64)[table[:, 0]] for name in ("label", "agent")})


def pair(run: RunFolder, talk: dict[str, Any]) -> Section | None:
    frame = _symbol_frame(talk)
    if frame["agent"].nunique() < 2:
        return None
    rewards = pd.DataFrame({name: talk["rows"][name] for name in ("agent", "reward")}).groupby("agent")["reward"].mean()
    rows = []
    for agent, own in list(frame.groupby("agent"))[:SHOWN]:
        common = own["symbol"].value_counts()
        most = f"{common.index[0]} ({common.iloc[0] / len(own):.0%})"
        rows.append((talk["agents"][agent], f"{len(own):,}", str(len(common)), most, f"{rewards[agent]:.3g}"))
    columns = (talk["who"], "symbols said", "different ones", "commonest", "reward per step")
    why_not = members.incomparable(run.talk)
    findings = [f"{why_not} So differences below are not for that a way of speaking of their own."] if why_not else []
    return closer("pair", findings, Table("One by one", columns, rows), widget="pair")
