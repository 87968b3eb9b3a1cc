"""Do agents learn to talk? Games of the literature, several ways to talk, silence and random messages beside them.

    python -m popcomm.analysis.experiments.learning_to_talk --seeds 5 --out runs/learning_to_talk [--docs docs]

Every run is a process of its own on one thread, and leaves one JSON file; those that are there are not made again. The
games that take long are run only when they are named: --tasks predator_prey. Writes learning_to_talk.md, .png and .json
into the folder, of all results in it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from popcomm.analysis.experiments import learning_tasks as games
from popcomm.analysis.experiments.frame import published
from popcomm.analysis.experiments.learning_tasks import CONDITIONS, RETURN, TASKS, Task
from popcomm.analysis.experiments.runs import run_logged, train_all

from popcomm.cli.ray_session import prepare_environment
from popcomm.errors import UserError

if TYPE_CHECKING:
    from popcomm.analysis.experiments.local_training import LocalTraining

NAME = "learning_to_talk"
RESULTS = "results"  # folder of the runs' files, within --out
# CPU seconds of training between evaluations: so many at first, and later a share of the time so far; and always four
# times what an evaluation costs, so that evaluations cost a fifth of the time at most.
FIRST, GROWTH, COST = 1.0, 0.05, 4.0
LAST_SEEDS = (101, 102, 103, 104)  # of the worlds that a run is measured in at its end


class Look(NamedTuple):
    """An evaluation on the way. CPU seconds count training and the evaluations before this one."""

    episodes: int
    env_steps: int
    cpu_s: float
    greedy: float  # in units of the task's measure
    sampled: float


@dataclass(frozen=True)
class Trial:
    """One run: a task, a condition and a seed.

    Args:
        out: its file goes into the folder `RESULTS` there.
        seconds: CPU budget until the bar.
    """

    out: Path
    task: Task
    condition: str
    seed: int
    seconds: float

    @property
    def path(self) -> Path:
        return self.out / RESULTS / f"{self.task.name}-{self.condition}-{self.seed}.json"

    @property
    def document(self) -> dict[str, Any]:
        return games.document(self.task, self.condition, self.seed)

    def is_complete(self) -> bool:
        """Whether its file is there.

        Raises:
            UserError: it holds a run with another configuration or budget.
        """
        if not self.path.is_file():
            return False
        kept = json.loads(self.path.read_text())
        for key, asked in (("config", self.document), ("seconds", self.seconds)):
            if kept[key] != asked:
                raise UserError(f"{self.path} holds a run with another {key}; remove it, or choose another --out")
        return True

    def train(self) -> None:
        """Run it in a process of its own."""
        one = ["--one", self.task.name, self.condition, str(self.seed)]
        rest = ["--out", str(self.out), "--seconds", f"{self.seconds:g}"]
        module = f"popcomm.analysis.experiments.{NAME}"
        run_logged(self.path.stem, [sys.executable, "-m", module, *one, *rest], self.path.with_suffix(".log"))


class Course:
    """A trial on its way, in this process: until the bar is met, or the budget spent; after the bar, some time more."""

    def __init__(self, trial: Trial, training: LocalTraining) -> None:
        self.trial, self.task, self.training = trial, trial.task, training
        self.curve: list[Look] = []
        self.met: Look | None = None
        self.longest = 0.0  # CPU seconds of an iteration
        self.cost = 0.0  # CPU seconds of the latest evaluation

    def run(self) -> dict[str, Any]:
        """To its end; what is kept of it."""
        self._look()
        while self._goes_on():
            self._train_on()
            self._look()
        ends = {
            name: measured(self.training, self.task, name == "sampled", LAST_SEEDS) for name in ("greedy", "sampled")
        }
        return {
            "task": self.task.name,
            "condition": self.trial.condition,
            "seed": self.trial.seed,
            "seconds": self.trial.seconds,
            "bar": self.task.threshold,
            "curve": [list(look) for look in self.curve],
            "met": None if self.met is None else self.met._asdict(),
            "end": {name: value for name, (value, _) in ends.items()},
            "metrics": {name: metrics for name, (_, metrics) in ends.items()},
            "config": self.trial.document,
            "versions": {name: version(name) for name in ("popcomm", "ray", "torch")},
        }

    def _goes_on(self) -> bool:
        """Whether another iteration is due, and within the budget."""
        if self.met is not None:
            return self.training.episodes < self.met.episodes + self.task.stays
        most = self.task.most_episodes
        in_time = self.training.cpu_s + self.longest <= self.trial.seconds
        return in_time and (most is None or self.training.episodes < most)

    def _train_on(self) -> None:
        """Iterations until the next evaluation is due."""
        due = self.training.cpu_s + max(FIRST, GROWTH * self.training.cpu_s, COST * self.cost)
        while self.training.cpu_s < due and self._goes_on():
            before = self.training.cpu_s
            self.training.iterate()
            self.longest = max(self.longest, self.training.cpu_s - before)

    def _look(self) -> None:
        training, began = self.training, self.training.cpu_s
        greedy, sampled = (measured(training, self.task, explore)[0] for explore in (False, True))
        self.cost = training.cpu_s - began
        self.curve.append(Look(training.episodes, training.env_steps, round(began, 3), greedy, sampled))
        if self.met is None and self.task.meets(greedy):
            self.met = self.curve[-1]


def measured(
    training: LocalTraining, task: Task, explore: bool, seeds: Sequence[int | None] = (None,)
) -> tuple[float, dict[str, float]]:
    """The task's measure, and all metrics, in the worlds of some seeds: means over them."""
    played = [training.evaluate(explore, seed) for seed in seeds]
    metrics = {name: float(np.mean([told[name] for _, told in played])) for name in played[0][1]}
    value = float(np.mean([returns.mean() for returns, _ in played]))
    return (value if task.measure == RETURN else metrics[task.measure]), metrics


def run_one(trial: Trial) -> None:
    """Run a trial in this process and write its file, whole or not at all."""
    import warnings

    import torch
    from popcomm.analysis.experiments.local_training import LocalTraining

    from popcomm.cli import schema
    from popcomm.cli.ray_session import quiet_ray
    from popcomm.rllib import PopulationPPOConfig

    warnings.filterwarnings("ignore")
    quiet_ray()
    torch.set_num_threads(1)
    config = schema.apply(trial.document, PopulationPPOConfig())
    result = Course(trial, LocalTraining(config, trial.task.worlds)).run()
    trial.path.parent.mkdir(parents=True, exist_ok=True)
    part = trial.path.with_suffix(".part")
    part.write_text(json.dumps(result))
    os.replace(part, trial.path)


def stored(out: Path) -> list[dict[str, Any]]:
    """All results in a folder, in the order of tasks, conditions and seeds."""
    found = [json.loads(file.read_text()) for file in (out / RESULTS).glob("*.json")]
    tasks, conditions = list(TASKS), list(CONDITIONS)
    return sorted(found, key=lambda r: (tasks.index(r["task"]), conditions.index(r["condition"]), r["seed"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, write the page; returns the exit code: 1 for a failed run, 2 for a user's mistake."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    command = " ".join(["python -m", f"popcomm.analysis.experiments.{NAME}", *given])
    if options.one:
        return _one(options)

    def work() -> list[Path]:
        from popcomm.analysis.experiments import learning_to_talk_page

        if not options.page:
            train_all(trials(options), options.jobs)
        return learning_to_talk_page.write(options.out, stored(options.out), command)

    return published(NAME, work, options.docs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind; their seeds are 1, 2, ... [5]")
    parser.add_argument("--out", type=Path, required=True, help="where results go")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    short = ", ".join(name for name, task in TASKS.items() if not task.long)
    parser.add_argument("--tasks", nargs="+", help=f"of {', '.join(TASKS)} [{short}]")
    parser.add_argument("--conditions", nargs="+", help=f"of {', '.join(CONDITIONS)} [all]")
    parser.add_argument("--seconds", type=float, help="CPU budget of each run until the bar [the task's: 120 or more]")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time [2]")
    parser.add_argument("--page", action="store_true", help="train nothing: only write the page of what is there")
    parser.add_argument("--one", nargs=3, metavar=("TASK", "CONDITION", "SEED"), help="one run, in this process")
    return parser


def trials(options: argparse.Namespace) -> list[Trial]:
    """What the command line asks for, seeds outermost: a stop leaves whole sets.

    Raises:
        UserError: an unknown task or condition.
    """
    named = options.tasks or [name for name, task in TASKS.items() if not task.long]
    tasks = [games.task_named(name) for name in named]
    conditions = options.conditions or list(CONDITIONS)
    return [
        Trial(options.out, task, condition, seed, options.seconds or task.seconds)
        for seed in range(1, options.seeds + 1)
        for task in tasks
        for condition in conditions
        if games.runs_in(condition, task.name)
    ]


def _one(options: argparse.Namespace) -> int:
    name, condition, seed = options.one
    try:
        task = games.task_named(name)
        games.condition_named(condition)
        if not seed.isdigit():
            raise UserError(f"--one: the seed is '{seed}', and must be a whole number, 0 or more")
        trial = Trial(options.out, task, condition, int(seed), options.seconds or task.seconds)
        if not trial.is_complete():
            run_one(trial)
    except UserError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    prepare_environment()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    sys.exit(main())
