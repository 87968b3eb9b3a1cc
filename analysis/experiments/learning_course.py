"""One run of learning to talk: a game, a way to talk and a seed, trained until its bar is met, and some time more."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from popcomm.analysis.experiments import learning_tasks as games
from popcomm.analysis.experiments.frame import versions
from popcomm.analysis.experiments.learning_tasks import RETURN, Task
from popcomm.analysis.experiments.runs import run_logged

from popcomm.errors import UserError

if TYPE_CHECKING:
    from popcomm.analysis.experiments.local_training import LocalTraining

MODULE = "popcomm.analysis.experiments.learning_to_talk"
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
        return self.out / RESULTS / f"{self.name}.json"

    @property
    def name(self) -> str:
        return f"{self.task.name}-{self.condition}-{self.seed}"

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
        command = [sys.executable, "-m", MODULE, *one, *rest]
        run_logged(self.name, command, self.path.with_suffix(".log"))


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
        trial, met = self.trial, self.met
        return {
            "task": trial.task.name, "condition": trial.condition, "seed": trial.seed, "seconds": trial.seconds,
            "bar": self.task.threshold, "curve": [list(look) for look in self.curve],
            "met": None if met is None else met._asdict(), "end": {name: value for name, (value, _) in ends.items()},
            "metrics": {name: metrics for name, (_, metrics) in ends.items()},
            "config": trial.document, "versions": versions(),
        }  # fmt: skip

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
