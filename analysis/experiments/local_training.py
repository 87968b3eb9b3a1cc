"""Training in this process alone, without Ray: for experiments of seconds, whose CPU time is counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.release import population_of
from popcomm.rllib.survival import Survival
from popcomm.rllib.training_schedules import MUTATION, PRESSURE, TrainingSchedules
from popcomm.rollout.population import Population
from popcomm.schedules import Clock

# Steps; evaluations play episodes of worlds that may last as long in several fragments.
LONG = 100


class Point(NamedTuple):
    """Where a training stood; returns are means per agent and episode."""

    episodes: int
    cpu_s: float  # of this process, training and evaluations, since the training was made
    greedy: float  # the likeliest actions and messages, in new worlds
    sampled: float  # actions and messages as in training, in new worlds


@dataclass
class LocalTraining:
    """One runner and one learner, stepped by hand: the iteration of PopulationPPO without its processes.

    The same config gives the same weights as `config.build_algo()` with neither remote runners nor remote learners.

    Args:
        config: not validated yet; its runners and learners are not looked at.
        evaluation_worlds: worlds that an evaluation plays one episode in; rounded up to balance the members.
        evaluation_seed: of those worlds.
    """

    config: PopulationPPOConfig
    evaluation_worlds: int = 512
    evaluation_seed: int = 7

    def __post_init__(self) -> None:
        self.config.env_runners(num_env_runners=0).learners(num_learners=0)
        self.config.validate()
        self.plan = self.config.plan
        # Whole blocks, so that members sit equally often.
        block = self.plan.balanced_block
        self.evaluation_worlds = -(-self.evaluation_worlds // block) * block
        self._start = time.process_time()
        self.runner = PopulationEnvRunner(config=self.config, worker_index=0)
        self.learner = PopulationPPOLearner(config=self.config, module_spec=self.config.get_multi_rl_module_spec())
        self.learner.build()
        self.iteration = self.episodes = self.env_steps = 0
        self.fragment: Any = None  # what the last iteration learned from
        self.survival = None if self.plan.survival is None else Survival(self.plan, self.config.seed)
        self.schedules = TrainingSchedules(self.config, self.plan.sharpening(self.config))
        self._players: dict[tuple[bool, int], tuple[PopulationEnvRunner, dict[str, Any]]] = {}

    @property
    def cpu_s(self) -> float:
        """CPU seconds of this process since this was made."""
        return time.process_time() - self._start

    def iterate(self) -> dict[str, Any]:
        """Sample one fragment and learn from it; the learner's metrics."""
        self.runner.module.set_state(self.learner.module.get_state())
        # Schedules look at the steps before this iteration, as in PopulationPPO.
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
        batch = self.fragment = self.runner.sample(self.env_steps)
        self.env_steps = self.runner.num_env_steps_sampled_lifetime
        self.episodes += sum(len(lengths) for _, lengths in self.runner.statistics.finished)
        self.runner.statistics.finished = []
        self.schedules.observe(Clock(timesteps[NUM_ENV_STEPS_SAMPLED_LIFETIME], self.runner.statistics.performance))
        scales, worlds = self.schedules.losses(), [self.plan.total_worlds]
        results = self.learner.update_from_fragments([batch], worlds, self.iteration, timesteps, scales)
        self.iteration += 1
        if self.survival is not None:
            self.survival.take([self.runner.statistics.read_members()])
            if self.survival.due(self.iteration):
                self.end_generation(self.survival)
        return results

    def end_generation(self, survival: Survival) -> None:
        """Select among all members, and let the learner and the runner carry it out."""
        strengths = (self.schedules.strength(name) for name in (MUTATION, PRESSURE))
        successions = survival.select(self.iteration, *strengths).successions
        self.learner.succeed(successions)
        self.runner.succeed({name: succession.newborn for name, succession in successions.items()})

    def evaluate(self, explore: bool, seed: int | None = None) -> tuple[np.ndarray, dict[str, float]]:
        """One episode in each of new worlds, the same ones every time; what it draws does not touch the training.

        Args:
            explore: sample actions and messages as in training, or take the likeliest ones.
            seed: of these worlds; None: `evaluation_seed`.

        Returns:
            returns [evaluation_worlds, N] of the first episode of every world, whatever its length; the mean "length"
            (steps) of these episodes, and the worlds' own metrics, the mean over all episodes that ended meanwhile:
            where episodes differ in length, second ones of worlds whose first ones were short count too.
        """
        player, fresh = self._player(explore, self.evaluation_seed if seed is None else seed)
        player.module.set_state(self.learner.module.get_state())
        player.set_run_state(fresh)
        returns = np.zeros((self.evaluation_worlds, self.config.layout.num_agents))
        lengths, running = np.zeros(self.evaluation_worlds), np.ones(self.evaluation_worlds, bool)
        told: list[tuple[int, dict[str, float]]] = []
        while running.any():
            player.statistics.finished = []
            species = player.sample(self.env_steps).policy_batches.values()
            rewards, alive = (np.concatenate([arrays[key] for arrays in species], 2) for key in ("rewards", "alive"))
            # [B, T], the steps up to the first row in which nobody lives: seats may be left and taken before.
            counted = np.logical_and.accumulate(alive.any(2), 1) & running[:, None]
            returns += (rewards * counted[..., None]).sum(1)
            lengths += counted.sum(1)
            running = counted[:, -1]
            told.append((sum(len(ended) for _, ended in player.statistics.finished), player.statistics.world))
        return returns, {"length": float(lengths.mean()), **_pooled(told)}

    def _player(self, explore: bool, seed: int) -> tuple[PopulationEnvRunner, dict[str, Any]]:
        """A runner of its own, and the state in which it has played nothing yet."""
        if (explore, seed) not in self._players:
            config = self.config.copy(copy_frozen=False)
            config.explore, config.seed = explore, seed
            config.num_worlds_per_env_runner = self.evaluation_worlds
            longest = getattr(self.runner.env, "max_steps", None)
            if longest is not None and longest < LONG:
                config.rollout_fragment_length = longest + 1  # the longest episode, and the row in which it is over
            player = PopulationEnvRunner(config=config, worker_index=0)
            self._players[explore, seed] = player, player.run_state()
        return self._players[explore, seed]

    def greedy(self) -> float:
        """Return per agent and episode, by the likeliest choices."""
        return float(self.evaluate(False)[0].mean())

    def looks(self, env_steps: int, count: int) -> Iterator[int]:
        """Train to so many steps; gives the steps so far at the start, and `count` times more, the last at the end."""
        for number in range(count + 1):
            while self.env_steps < env_steps * number / count:
                self.iterate()
            yield self.env_steps

    def population(self) -> Population:
        """As it is now, out of the trainer."""
        return population_of(self.config, self.learner.networks, Clock(self.env_steps), [])

    def point(self) -> Point:
        """Both evaluations, now."""
        greedy, sampled = (float(self.evaluate(explore)[0].mean()) for explore in (False, True))
        return Point(self.episodes, self.cpu_s, greedy, sampled)


def _pooled(told: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """The metrics of fragments, weighted by how many episodes ended in each."""
    names = dict.fromkeys(name for episodes, metrics in told if episodes for name in metrics)
    pooled = {}
    for name in names:
        weights, values = zip(*((e, metrics[name]) for e, metrics in told if e and name in metrics), strict=True)
        pooled[name] = float(np.average(values, weights=weights))
    return pooled
