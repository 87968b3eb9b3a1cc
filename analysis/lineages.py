"""The sections of a report on survival: the family tree, fitness by line, and whether lines speak alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.page import Chart, Mark, Section
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import counted, drawn

from popcomm.cli.runs_lineage import began_with
from popcomm.evolution.lineage_file import LINEAGE
from popcomm.language.drawing import CATEGORIES, GRID, INK, MUTED, card, dress, heatmap, legend

Array = NDArray[np.float64]

COLOURED = len(CATEGORIES)  # lines with a colour of their own, the largest at the end; others are grey
OTHERS = "#b5b9bd"
MOST_MARKS = 4000  # of the tree that can be looked into: more make a page slow
FEW = 5  # messages of a member of what it saw, below which nothing is said of its way of speaking
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Lineage:
    """The family tree of one species: G generations of P members.

    Attributes:
        species: its name.
        ids, founders: [G, P] int64, who was on each place of the member axis, and the first of its line.
        births: [G, P] int64, the generation in which it was born.
        parents, fitness: [G, P] float64, nan: none, not known.
        ends: [G] float64, iteration at whose end a generation ended; nan: it goes on, or is of an older popcomm.
    """

    species: str
    ids: NDArray[np.int64]
    founders: NDArray[np.int64]
    births: NDArray[np.int64]
    parents: Array
    fitness: Array
    ends: Array

    @classmethod
    def read(cls, run_dir: Path) -> list[Lineage]:
        """Those of all species that were selected; none where there was no selection."""
        file = run_dir / LINEAGE
        if not file.is_file():
            return []
        table = pd.read_parquet(file).sort_values(["generation", "member"])
        return [cls._of(str(name), own) for name, own in table.groupby("species", sort=False)]

    @classmethod
    def _of(cls, name: str, table: pd.DataFrame) -> Lineage:
        generations = table["generation"].nunique()

        def grid(column: str, kind: type) -> NDArray:
            return table[column].to_numpy(kind).reshape(generations, -1)

        ints = [grid(column, np.int64) for column in ("id", "founder", "birth")]
        ends = grid("iteration", float)[:, 0] if "iteration" in table else np.full(generations, np.nan)
        return cls(name, *ints, grid("parent", float), grid("fitness", float), ends)

    def who(self, iterations: NDArray[np.int64], members: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of those who were on places of the member axis in iterations, from 1: both [M] -> [M]."""
        # Two generations never end together, and the last one goes on.
        return self.ids[np.searchsorted(self.ends[:-1], iterations), members]

    @property
    def order(self) -> NDArray[np.int64]:
        """[P], places in the order in which the tree is drawn: lines that are left together, the largest first."""
        last = self.founders[-1]
        sizes = pd.Series(last).map(pd.Series(last).value_counts()).to_numpy()
        return np.lexsort((np.arange(len(last)), last, -sizes))

    def colours(self) -> dict[int, str]:
        """{founder: colour} of the lines that are largest in the end, and then of all time."""
        ends = pd.Series(self.founders[-1]).value_counts(sort=True)
        ever = pd.Series(self.founders.ravel()).value_counts(sort=True)
        ranked = list(dict.fromkeys([*ends.index, *ever.index]))[:COLOURED]
        return dict(zip(map(int, ranked), CATEGORIES, strict=False))


def sections(run: RunFolder) -> list[Section]:
    """Two for each species that was selected, and one more where members talk of what they see."""
    return [section for lineage in Lineage.read(run.path) for section in _of_species(run, lineage)]


def _of_species(run: RunFolder, lineage: Lineage) -> list[Section]:
    generations, members = lineage.ids.shape
    if generations < 2:
        return []
    lines, sizes = np.unique(lineage.founders[-1], return_counts=True)
    effective = 1 / np.square(sizes / members).sum()
    born = int((lineage.ids[1:] != lineage.ids[:-1]).sum())
    headline = (
        f"Survival of '{lineage.species}': {counted(generations - 1, 'selection')}, {counted(born, 'birth')}; "
        f"{counted(len(lines), 'line')} of {members} are left, as diverse as {effective:.1f} of equal size."
    )
    found = [headline]
    known = lineage.fitness[:-1]
    if np.isfinite(known).any():
        medians = _quantiles(known)[2]
        first, last = (medians[np.isfinite(medians)][i] for i in (0, -1))
        found.append(
            f"Median fitness of those whom a selection knew: {first:.3g} at the first, {last:.3g} at the last. All "
            "learn meanwhile, so that the rise is not selection's alone; only a run without it tells how much is."
        )
    tree = drawn("family_tree", found, headline, picture(lineage), chart=chart(lineage))
    return [tree, *_speech(run, lineage)]


# ---- the tree ----


def picture(lineage: Lineage, who: str = "members", fitness: str = "fitness (units of survival.fitness)") -> Figure:
    """Left: lines as shares of the members, over generations. Right: fitness, and the mean of the largest lines.

    Args:
        who: is selected.
        fitness: what it is, with its unit.
    """
    figure = card(10.5, 4.4, f"Lines of '{lineage.species}' over the generations")
    left, right = figure.subplots(1, 2)
    _shares(dress(left, "Who is of whom", "generation", f"share of the {who}"), lineage)
    _fitness(dress(right, "Fitness, by line", "generation", fitness), lineage)
    return figure


def _shares(axes: Axes, lineage: Lineage) -> None:
    colours, generations = lineage.colours(), np.arange(len(lineage.ids))
    founders = list(colours)
    parts = [(lineage.founders == founder).mean(1) for founder in founders]
    others = 1 - np.sum(parts, 0)
    axes.stackplot(
        generations, [*parts, others], colors=[*colours.values(), OTHERS], edgecolor=GRID, linewidth=0.3,
        labels=[*(f"line of {founder}" for founder in founders), "all others"],
    )  # fmt: skip
    axes.set_xlim(0, generations[-1])
    axes.set_ylim(0, 1)
    legend(axes, loc="upper left", ncols=2, frameon=True, framealpha=0.85, fontsize=7)


def _quantiles(fitness: Array) -> Array:
    """[5, G]; nan where nothing was known."""
    result = np.full((len(QUANTILES), len(fitness)), np.nan)
    known = np.isfinite(fitness).any(1)
    result[:, known] = np.nanquantile(fitness[known], QUANTILES, axis=1)
    return result


def _fitness(axes: Axes, lineage: Lineage) -> None:
    # The living have none yet, or that of a generation that goes on.
    fitness, generations = lineage.fitness[:-1], np.arange(len(lineage.ids) - 1)
    low, first, median, third, high = _quantiles(fitness)
    axes.fill_between(generations, low, high, color=GRID, linewidth=0, label="all")
    axes.fill_between(generations, first, third, color=OTHERS, linewidth=0, alpha=0.7, label="middle half")
    axes.plot(generations, median, color=INK, linewidth=1.4, label="median")
    for founder, colour in list(lineage.colours().items())[:3]:
        own = np.where(lineage.founders[:-1] == founder, fitness, np.nan)
        known = np.isfinite(own).any(1)
        if known.any():
            means = np.nanmean(own[known], 1)
            axes.plot(generations[known], means, color=colour, linewidth=1.8, label=f"line of {founder}, mean")
    legend(axes, loc="best", fontsize=7)


def chart(lineage: Lineage) -> Chart | None:
    """The tree to look into: a mark for each life, generations from left to right. None where there are too many."""
    colours, order = lineage.colours(), lineage.order
    generations, members = lineage.ids.shape
    marks = []
    for row, place in enumerate(order):
        begins = np.flatnonzero(np.diff(lineage.ids[:, place], prepend=-1))
        ends = [*begins[1:], generations]
        for begin, end in zip(begins, ends, strict=True):
            founder = int(lineage.founders[begin, place])
            marks.append(Mark(begin, row, end - begin, colours.get(founder, OTHERS), _told(lineage, begin, end, place)))
    if len(marks) > MOST_MARKS:
        return None
    return Chart(
        generations, members, marks, "generations, from left to right", "members, by the line that they end in",
        "Each bar is a life; point at one to see whose.",
    )  # fmt: skip


def _told(lineage: Lineage, begin: int, end: int, place: int) -> str:
    """A life, generations begin to end - 1 on a place, in words."""
    parent = lineage.parents[begin, place]
    birth = int(lineage.births[begin, place])
    origin = "founder" if birth == 0 else "made anew" if np.isnan(parent) else f"child of {int(parent)}"
    fitness = lineage.fitness[begin:end, place]
    known = fitness[np.isfinite(fitness)]
    last = "still alive" if end == len(lineage.ids) else f"replaced after generation {end - 1}"
    worth = f"fitness {known[-1]:.3g}" if len(known) else "fitness not known"
    return (
        f"member {int(lineage.ids[begin, place])}, {origin}, line of {int(lineage.founders[begin, place])}; "
        f"born in generation {birth}, {last}; {worth}"
    )


# ---- who speaks like whom ----


def _speech(run: RunFolder, lineage: Lineage) -> list[Section]:
    """Whether those of one line who live speak more alike than those of different ones."""
    talk = run.talk
    if talk.symbols is None or not talk.size or np.isnan(lineage.ends[:-1]).any():
        return []
    own = np.array([name == lineage.species for name in talk.table["species"].to_pylist()])
    # The newest talk may be of many generations: what others said on a place is none of those who live there now.
    iterations, members = talk.column("iteration"), talk.column("member")
    own &= iterations > began_with(run.path)
    own[own] = lineage.who(iterations[own], members[own]) == lineage.ids[-1][members[own]]
    if (talk.labels[own] >= 0).sum() < FEW:
        return []
    alike = likeness(members[own], talk.symbols[own], talk.labels[own], lineage.ids.shape[1])
    order = lineage.order
    founders = lineage.founders[-1][order]
    alike = alike[np.ix_(order, order)]
    pairs = ~np.eye(len(order), dtype=bool) & np.isfinite(alike)
    same = (founders[:, None] == founders[None, :]) & pairs
    findings = [_in_common(alike, same, pairs & ~same, len(set(founders.tolist())))]
    return [drawn("speech_of_lines", findings, "", _speech_picture(alike, founders, lineage.species))]


def _in_common(alike: Array, same: NDArray[np.bool_], apart: NDArray[np.bool_], lines: int) -> str:
    """What the likeness [P, P] comes to. same, apart: [P, P] bool, known pairs of one line and of different ones."""
    if not (same | apart).any():
        return "No two members were recorded often enough of the same things to be compared."
    if lines == 1:
        return f"One line is left; its members have {alike[same].mean():.2f} of what they say in common."
    if same.any() and apart.any():
        return (
            f"Of those who live, members of one line have {alike[same].mean():.2f} of what they say in common "
            f"({_pairs(same)}), those of different lines {alike[apart].mean():.2f} ({_pairs(apart)}); 1 is the same "
            "symbols as often of the same things."
        )
    who, known = ("one line", same) if same.any() else ("different lines", apart)
    return (
        f"Of those who live, only members of {who} could be compared: they have {alike[known].mean():.2f} of what they "
        f"say in common ({_pairs(known)})."
    )


def _pairs(known: NDArray[np.bool_]) -> str:
    return counted(known.sum() // 2, "pair")


def likeness(members: Array, symbols: Array, labels: Array, count: int) -> Array:
    """[P, P] in [0, 1], what two members' use of symbols has in common when they saw the same; nan: not known.

    The Bhattacharyya coefficient of the distributions of symbols at a position, given the label: mean over positions
    and labels of which both spoke FEW times at least.

    Args:
        members: [M] int; symbols: [M, L] int, -1: not sent; labels: [M] int, -1: nothing seen.
    """
    symbols = symbols + 1  # 0: the message had ended
    size = int(symbols.max()) + 1
    total, seen = np.zeros((count, count)), np.zeros((count, count))
    for label in np.unique(labels[labels >= 0]):
        rows = labels == label
        times = np.bincount(members[rows], minlength=count)
        enough = times >= FEW
        both = np.outer(enough, enough)
        for column in symbols[rows].T:
            use = np.bincount(members[rows] * size + column, minlength=count * size).reshape(count, size)
            roots = np.sqrt(use / np.maximum(times, 1)[:, None])
            total += both * (roots @ roots.T)
            seen += both
    return np.divide(total, seen, out=np.full((count, count), np.nan), where=seen > 0).clip(max=1.0)


def _speech_picture(alike: Array, founders: Array, species: str) -> Figure:
    figure = card(6.4, 5.6, f"Who of '{species}' speaks like whom")
    axes = dress(figure.subplots(), "", "member, by line", "member, by line", None)
    heatmap(axes, alike, "in common, 0 to 1 (grey: not known)", vmin=0, vmax=1)
    for border in np.flatnonzero(np.diff(founders)) + 0.5:
        axes.axhline(border, color="white", linewidth=1.0)
        axes.axvline(border, color="white", linewidth=1.0)
    axes.tick_params(labelbottom=False, labelleft=False)
    axes.text(0, -0.02, "lines are apart by white", transform=axes.transAxes, fontsize=7, color=MUTED, va="top")
    return figure
