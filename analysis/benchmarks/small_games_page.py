"""The page of the small games: how many were learned, and what those that were not have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from popcomm.analysis.benchmarks.small_game import Game

Row = Mapping[str, Any]
Rows = Sequence[Row]

SOLVED = 0.9  # of the oracle
BAR = 0.9  # of the games, per agent

# {what a kind of game is told by: its value in a row}
KINDS: dict[str, Callable[[Row], str]] = {
    "function": lambda row: row["function"],
    "speakers": lambda row: str(row["speakers"]),
    "listeners": lambda row: str(row["listeners"]),
    "kinds of parts": lambda row: str(row["kinds"]),
    "delay": lambda row: str(row["delay"]),
    "forwarding": lambda row: "yes" if row["forwarding"] else "no",
    "alphabet": lambda row: "above the need" if row["vocab_size"] > needed(row) else "at the need",
}


def needed(row: Row) -> int:
    """Symbols that the plain protocol says in the row's game."""
    return Game(*(row[key] for key in ("function", "speakers", "listeners", "kinds", "delay", "forwarding"))).vocab_size


def solved(row: Row, by: str = "greedy") -> bool:
    """Whether the return "greedy" at the end, "sampled", or "best" of all looks comes to SOLVED of the oracle."""
    return bool(row[by] >= SOLVED * row["oracle"])


def told(row: Row) -> str:
    """A result in one line."""
    verdict = "solved" if solved(row) else "not solved"
    return (
        f"game {row['number']} ({described(row)}), {row['agent']}: {row['greedy']:.2f} greedy, "
        f"{row['sampled']:.2f} sampled, deaf {row['deaf']:.2f}: {verdict}"
    )


def described(row: Row) -> str:
    """A game in a few words."""
    seats = [f"{row['speakers']} speak", *(["relay"] if row["forwarding"] else []), f"{row['listeners']} listen"]
    return (
        f"{row['function']} of {row['kinds']} kinds, {' > '.join(seats)}, delay {row['delay']}, "
        f"{row['vocab_size']} symbols"
    )


def markdown(rows: Rows, command: str, versions: Mapping[str, str]) -> str:
    """The page; rows are the results of one seed, budget and settings."""
    agents = sorted({row["agent"] for row in rows}, reverse=True)
    of = {agent: [row for row in rows if row["agent"] == agent] for agent in agents}
    lines = [
        "# Do the defaults learn to talk in games that they were not tuned on?",
        "",
        *_table(SUMMARY, [_summary(agent, of[agent]) for agent in agents]),
        "",
        f"A game is solved when the greedy return at the end is at least {SOLVED:g} of the oracle; the bar is "
        f'{BAR:.0%} of the games, per agent. "Lost" were solved at an earlier look, and not at the end.',
        "",
        "Written by",
        "",
        f"    {command}",
        "",
        *_method(rows),
        "",
        "## Failures by kind",
        "",
        "Solved of all games of a kind.",
        "",
        *_table(["kind", "", *agents], _by_kind(of)),
        "",
        "## Not solved",
        "",
        *_failures(rows),
        "",
        "## All games",
        "",
        *_table(["", "game", "deaf", *(f"{agent}, greedy / sampled" for agent in agents)], _all_games(of)),
        "",
        ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


SUMMARY = ["agent", "solved", "bar", "", "sampled solves", "lost", "mean greedy", "mean sampled", "episodes, median"]


def _summary(agent: str, rows: Rows) -> list[str]:
    good, least = sum(map(solved, rows)), int(np.ceil(BAR * len(rows)))
    return [
        agent,
        f"{good} of {len(rows)}",
        str(least),
        "pass" if good >= least else "FAIL",
        str(sum(solved(row, "sampled") for row in rows)),
        str(sum(solved(row, "best") and not solved(row) for row in rows)),
        f"{np.mean([row['greedy'] for row in rows]):.2f}",
        f"{np.mean([row['sampled'] for row in rows]):.2f}",
        f"{np.median([row['episodes'] for row in rows]):,.0f}",
    ]


def _method(rows: Rows) -> list[str]:
    seconds, seed, settings = (rows[0][key] for key in ("seconds", "seed", "settings")) if rows else ("", "", "")
    chosen = f"at its default but for `{settings}`" if settings else "at its default"
    return [
        "## Method",
        "",
        "Speakers each see a part, in the first step alone; listeners must name a function of the parts in the last "
        "step, and everyone gets the share of the listeners that are right. Messages are one symbol, heard a step "
        "later. The functions: copy (the first speaker's part), sum, parity, maximum, and which (of the first two "
        "speakers saw the larger part). There are 1 to 3 speakers, 1 or 2 listeners, 2 to 4 kinds of parts, delays of "
        "1 to 3 steps; with forwarding, listeners hear a relay alone. The alphabet is what a plain protocol needs, or "
        "up to twice that.",
        "",
        "All seats are one member of one species, told apart by the number of the seat in what they see. Every game "
        "can be won without memory too, by agents that tell each other again what they would forget: games with a "
        "delay of 2 that the plain protocol does not win so are not drawn (`small_game.Game` says which). So the "
        'oracle is 1 for every agent. "Deaf" is the best constant answer, exact; games in which it is above .75 are '
        "not drawn.",
        "",
        f"Games and trainings have the seed {seed}. Everything else in PopulationPPOConfig is {chosen}; a training is "
        f"a process of one thread that ends after {seconds:g} CPU seconds, looks included. Returns are means over one "
        "episode in each of 512 new worlds."
        if rows
        else "Nothing was trained.",
    ]


def _by_kind(of: Mapping[str, Rows]) -> list[list[str]]:
    lines = []
    for kind, value_of in KINDS.items():
        values = sorted({value_of(row) for rows in of.values() for row in rows})
        for value in values:
            parts = [[row for row in rows if value_of(row) == value] for rows in of.values()]
            lines.append([kind, value, *(f"{sum(map(solved, part))} of {len(part)}" for part in parts)])
    return lines


def _failures(rows: Rows) -> list[str]:
    failed = [row for row in rows if not solved(row)]
    if not failed:
        return ["None."]
    failed.sort(key=lambda row: (row["agent"], row["function"], row["number"]))
    header = ["agent", "", "game", "random", "deaf", "greedy", "sampled", "best look", "episodes"]
    return _table(header, [_failure(row) for row in failed])


def _failure(row: Row) -> list[str]:
    returns = (f"{row[name]:.2f}" for name in ("random", "deaf", "greedy", "sampled", "best"))
    return [row["agent"], str(row["number"]), described(row), *returns, f"{row['episodes']:,}"]


def _all_games(of: Mapping[str, Rows]) -> list[list[str]]:
    first: dict[int, Row] = {}
    for rows in of.values():
        for row in rows:
            first.setdefault(row["number"], row)
    known = {(row["number"], agent): row for agent, rows in of.items() for row in rows}
    return [
        [str(number), described(game), f"{game['deaf']:.2f}", *(_result(known.get((number, agent))) for agent in of)]
        for number, game in sorted(first.items())
    ]


def _result(row: Row | None) -> str:
    if row is None:
        return "-"
    text = f"{row['greedy']:.2f} / {row['sampled']:.2f}"
    return text if solved(row) else f"**{text}**"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
