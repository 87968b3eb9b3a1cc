"""The newest episodes as plain lists, for the pictures of a page that can be looked into: who said what to whom."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray
from popcomm.analysis.readings import Readings, readings
from popcomm.analysis.run_folder import Conversations

from popcomm.language.recording import padded

Array = NDArray[Any]

MOST_ROWS = 4_000  # agents' steps in a page: about a megabyte
MOST_NUMBERS = 12  # of an observation, an action or a vector; how many more there are is said
DIGITS = 3


def browsed(talk: Conversations, most: int = MOST_ROWS) -> dict[str, Any]:
    """The newest episodes of a conversation, those who only listen included, as JSON takes it.

    Returns:
        who: "member" or "seat", what agents are.
        agents: A names.
        read: the measures of the readings; None: there is nothing to read.
        cut: whether the oldest episode that is here lacks its beginning.
        episodes: {world, episode, iteration, start, stop} each, the newest first; rows start ... stop - 1 are its.
        rows: {column: R values}: step, seat, agent, label (-1 nothing), reward; said (numbers, null: silent);
            seen and did (numbers); heard (seats that heard it a step later), weights (their attention, or null), then
            (the row of each of these a step later, -1: not recorded); reading ([label, share, times], or null).
    """
    everyone = talk.everyone
    order, episodes, cut = _newest(everyone, most)
    read = _readings(everyone)
    agent, names = everyone.agents
    columns = {name: _plain(everyone.column(name)[order]) for name in ("step", "reward")}
    columns |= {"seat": _plain(everyone.column("sender")[order]), "agent": _plain(agent[order])}
    columns["label"] = _plain(everyone.labels[order])
    table = everyone.table.take(order)
    symbols, vectors = table["symbols"].to_pylist(), table["vector"].to_pylist()
    columns["said"] = [s if s is not None else _short(v) for s, v in zip(symbols, vectors, strict=True)]
    columns["seen"] = [_short(values) for values in table["observation"].to_pylist()]
    columns["did"] = [_short(values) for values in table["action"].to_pylist()]
    columns["heard"] = [seats or [] for seats in table["receivers"].to_pylist()]
    columns["weights"] = [_weights(*pair) for pair in zip(columns["heard"], table["weights"].to_pylist(), strict=True)]
    columns["then"] = _a_step_later(everyone, order, columns["heard"])
    columns["reading"] = [None] * len(order) if read is None else _told(read[0], read[1][order])
    return {
        "who": "member" if everyone.by_member else "seat",
        "agents": names,
        "read": None if read is None else _measures(read[0]),
        "cut": cut,
        "episodes": episodes,
        "rows": columns,
    }


def _newest(talk: Conversations, most: int) -> tuple[Array, list[dict[str, int]], bool]:
    """Rows of the newest episodes, by step and seat; where each of these lies among them; whether the last is cut."""
    if not talk.size:
        return np.zeros(0, np.int64), [], False
    names = ("world", "episode", "step", "sender", "iteration", "env_steps")
    frame = pd.DataFrame({name: talk.column(name) for name in names}).assign(number=talk.episodes)
    newest = frame.groupby("number")["env_steps"].max().sort_values(ascending=False, kind="stable")
    rows: list[int] = []
    episodes: list[dict[str, int]] = []
    for number in newest.index:
        whole = frame[frame["number"] == number].sort_values(["step", "sender"])
        own = _latest(whole, most - len(rows), least=0 if rows else 1)
        if len(own):
            where = {name: int(own[name].iloc[-1]) for name in ("world", "episode", "iteration")}
            episodes.append({**where, "start": len(rows), "stop": len(rows) + len(own)})
            rows += own.index.tolist()
        if len(own) < len(whole):
            return np.array(rows), episodes, True
    return np.array(rows), episodes, False


def _latest(rows: pd.DataFrame, room: int, least: int) -> pd.DataFrame:
    """The last steps of an episode that together have no more rows than there is room, but at least so many steps."""
    sizes = rows.groupby("step").size()[::-1].cumsum()
    return rows[rows["step"].isin(sizes.index[: max(int((sizes <= room).sum()), least)])]


def _readings(talk: Conversations) -> tuple[Readings, Array] | None:
    """The readings of what was said in symbols, and where each row [R] stands among them, -1: it said nothing."""
    spoke = pc.is_valid(talk.table["symbols"]).combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    symbols = padded(talk.table.filter(pc.is_valid(talk.table["symbols"])), "symbols")
    if symbols is None:
        return None
    found = readings(symbols, talk.labels[spoke], talk.episodes[spoke])
    return None if found is None else (found, np.where(spoke, np.cumsum(spoke) - 1, -1))


def _told(read: Readings, place: Array) -> list[list[Any] | None]:
    """[label, share, times] of each row, None where there is no reading."""
    told = zip(read.label[place], read.share[place], read.times[place], place, strict=True)
    return [
        [int(label), round(float(share), 2), int(times)] if at >= 0 and label >= 0 else None
        for label, share, times, at in told
    ]


def _measures(read: Readings) -> dict[str, Any]:
    return {
        "by": read.by,
        "position": read.position,
        "right": round(read.right, 3),
        "commonest": round(read.commonest, 3),
        "labelled": read.labelled,
    }


def _a_step_later(talk: Conversations, order: Array, heard: list[list[int]]) -> list[list[int]]:
    """For each row, the rows (places in `order`) of those who heard it, one step later; -1: not there."""
    episode, step, seat = talk.episodes[order], talk.column("step")[order], talk.column("sender")[order]
    place = {key: row for row, key in enumerate(zip(episode.tolist(), step.tolist(), seat.tolist(), strict=True))}
    return [
        [place.get((own, at + 1, listener), -1) for listener in listeners]
        for own, at, listeners in zip(episode.tolist(), step.tolist(), heard, strict=True)
    ]


def _weights(listeners: list[int], weights: list[float] | None) -> list[float] | None:
    """Attention, where there is one for each listener."""
    whole = weights is not None and len(weights) == len(listeners) and bool(np.isfinite(weights).all())
    return [round(weight, 2) for weight in weights] if whole and weights is not None else None


def _short(values: list[float] | None) -> list[float | int | str | None] | None:
    """The first numbers of a list, with few digits; the last entry says how many more there are."""
    if values is None:
        return None
    shown: list[float | int | str | None] = [_number(value) for value in values[:MOST_NUMBERS]]
    return shown + [f"and {len(values) - MOST_NUMBERS} more"] * (len(values) > MOST_NUMBERS)


def _number(value: float | None) -> float | int | None:
    """As JSON has it: whole numbers without a point, others with few digits; nan and the infinities, none."""
    if value is None or not np.isfinite(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.{DIGITS}g}")


def _plain(values: Array) -> list[float | int | None]:
    return [_number(value) for value in values.tolist()]
