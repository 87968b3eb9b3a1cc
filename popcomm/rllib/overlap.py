"""Overlap: remote env runners sample the next fragment while the learners update from the last one.

Iteration k asks for fragment k + 1, learns from fragment k, waits for the answers, and then hands the new weights to
the runners. So from the second fragment on, runners act with weights that are one update older than those that learn
from what they did. PPO's ratio of the two policies is taken against what the runners did, and does not make up for it
where updates are large (docs/overlap.md).
Between two iterations nothing is under way: what was sampled ahead is held, by reference, and is part of a checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import ray
from ray.exceptions import RayError
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from popcomm.checks import true_or_false
from popcomm.errors import UserError
from popcomm.rllib.answers import Answer, Newcomer, Sampled, parted
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import Fragment, as_batch
from popcomm.rllib.plan import Plan
from popcomm.rllib.settings import Settings

logger = logging.getLogger(__name__)

Ask = Callable[[PopulationEnvRunner], Answer | Newcomer]


def check_overlap(settings: Settings, plan: Plan) -> None:
    """Raises UserError: overlap would have no effect, or what is sampled ahead would not be of those who learn."""
    true_or_false("env_runners.overlap", settings.overlap)
    if not settings.overlap or settings.in_evaluation:
        return
    key = "env_runners.overlap is true, and"
    if settings.num_env_runners == 0:
        raise UserError(
            f"{key} env_runners.num_env_runners is 0: one process samples and learns in turn; use 1 or more, or false"
        )
    if plan.survival is not None and plan.survival.every == 1:
        raise UserError(
            f"{key} survival.every is 1: nothing is sampled ahead where a generation ends, since others sit on the "
            "seats then, and here one ends in every iteration; use survival.every 2 or more, or false"
        )
    if settings.autocast is not None:
        raise UserError(
            f"{key} acceleration.autocast is '{settings.autocast}', with which learners take what runners did for "
            "their own doing, so that nothing corrects for older weights; use one of them"
        )
    growing = [name for name, species in plan.species.items() if hasattr(species.agent_class, "grow")]
    if growing:
        raise UserError(
            f"{key} networks of population.agent {plan.species[growing[0]].agent_class.__name__} change their parts "
            "from one update to the next, which what was sampled ahead would not fit; use false"
        )


class Ahead:
    """What runners sampled ahead, and what they are asked for; nothing where `env_runners.overlap` is off.

    Attributes:
        alive: runners that were there, and in step, when the answers that are held came.
        newcomers: those that are known to have been begun anew, and that nobody has brought up to date.
        updates_behind: updates between the weights that sampled what was taken last and those that learn from it.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.alive: list[int] = []
        self.newcomers: list[int] = []
        self.updates_behind = 0
        self._held: list[Answer] | None = None
        self._asked = 0
        self._under_way = ""  # what RLlib knows the requests by
        self._late: list[str] = []  # and those that were not all answered in time
        if config.overlap:
            logger.info("env runners sample ahead of the learners: from the second fragment on, one update behind")

    def begin(self, group: Any, ask: Ask) -> None:
        """Ask all remote runners for their next fragment, and do not wait."""
        if self._under_way:  # learning failed, and nobody waited
            self._late.append(self._under_way)
        if self._late:  # what comes now is of a time that has passed: it is let go
            group.fetch_ready_async_reqs(tags=self._late)
        self._asked += 1
        self._under_way = f"sample {self._asked}"
        group.foreach_env_runner_async(ask, tag=self._under_way)

    def finish(self, group: Any) -> None:
        """Wait for what was asked for, if anything was, and hold it."""
        if not self._under_way:
            return
        found = group.fetch_ready_async_reqs(tags=self._under_way, timeout_seconds=self.config.sample_timeout_s)
        if len(found) < self.config.num_env_runners:
            self._late.append(self._under_way)
        self._under_way = ""
        # In the order of the runners, whichever was done first: the same worlds go to the same minibatches.
        held, newcomers = parted(answer for _, answer in sorted(found, key=lambda pair: pair[0]))
        # Newcomers are given weights before they are asked again.
        self._held, self.newcomers = None if newcomers and not held else held, [*self.newcomers, *newcomers]
        self.alive = [runner for runner in group.healthy_env_runner_ids() if runner not in newcomers]

    def take(self, group: Any) -> list[Answer] | None:
        """What is held, to be learned from now; None: nothing is, and runners are to be asked.

        A fragment lies with the runner that sampled it, and is lost with its process.
        """
        held, self._held = self._held, None
        self.updates_behind = 0
        if not held:
            return held
        there = dict(
            group.foreach_env_runner(
                lambda runner: (runner.worker_index, runner.has_sampled),
                local_env_runner=False,
                timeout_seconds=self.config.sample_timeout_s,
            )
        )
        lost = [answer.worker_index for answer in held if not there.get(answer.worker_index)]
        for runner in lost:
            logger.warning("what env runner %d sampled ahead is lost with its process", runner)
        self.newcomers = sorted({*self.newcomers, *(runner for runner in lost if runner in there)})
        self.alive = [runner for runner in self.alive if runner not in lost]
        kept = [answer for answer in held if answer.worker_index not in lost]
        self.updates_behind = int(bool(kept))
        return kept or None

    def forget(self) -> None:
        """Drop what is held: the worlds begin anew."""
        self._held, self.newcomers = None, []

    def scalars(self) -> dict[str, float]:
        """charts/updates_behind: how many updates older the weights were that sampled what an iteration learned."""
        return {"charts/updates_behind": self.updates_behind} if self.config.overlap else {}

    # ---- checkpoints ----

    def get_state(self) -> list[dict[str, Any]]:
        """What is held, with its arrays fetched; failures, and what is lost with its runner, are left out."""
        state = []
        for answer in self._held or ():
            if not isinstance(answer, Sampled):
                continue
            try:
                batch = _arrays(answer.batch)
            except RayError:  # which `take` will tell
                continue
            state.append(answer._asdict() | {"batch": batch, "metrics": _told(answer.metrics), "life": ""})
        return state

    def set_state(self, state: Sequence[Mapping[str, Any]], metrics: MetricsLogger) -> None:
        """Hold what was held. metrics: of the training, which knows the kinds of numbers."""
        self.forget()
        if not state:
            return
        remote = bool(self.config.num_learners)
        held: list[Answer] = []
        for told in state:
            batch = _batch(told["batch"], told["steps"])
            logged = MetricsLogger(root=False, stats_cls_lookup=metrics.stats_cls_lookup)
            logged.set_state(told["metrics"])
            sent = ray.put(batch) if remote else batch
            held.append(Sampled(**{**told, "batch": sent, "metrics": logged.stats}))
        self._held, self.alive = held, [answer.worker_index for answer in held]


def _told(metrics: Any) -> dict[str, Any]:
    """The state of a runner's reduced metrics."""
    logged = MetricsLogger(root=False)
    logged.stats = metrics
    return logged.get_state()


def _arrays(batch: MultiAgentBatch | ray.ObjectRef) -> dict[str, Any]:
    """A batch as plain arrays, each once; species that share one name the same place."""
    found = ray.get(batch) if isinstance(batch, ray.ObjectRef) else batch
    places: dict[int, int] = {}
    arrays: list[Any] = []
    species: dict[str, dict[str, int]] = {}
    for name, part in found.policy_batches.items():
        species[name] = {}
        for key, array in part.items():
            if id(array) not in places:
                places[id(array)] = len(arrays)
                arrays.append(array)
            species[name][key] = places[id(array)]
    return {"arrays": arrays, "species": species}


def _batch(told: Mapping[str, Any], steps: int) -> MultiAgentBatch:
    """The batch of `_arrays`. steps: environment steps of all its worlds together."""
    arrays, species = told["arrays"], told["species"]
    parts = {name: {key: arrays[place] for key, place in part.items()} for name, part in species.items()}
    return as_batch(cast("dict[str, Fragment[np.ndarray]]", parts), steps)
