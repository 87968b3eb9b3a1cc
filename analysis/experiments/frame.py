"""The frame of every experiment: its command line, the runs that are missing, its page, its figure and its numbers.

An experiment is a module that declares an `Experiment`, and a Jinja2 template pages/NAME.md.j2 with the words.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.intervals import paired
from popcomm.analysis.experiments.records import as_json, results_of
from popcomm.analysis.experiments.runs import Trainable, TrainingError, train_all
from popcomm.analysis.templating import templates

from popcomm.cli.ray_session import prepare_environment
from popcomm.errors import UserError
from popcomm.language.drawing import png

Options = argparse.Namespace

# Of all experiments, at the end of what --help says of one.
ALL = """Runs have processes of their own, and those that are there are not made again. Writes {0}.md, .png and .json
into the folder of --out."""


class Claim(NamedTuple):
    """Something the experiment was to show."""

    text: str
    measured: str
    holds: bool


def outdone(
    text: str,
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
    of: Callable[[Any], float],
    digits: int = 3,
    least: int = 1,
) -> list[Claim]:
    """That the first runs come to more than the second, seed by seed: it holds where the interval lies above 0.

    Args:
        text: "{seeds}" in it becomes the number of seeds that both have.
        of: a run's number.
        least: seeds; of fewer nothing is claimed.
    """
    seeds = {run["seed"] for run in first} & {run["seed"] for run in second}
    gap = paired(first, second, of)
    if gap is None or len(seeds) < least:
        return []
    return [Claim(text.format(seeds=len(seeds)), gap.shown(digits), gap.paired.low > 0)]


@dataclass(frozen=True)
class Experiment:
    """What is of an experiment alone.

    Args:
        name: of its module, its template, and the files that it writes.
        about: for --help.
        plan: options -> all runs that are asked for, in the order in which they are made.
        page: what the template shows of the results, beside `command` and `versions`.
        figure: the picture.
        results: options, those runs -> what was measured, which `page`, `figure` and `numbers` tell; the results of
            trials, unless said otherwise. Raises UserError: there is nothing yet.
        numbers: the JSON, beside `command` and `versions`.
        arguments: adds options to those that all experiments have.
        check: returns what is wrong with the options, or None.
        seeds: runs of each kind, unless the command line says otherwise.
        quick: the same of a quick mode, with the option --quick; 0: there is none.
        jobs: runs at a time, likewise.
        page_only: the option that trains nothing.
    """

    name: str
    about: str | None
    plan: Callable[[Options], Sequence[Trainable]]
    page: Callable[[Any], Mapping[str, Any]]
    figure: Callable[[Any], Figure]
    results: Callable[[Options, Any], Any] = lambda options, trials: results_of(trials)
    numbers: Callable[[Any], Mapping[str, Any]] = lambda records: {"runs": records}
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    check: Callable[[Options], str | None] = lambda options: None
    seeds: int = 3
    quick: int = 0
    jobs: int = 1
    page_only: str = "--page-only"

    @property
    def module(self) -> str:
        return f"popcomm.analysis.experiments.{self.name}"

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Make what is missing, measure and write; the exit code: 0, 1 for a failed run, 2 for a user's mistake."""
        given = list(sys.argv[1:] if arguments is None else arguments)
        options = _parsed(self, given)
        command = " ".join(["python -m", self.module, *(word for word in given if word != self.page_only)])

        def work() -> list[Path]:
            if not options.page_only:  # before a plan imports Ray to check its configs
                prepare_environment()
                os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            planned = self.plan(options)
            if not options.page_only:
                train_all(planned, options.jobs)
            return write(self, self.results(options, planned), options.out, command)

        return published(self.name, work, options.docs)


def _parsed(experiment: Experiment, given: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog=f"python -m {experiment.module}",
        description=f"{experiment.about or ''}\n{ALL.format(experiment.name)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seeds", type=int, help=f"runs of each kind, each with a seed of its own [{experiment.seeds}]"
    )
    parser.add_argument("--out", type=Path, required=True, help="where runs and results go")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    parser.add_argument("--jobs", type=int, default=experiment.jobs, help=f"runs trained at a time [{experiment.jobs}]")
    parser.add_argument(
        experiment.page_only, dest="page_only", action="store_true", help="train nothing, write of what is there"
    )
    if experiment.quick:
        parser.add_argument("--quick", action="store_true", help="a minute or two of it, to see that it works")
    experiment.arguments(parser)
    options = parser.parse_args(given)
    if options.seeds is None:
        options.seeds = experiment.quick if experiment.quick and options.quick else experiment.seeds
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, and must be at least 1")
    if wrong := experiment.check(options):
        parser.error(wrong)
    return options


def write(experiment: Experiment, results: Any, folder: Path, command: str) -> list[Path]:
    """NAME.md, .png and .json into a folder; their paths, the page first."""
    known = versions()
    files = {
        "md": markdown(experiment, results, command, known).encode(),
        "png": png(experiment.figure(results)),
        "json": as_json({"command": command, "versions": known, **experiment.numbers(results)}).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for end, content in files.items():
        (folder / f"{experiment.name}.{end}").write_bytes(content)
    return [folder / f"{experiment.name}.{end}" for end in files]


def published(name: str, work: Callable[[], Sequence[Path]], docs: Path | None = None) -> int:
    """Do an experiment's work and copy the files that it returns, the page first, into a folder.

    Returns:
        the exit code: 0, 1 for a run that failed, 2 for a user's mistake.
    """
    try:
        files = work()
    except (UserError, TrainingError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    if docs:
        docs.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, docs)
    print(f"page: {files[0]}")
    return 0


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {name: version(name) for name in ("popcomm", "ray", "torch")}


# ---- pages ----


def _number(value: float | None, form: str = ".3f", nothing: str = "-") -> str:
    """A number in Python's format, or what stands for one that was not measured."""
    return nothing if value is None or not math.isfinite(value) else format(value, form)


def _ranged(values: Sequence[float], form: str = ".3f", nothing: str = "-") -> str:
    """The value of all seeds, or their range."""
    ends = dict.fromkeys(_number(end, form) for end in (min(values), max(values))) if len(values) else {}
    return " to ".join(ends) or nothing


PAGES = templates(Path(__file__).with_name("pages"), autoescape=False)
PAGES.filters |= {"number": _number, "ranged": _ranged, "mean": np.mean, "median": np.median}


def markdown(experiment: Experiment, results: Any, command: str, known: Mapping[str, str] | None = None) -> str:
    """The page; the picture lies beside it. command: what made all this; known: versions."""
    told = ", ".join(f"{name} {number}" for name, number in (versions() if known is None else known).items())
    page = PAGES.get_template(f"{experiment.name}.md.j2")
    return page.render(experiment.page(results), command=command, versions=told)
