"""The report of a sweep: which trials were the best, what they have in common, how they learned, who came of whom."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from popcomm.analysis import lineages
from popcomm.analysis.page import Section, page
from popcomm.analysis.sections import counted
from popcomm.analysis.sweep_pictures import curves, heat_map, parallel_coordinates

from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.language.drawing import png

RESULTS, SEED = "results.json", "debugging.seed"
BINS = 4  # of the values of a range, where it is an axis of the heat map
MOST_VALUES = 8  # of an axis that is not parted into bins
SHOWN = 10  # trials in the table of the page; results.csv has all


@dataclass(frozen=True)
class Sweep:
    """What a sweep left in its folder.

    Attributes:
        path: the folder.
        config: its document.
        metric, mode: by which trials are ranked; None: by nothing.
        trials: a row for each, the best first.
        keys: of the search space, those with more than one value.
        courses: {trial: its progress}.
    """

    path: Path
    config: dict[str, Any]
    metric: str | None
    mode: str
    trials: pd.DataFrame
    keys: list[str]
    courses: dict[str, pd.DataFrame]

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """Read a folder.

        Raises:
            UserError: no sweep has written a table into it.
        """
        file = Path(path) / RESULTS
        if not file.is_file():
            raise UserError(f"'{path}' is no folder of a sweep: it has no {RESULTS}")
        told = json.loads(file.read_text())
        config = yaml.safe_load((Path(path) / "config.yaml").read_text()) or {}
        trials = pd.DataFrame(told["trials"])
        # What is chosen from a list may be a list itself.
        for key in config["tune"]["param_space"]:
            if trials[key].map(lambda value: isinstance(value, (list, dict))).any():
                trials[key] = trials[key].map(str)
        keys = [key for key in config["tune"]["param_space"] if trials[key].nunique(dropna=False) > 1]
        courses = {name: progress.read(Path(path) / name / "progress.jsonl") for name in trials["trial"]}
        return cls(Path(path), config, told["metric"], told["mode"], trials, keys, courses)

    @property
    def measured(self) -> pd.DataFrame:
        """The trials whose metric is known."""
        return self.trials.iloc[:0] if self.metric is None else self.trials[self.trials[self.metric].notna()]


def write_sweep_report(sweep_dir: Path) -> Path:
    """Write report.html into the folder of a sweep, with its pictures inside; returns the page's path.

    Raises:
        UserError: no sweep has written a table into it.
    """
    sweep = Sweep.read(sweep_dir)
    name = sweep.path.resolve().name
    environment = (sweep.config.get("environment") or {}).get("env")
    target = sweep.path / "report.html"
    text = page(
        f"{environment}: {name}" if isinstance(environment, str) else name,
        f"{sweep.path} ({counted(len(sweep.trials), 'trial')})",
        {"What was tried": _tried(sweep), "The best trials": _best(sweep), "How they ended": _ends(sweep)},
        sections(sweep),
        yaml.safe_dump(sweep.config, sort_keys=False, allow_unicode=True),
        about="The sweep",
    )
    target.write_text(text, encoding="utf-8")
    return target


def _tried(sweep: Sweep) -> dict[str, str]:
    tune = sweep.config["tune"]
    rows = {key: yaml.safe_dump(space, default_flow_style=True).strip() for key, space in tune["param_space"].items()}
    for key in ("scheduler", "search", "num_samples"):
        if key in tune:
            rows[key] = str(tune[key])
    return rows


def _best(sweep: Sweep) -> dict[str, str]:
    if sweep.metric is None:
        return {"tune.metric": "none was named, so that nothing is ranked"}
    rows = sweep.measured.head(SHOWN)
    return {str(row["trial"]): f"{row[sweep.metric]:.4g}" for _, row in rows.iterrows()} or {"-": "nothing measured"}


def _ends(sweep: Sweep) -> dict[str, str]:
    return {
        str(status): counted(int(count), "trial") for status, count in sweep.trials["status"].value_counts().items()
    }


# ---- sections ----


def sections(sweep: Sweep) -> list[Section]:
    """Curves, parallel coordinates, the heat map, and the family tree of runs where there was selection."""
    found = [_curves(sweep), _parallel(sweep), _heat(sweep)]
    for lineage in lineages.Lineage.read(sweep.path):
        found += _lines(sweep, lineage)
    return found


def _curves(sweep: Sweep) -> Section:
    title = "How do they learn?"
    if not len(sweep.measured):
        return Section("learning_curves", title, "", missing="No trial has measured tune.metric.")
    by, groups = grouped(sweep)
    findings = [
        f"Lines are means over trials with the same {by}; bands are 95 % t intervals." if by else "One line each."
    ]
    if by:
        findings.append(
            "A mean is taken over the trials that got as far: where some end early, the rest are the better."
        )
    if (sweep.path / lineages.LINEAGE).is_file():
        findings.append("A run that took over another's population goes on with its own line from there.")
    figure = curves(groups, sweep.courses, str(sweep.metric))
    look = "Lines that part early and stay apart tell settings apart; bands that overlap do not."
    best = sweep.measured.iloc[0]
    headline = f"Best {sweep.metric}: {best[sweep.metric]:.4g}, of {best['trial']}."
    made = "From progress.jsonl of each trial; between the steps at which one measured it is a straight line."
    change = "more trials of the same settings, with other seeds"
    return Section(
        "learning_curves", title, look, findings, headline, picture=png(figure), computed=made, change=change
    )


def grouped(sweep: Sweep) -> tuple[str, dict[str, list[str]]]:
    """What trials of a group have in common, and {its values: trials}; "" and the trials alone where nothing has.

    All parameters but the seed, if most trials share them with another; else the one that tells most, see `explained`.
    """
    rows = sweep.measured
    keys = [key for key in sweep.keys if key != SEED]
    together = [keys] if keys else []
    told = explained(sweep)
    together += [[key] for key in sorted(told, key=lambda key: -told[key])]
    for chosen in together:
        parts = [(binned(rows[key]) if len(chosen) == 1 else rows[key]).map(str) for key in chosen]
        labels = pd.concat(parts, axis=1).agg(", ".join, axis=1)
        if (labels.map(labels.value_counts()) > 1).mean() > 0.5:
            groups = {str(label): list(rows.loc[labels == label, "trial"]) for label in dict.fromkeys(labels)}
            return " and ".join(chosen), groups
    if not keys and len(rows) > 1:
        return "settings", {"all": list(rows["trial"])}
    return "", {str(name): [str(name)] for name in rows["trial"]}


def _parallel(sweep: Sweep) -> Section:
    title = "Which settings do the best have?"
    if not sweep.keys or not len(sweep.measured):
        return Section("parallel_coordinates", title, "", missing="Fewer than two settings were tried and measured.")
    figure = parallel_coordinates(sweep.measured, sweep.keys, str(sweep.metric), sweep.mode)
    look = (
        "Each line is a trial, bright ones are the best. Where bright lines meet on an axis, its setting matters; "
        "where they cross it everywhere, it does not."
    )
    told = explained(sweep)
    findings = [
        f"{key}: groups of its values differ by {share:.0%} of the variance of {sweep.metric}."
        for key, share in sorted(told.items(), key=lambda item: -item[1])
    ]
    if findings:
        findings.append(f"With {counted(len(sweep.measured), 'trial')}, much of such a share may be chance.")
    made = "From results.csv; a share of the variance is the correlation ratio of groups of a setting's values."
    return Section("parallel_coordinates", title, look, findings, picture=png(figure), computed=made)


def _heat(sweep: Sweep) -> Section:
    title = "What do two settings do together?"
    told = explained(sweep)
    axes = sorted(told, key=lambda key: -told[key])[:2]
    if len(axes) < 2:
        return Section("heat_map", title, "", missing="Fewer than two settings have several values that were measured.")
    rows = sweep.measured
    across, down = (binned(rows[key]) for key in axes)
    means = pd.crosstab(down, across, rows[sweep.metric], aggfunc="mean")
    counts = pd.crosstab(down, across)
    figure = heat_map(means, counts, axes[0], axes[1], str(sweep.metric))
    findings = [f"The two settings that tell most: {axes[0]} and {axes[1]}. Cells are means, with their trials."]
    made = "Means over all trials of a cell, whatever their other settings; ranges are parted into quarters."
    look = "A cell without colour was not tried."
    return Section("heat_map", title, look, findings, picture=png(figure), computed=made)


def _lines(sweep: Sweep, lineage: lineages.Lineage) -> list[Section]:
    generations, runs = lineage.ids.shape
    if generations < 2:
        return []
    left = np.unique(lineage.founders[-1])
    born = int((lineage.ids[1:] != lineage.ids[:-1]).sum())
    headline = (
        f"Survival between runs: {counted(generations - 1, 'selection')}, {counted(born, 'run')} went on from "
        f"another's population; {counted(len(left), 'line')} of {runs} are left."
    )
    names = dict(enumerate(sorted(map(str, sweep.trials["trial"]))))
    findings = [headline] + [
        f"Line of {founder}: it began as {names[int(founder)]}, and has "
        f"{counted(int((lineage.founders[-1] == founder).sum()), 'run')} in the end."
        for founder in left
    ]
    figure = lineages.picture(lineage, "runs", str(sweep.metric))
    look = (
        "Left: a colour that widens is a line that spreads. Right: fitness of runs when they were selected. Each bar "
        "of the tree is a run between two selections that replaced it."
    )
    return [
        Section("family_tree", "Whose populations seeded the others?", look, findings, headline, picture=png(figure),
                chart=lineages.chart(lineage), computed="From lineage.parquet of the sweep.")
    ]  # fmt: skip


# ---- what settings tell ----


def binned(values: pd.Series) -> pd.Series:
    """Values of an axis: themselves where they are few or no numbers, else the quarter in which they lie, in order.

    >>> binned(pd.Series(["b", "a", None])).tolist()
    ['b', 'a', 'not set']
    """
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().sum() < len(values.dropna()) or values.nunique() <= MOST_VALUES:
        return values.astype(object).where(values.notna(), "not set")
    # Where many values are the same, fewer edges differ.
    edges = np.unique(np.quantile(numbers.dropna(), np.linspace(0, 1, BINS + 1)))
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low} to {high}" for low, high in itertools.pairwise(_told_apart(edges))]
    told = pd.Series(pd.Categorical.from_codes(places, names, ordered=True), index=values.index)
    return told.astype(object).where(values.notna(), "not set") if values.isna().any() else told


def _told_apart(edges: np.ndarray) -> list[str]:
    """Different numbers in three digits, or as many as they need to be told apart."""
    told: list[str] = []
    for digits in range(3, 18):  # 17 tell all float64 apart
        told = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(told)) == len(told):
            break
    return told


def explained(sweep: Sweep) -> dict[str, float]:
    """{key: share of the metric's variance that lies between groups of its values}, the correlation ratio.

    Keys with several groups that were measured, at least one of them twice; none where the metric does not vary.
    """
    rows = sweep.measured
    if len(rows) < 3:
        return {}
    values = rows[sweep.metric].to_numpy(float)
    whole = float(np.square(values - values.mean()).sum())
    found = {}
    for key in sweep.keys:
        groups = pd.Series(values, index=rows.index).groupby(binned(rows[key]).astype(str))
        if 1 < groups.ngroups < len(rows) and whole > 0 and math.isfinite(whole):
            between = float((groups.size() * np.square(groups.mean() - values.mean())).sum())
            found[key] = between / whole
    return found
