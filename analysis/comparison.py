"""Several runs beside each other: which belong together, and what they came to, with intervals over the runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from popcomm.analysis.closer import NO_MEASURE
from popcomm.analysis.findings import CONTROLS
from popcomm.analysis.readings import readings
from popcomm.analysis.run_folder import RunFolder, tenth
from popcomm.analysis.sweep_report import RESULTS, Sweep

from popcomm.cli.run_folder import flat
from popcomm.errors import UserError
from popcomm.identity import run_id
from popcomm.language import basics
from popcomm.language.intervals import Interval, mean_interval, welch_interval

SEED = "debugging.seed"
# What makes no condition: what is written down, and how long it goes on.
NOT_OF_CONDITIONS = (SEED, "recording.", "stop.")
# Of the language the numbers are those of the recorded messages, as in the reports of the runs.
NUMBERS = (
    "charts/",
    "evaluation/",
    "world/",
    "channel/",
    "privacy/",
    "federated/",
    "losses/world_r2",
    "language/agreement",
    "language/listening",
)
NO_NUMBERS = ("charts/SPS", "charts/agent_SPS")
UNSET = "not set"


class Number(NamedTuple):
    """What the runs of a condition came to in one measure."""

    values: tuple[float, ...]  # of the runs that have it

    @property
    def mean(self) -> float:
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def interval(self) -> Interval:
        """Student's t over the runs."""
        return mean_interval(self.values)

    def shown(self) -> str:
        if not self.values:
            return "not measured"
        low, high = self.interval
        sure = f"[{low:.3g}, {high:.3g}]" if math.isfinite(low) else "(one run: no interval)"
        return f"{self.mean:.3g} {sure}"


@dataclass(frozen=True)
class Run:
    """A run among others.

    Attributes:
        name: as short as tells it from the others.
        folder: all that it left.
        settings: {"training.lr": value} of its configuration.
        condition: what it has otherwise than the runs of other conditions.
    """

    name: str
    folder: RunFolder
    settings: Mapping[str, Any]
    condition: str

    @property
    def seed(self) -> Any:
        return self.settings.get(SEED)


@dataclass(frozen=True)
class Comparison:
    """Runs, the conditions that they are of, and how many environment steps all of them have taken."""

    runs: Sequence[Run]
    horizon: float

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Comparison:
        """Read run folders, and those of sweeps, of which each trial is a run.

        Raises:
            UserError: a folder that holds no run, one that is there twice, or fewer than two runs.
        """
        folders = [RunFolder.read(path) for given in paths for path in _trials(Path(given))]
        _check_different(folders)
        settings = [flat(folder.config) for folder in folders]
        names = _short_names([folder.path for folder in folders])
        labels = conditions(settings, names)
        runs = [Run(*one) for one in zip(names, folders, settings, labels, strict=True)]
        ends = [folder.now("env_steps") for folder in folders if math.isfinite(folder.now("env_steps"))]
        return cls(runs, min(ends, default=math.nan))

    @property
    def groups(self) -> dict[str, list[Run]]:
        """{condition: its runs}, in the order in which they were named."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.condition, []).append(run)
        return found

    def measures(self) -> list[str]:
        """Columns of the progress that some run has measured twice at least."""
        keys = {str(key) for run in self.runs for key in run.folder.progress if run.folder.measured(key).size > 1}
        return sorted(keys - set(NO_MEASURE))

    def numbers(self) -> dict[str, dict[str, Number]]:
        """{measure: {condition: what its runs came to}}.

        Of the progress means of the last tenth of what was measured until all had taken as many steps; of the language
        what the recorded messages have.
        """
        keys = [key for key in self.measures() if key.startswith(NUMBERS) and key not in NO_NUMBERS]
        told = {run.name: _language(run.folder) for run in self.runs}
        found: dict[str, dict[str, Number]] = {}
        for key in keys:
            found[key] = {name: Number(tuple(self._ends(runs, key))) for name, runs in self.groups.items()}
        for key in dict.fromkeys(itertools.chain.from_iterable(told.values())):
            found[key] = {
                name: Number(tuple(told[run.name][key] for run in runs if key in told[run.name]))
                for name, runs in self.groups.items()
            }
        return {key: numbers for key, numbers in found.items() if any(number.values for number in numbers.values())}

    def _ends(self, runs: Sequence[Run], key: str) -> Iterator[float]:
        for run in runs:
            values = run.folder.measured(key)
            if "env_steps" in run.folder.progress:
                values = values[run.folder.progress["env_steps"].loc[values.index] <= self.horizon]
            if len(values):
                yield float(values.tail(tenth(values)).mean())


def difference(first: Number, other: Number) -> tuple[float, Interval]:
    """(mean of the other less that of the first, its interval after Welch 1947); unknown with fewer than two runs."""
    return other.mean - first.mean, welch_interval(other.values, first.values)


def conditions(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Of each run what it has otherwise than others: "training.lr=0.001"; "all runs" where nothing but seeds differs.

    A run without a configuration is a condition of its own.

    >>> conditions([{"a.b": 1, "debugging.seed": 1}, {"a.b": 1, "debugging.seed": 2}, {"a.b": 3}], ["x", "y", "z"])
    ['a.b=1', 'a.b=1', 'a.b=3']
    """
    known = [one for one in settings if one]
    keys = [key for key in dict.fromkeys(itertools.chain.from_iterable(known)) if not key.startswith(NOT_OF_CONDITIONS)]
    differ = [key for key in keys if len({str(one.get(key, UNSET)) for one in known}) > 1]
    return [
        (", ".join(f"{key}={one.get(key, UNSET)}" for key in differ) or "all runs")
        if one
        else f"{name} (no config.yaml)"
        for one, name in zip(settings, names, strict=True)
    ]


def _trials(path: Path) -> list[Path]:
    if not (path / RESULTS).is_file():
        return [path]
    sweep = Sweep.read(path)
    return [path / str(name) for name in sorted(sweep.trials["trial"]) if not sweep.courses[name].empty]


def _check_different(folders: Sequence[RunFolder]) -> None:
    """Of one run told twice intervals would be too narrow."""
    seen: dict[str, Path] = {}
    for folder in folders:
        keys = [key for key in (str(folder.path.resolve()), run_id(folder.path)) if key]
        for key in keys:
            if key in seen:
                raise UserError(f"{seen[key]} and {folder.path} are the same run; name each run once")
        seen |= dict.fromkeys(keys, folder.path)
    if len(folders) < 2:
        raise UserError(f"there is {len(folders)} run to compare, and it takes two at least")


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last folders of each path, as many as tell all paths apart."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _language(run: RunFolder) -> dict[str, float]:
    """The numbers of the run's report on what was said."""
    talk = run.talk
    if talk.symbols is None:
        return {}
    found = {
        "vocabulary in use, share": basics.vocabulary_used(
            talk.symbols, run.vocab_size, basics.USED_SHARE / run.vocab_size
        ),
        "entropy, bits per symbol": basics.symbol_entropy(talk.symbols, run.vocab_size),
    }
    if len(np.unique(talk.labels[talk.labels >= 0])) > 1:
        told = basics.label_information(
            talk.symbols, talk.labels, shuffles=CONTROLS, streams=talk.episodes, seats=talk.column("sender")
        )
        found["meaning, bits above chance of the best position"] = told.adjusted
        read = readings(talk.symbols, talk.labels, talk.episodes)
        if read is not None:
            found["messages read rightly, share"] = read.right
            found["messages that are read so by the commonest label alone, share"] = read.commonest
    return {key: float(value) for key, value in found.items() if pd.notna(value)}
