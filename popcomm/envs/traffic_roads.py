"""Roads of traffic_junction_v0: which cells they have, and every route that a car can take over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Cell = tuple[int, int]  # row, column; row 0 is the upmost
Heading = tuple[int, int]  # rows and columns of a step
SOUTH, NORTH, EAST, WEST = (1, 0), (-1, 0), (0, 1), (0, -1)


class Lane(NamedTuple):
    """A straight line of cells from border to border, driven in one direction: a row if that is east or west."""

    line: int  # of the row or column
    heading: Heading


class Plan(NamedTuple):
    """A grid and its lanes, in the order in which cars enter. People drive on the right."""

    size: int  # cells along a side
    lanes: tuple[Lane, ...]
    decisions: int  # junctions at which a route may turn; at later ones it goes straight on


def _two_way(first: int) -> tuple[Lane, ...]:
    """Two-way roads, one from north to south and one from east to west, in columns and rows `first` and the next."""
    return Lane(first, SOUTH), Lane(first + 1, NORTH), Lane(first + 1, EAST), Lane(first, WEST)


PLANS = {
    "easy": Plan(7, (Lane(3, SOUTH), Lane(3, EAST)), 0),
    "medium": Plan(14, _two_way(6), 1),
    "hard": Plan(18, _two_way(4) + _two_way(12), 2),
}


@dataclass(frozen=True)
class Roads:
    """C road cells, numbered row by row, and K routes from each of E entries.

    Attributes:
        size: cells along a side of the grid.
        cells: [C, 2] int64, row and column.
        routes: [E, K, L] int64, the road cells from entry to exit; the last one is repeated where a route is shorter.
        lengths: [E, K] int64, cells of each route.
    """

    size: int
    cells: np.ndarray
    routes: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, plan: Plan) -> Roads:
        """The roads of a plan."""
        headings = _headings(plan)
        cells = sorted(headings)
        number = {cell: i for i, cell in enumerate(cells)}
        starts = [_entry(lane, plan.size) for lane in plan.lanes]
        ways = [
            [[number[cell] for cell in way] for way in _walks([start], lane.heading, plan.decisions, headings)]
            for start, lane in zip(starts, plan.lanes, strict=True)
        ]
        longest = max(len(way) for routes in ways for way in routes)
        padded = [[way + way[-1:] * (longest - len(way)) for way in routes] for routes in ways]
        return cls(plan.size, np.array(cells), np.array(padded), np.array([[len(w) for w in r] for r in ways]))

    def around(self, vision: int) -> np.ndarray:
        """[C, (2 vision + 1)^2] int64: the road cells around and with each, row by row; C where there is no road."""
        number = np.full((self.size + 2 * vision,) * 2, len(self.cells))
        number[tuple((self.cells + vision).T)] = np.arange(len(self.cells))
        side = np.arange(2 * vision + 1)
        rows, columns = self.cells[:, :1, None] + side[:, None], self.cells[:, 1:, None] + side
        return number[rows, columns].reshape(len(self.cells), -1)


def _headings(plan: Plan) -> dict[Cell, list[Heading]]:
    """{cell: headings of the lanes that it belongs to}; two of them where lanes cross."""
    headings: dict[Cell, list[Heading]] = {}
    for lane in plan.lanes:
        for i in range(plan.size):
            cell = (lane.line, i) if lane.heading in (EAST, WEST) else (i, lane.line)
            headings.setdefault(cell, []).append(lane.heading)
    return headings


def _entry(lane: Lane, size: int) -> Cell:
    """The first cell of a lane."""
    start = 0 if lane.heading in (SOUTH, EAST) else size - 1
    return (lane.line, start) if lane.heading in (EAST, WEST) else (start, lane.line)


def _walks(
    way: list[Cell], heading: Heading, decisions: int, headings: dict[Cell, list[Heading]], turn: Heading | None = None
) -> Iterator[list[Cell]]:
    """All ways on from the last cell of `way`, straight on first, then right, then left; at its exit, `way` itself.

    `turn` is the heading to be taken in the junction where the way stands now; None before it.
    """
    down, right = heading
    crossing = len(headings[way[-1]]) > 1
    if crossing and turn is None:
        turns = (heading, (right, -down), (-right, down)) if decisions else (heading,)
        for chosen in turns:
            yield from _walks(way, heading, max(decisions - 1, 0), headings, chosen)
        return
    if crossing and turn in headings[way[-1]]:
        heading = turn or heading
    following = (way[-1][0] + heading[0], way[-1][1] + heading[1])
    if following not in headings:
        yield way
        return
    turn = turn if len(headings[following]) > 1 else None
    yield from _walks([*way, following], heading, decisions, headings, turn)
