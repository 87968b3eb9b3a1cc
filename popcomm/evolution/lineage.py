"""Lineage: who came of whom, and what became of them. One row for each member of each generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcomm.evolution.generation import NOBODY, Floats, Generation, Ints

if TYPE_CHECKING:
    import networkx

Array = NDArray[Any]

# Columns of a lineage, and what they hold.
COLUMNS: dict[str, tuple[type, str]] = {
    "generation": (np.int64, "generation that ended, from 0"),
    "member": (np.int64, "place on the member axis"),
    "id": (np.int64, "the individual; ids are given once"),
    "parent": (np.int64, "id of the parent, whose weights it began with or who taught it; -1: a founder, or made anew"),
    "mate": (np.int64, "id of the second parent; -1: none"),
    "founder": (np.int64, "id of the first of the line"),
    "birth": (np.int64, "generation in which it was born"),
    "death": (np.int64, "generation at whose end it was replaced; -1: it lived on"),
    "iteration": (np.int64, "iteration of training at whose end the generation ended; -1: it goes on, or not known"),
    "fitness": (np.float64, "smoothed, when the generation ended; nan: not known"),
}


def rows(before: Generation, sources: Ints, iteration: int = NOBODY) -> dict[str, Array]:
    """The rows of a generation that ends, {column: [P]}.

    Args:
        before: the generation.
        sources: [P] int64, as `Strategy.select` returned.
        iteration: of training, at whose end it ends; NOBODY: it goes on, or that is not known.
    """
    places = np.arange(before.members)
    values = {
        "generation": np.full(before.members, before.number),
        "member": places,
        "id": before.ids,
        "parent": before.parents,
        "mate": before.mates,
        "founder": before.founders,
        "birth": before.births,
        "death": np.where(sources == places, NOBODY, before.number),
        "iteration": np.full(before.members, iteration),
        "fitness": before.fitness,
    }
    return {name: np.asarray(values[name], kind) for name, (kind, _) in COLUMNS.items()}


def family_tree(table: Mapping[str, Array]) -> networkx.DiGraph:
    """Individuals of a lineage, edges from parents to children. table: {column: [M]}, see COLUMNS.

    Nodes bear birth, death (-1: alive when the table ends), founder, and fitness, the last that is known of them.
    """
    import networkx  # a quarter of a second, which every training would wait for

    tree = networkx.DiGraph()
    order = np.argsort(table["generation"], kind="stable")
    for i in order:
        tree.add_node(
            int(table["id"][i]),
            birth=int(table["birth"][i]),
            death=int(table["death"][i]),
            founder=int(table["founder"][i]),
            fitness=float(table["fitness"][i]),
        )
    for i in order:
        for kind in ("parent", "mate"):
            if table[kind][i] != NOBODY:
                tree.add_edge(int(table[kind][i]), int(table["id"][i]), kind=kind)
    return tree


class Measures(NamedTuple):
    """A generation in numbers."""

    births: int
    deaths: int
    founders: int  # lines that are left
    effective_founders: float  # inverse Simpson index of the lines: as many lines of equal size are as diverse
    age_mean: float  # generations
    age_max: int
    fitness: Floats  # [5], minimum, quartiles and maximum of those that are known; nan where none is


QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def measures(before: Generation, after: Generation) -> Measures:
    """What a selection made of a generation; fitness is that by which it selected.

    The inverse Simpson index is 1 / sum p_i^2, p_i the share of the members that are of line i (Hill 1973, order 2).
    """
    born = int((before.ids != after.ids).sum())
    _, sizes = np.unique(after.founders, return_counts=True)
    shares = sizes / sizes.sum()
    known = before.fitness[before.known]
    quantiles = np.quantile(known, QUANTILES) if len(known) else np.full(len(QUANTILES), np.nan)
    ages = after.ages
    return Measures(
        born, born, len(sizes), float(1 / np.square(shares).sum()), float(ages.mean()), int(ages.max()), quantiles
    )
