"""PopulationPPO: RLlib's Algorithm whose iteration keeps the population a tensor axis from world to gradient."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from ray.rllib.algorithms.ppo.ppo import PPO
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from popcomm.errors import UserError
from popcomm.rllib import checkpoints, evaluating, generations, learners, restoring
from popcomm.rllib.answers import Sampled, pooled
from popcomm.rllib.attendance import Attendance
from popcomm.rllib.checkpoints import PathLike
from popcomm.rllib.config import PopulationPPOConfig
from popcomm.rllib.determinism import without_compiler
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.harvest import Harvest, NoSamplesError, SamplingError, stop_remote
from popcomm.rllib.overlap import Ahead, Ask
from popcomm.rllib.plan import plan_of
from popcomm.rllib.privacy import Ledger, privacy_in
from popcomm.rllib.recording import Recording
from popcomm.rllib.release import released
from popcomm.rllib.shares import LostFragments
from popcomm.rllib.survival import Survival
from popcomm.rllib.training_schedules import MUTATION, PRESSURE, TrainingSchedules
from popcomm.rllib.trial_folder import nowhere, where_it_records
from popcomm.rllib.without_effect import tell_what_is_idle
from popcomm.rollout import Rollout
from popcomm.rollout.population import Population
from popcomm.schedules import Clock

# By this name Tune and RLlib find it, as they do their own.
ALGORITHMS["PopulationPPO"] = lambda: (PopulationPPO, PopulationPPO.get_default_config())

__all__ = ["NoSamplesError", "PopulationPPO", "SamplingError"]

Answer = TypeVar("Answer")
Components = str | Collection[str] | None


class PopulationPPO(PPO):
    """PPO for populations. Built by `PopulationPPOConfig().build_algo()`."""

    config: PopulationPPOConfig

    @classmethod
    def get_default_config(cls) -> PopulationPPOConfig:
        return PopulationPPOConfig()

    def setup(self, config: PopulationPPOConfig) -> None:
        self.config = config = where_it_records(config, self._storage, self.logdir)
        self.plan = plan_of(config)
        # The clock of fades, beside the steps: what all runners measured last, and what schedules remember.
        self.performance: dict[str, float] | None = None
        self.known_fades: list[dict[str, object]] | None = None
        # What members of each species came to in the last iteration: {species: {measure: [P]}}.
        self.members: dict[str, dict[str, np.ndarray]] = {}
        self.selected: dict[str, dict[str, float]] = {}  # what the last iteration's selection came to, if there was one
        self.survival = Survival(self.plan, config.seed) if self.plan.survival else None
        self.ledger = Ledger(privacy_in(self.plan.channel))  # of what private messages spent
        self.schedules = TrainingSchedules(config, self.plan.sharpening(config))
        self.attendance = Attendance(config)
        self.ahead = Ahead(config)
        self.harvest = Harvest(config, self.attendance, self.ahead)
        self._recording = Recording()
        tell_what_is_idle(config, self.plan)
        if self._storage is None:  # a trial's folder is Tune's
            self._recording.take(config.run_dir)
        try:
            with without_compiler():
                super().setup(config)
            if config.num_env_runners:
                # RLlib leaves it out, and without a seed each has others.
                restoring.give_weights(self)
        except BaseException:
            self._recording.close()
            raise

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial in the same process (Tune's reuse_actors): all but the process is made anew."""
        self.cleanup()
        config = self.get_default_config().update_from_dict(new_config)
        config.validate()
        config.freeze()
        self.metrics = MetricsLogger(root=True, stats_cls_lookup=config.stats_cls_lookup)
        self.setup(config)
        return True

    def cleanup(self) -> None:
        for name in ("env_runner_group", "eval_env_runner_group"):
            group = getattr(self, name, None)
            if group is not None:
                stop_remote(group)
        try:
            super().cleanup()
        finally:
            self._recording.close()

    @property
    def env_steps(self) -> int:
        """Environment steps of all runners, since the training began."""
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    # ---- one iteration ----

    def training_step(self) -> None:
        # Schedules look at the steps before this iteration: a number that a restored run has, too.
        began = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            sampled = self._sample()
        if not self._are_enough(sampled):
            self.harvest.count_empty()
            return
        self.schedules.observe(Clock(began[NUM_ENV_STEPS_SAMPLED_LIFETIME], self.performance or {}))
        if self._samples_ahead():
            self.ahead.begin(self.env_runner_group, self._asking(self.iteration + 2))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self._learn(sampled, began)
        if not results:
            self.ahead.finish(self.env_runner_group)
            self.harvest.count_empty()
            return
        self.harvest.count_full()
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        newborn = self._select()
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            self.ahead.finish(self.env_runner_group)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self._sync_weights()
        if newborn:
            self.foreach_sampling_runner(lambda runner: runner.succeed(newborn))

    def _sync_weights(self) -> None:
        """Give all runners what was learned."""
        if not self.config.num_env_runners and learners.hand_over(self.learner_group, self.env_runner):
            return
        restoring.send_weights(self)

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """RLlib's, which tells callbacks itself."""
        restored = super().restore_env_runners(env_runner_group)
        if env_runner_group is self.env_runner_group:
            self.harvest.restored |= set(restored)
        return restored

    def _select(self) -> dict[str, np.ndarray]:
        """End a generation, if it is due: {species: [P] bool}, on whose places newborns sit."""
        iteration = self.training_iteration + 1
        if self.survival is None or not self.survival.due(iteration):
            return {}
        strengths = (self.schedules.strength(name) for name in (MUTATION, PRESSURE))
        selected = self.survival.select(iteration, *strengths)
        diversity = learners.ask(self.learner_group, lambda learner: learner.succeed(selected.successions))[0]
        self.selected = {name: {**told, "weight_diversity": diversity[name]} for name, told in selected.told.items()}
        return {name: succession.newborn for name, succession in selected.successions.items()}

    def _count_members(self, counted: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
        """Take in what members came to in an iteration. counted: of each runner."""
        if self.survival is not None:
            self.survival.take(counted)
        self.members = generations.measured(self.plan, counted)

    def _samples_ahead(self) -> bool:
        """Whether runners sample while the learners learn: not where others will sit on the seats afterwards."""
        ends = self.survival is not None and self.survival.due(self.training_iteration + 1)
        return self.config.overlap and not ends

    def _asking(self, iteration: int) -> Ask:
        """What a runner is asked, for a fragment of an iteration that begins with the clock as it is now."""
        clock = (self.env_steps, self.performance, self.known_fades, iteration)
        by_reference = bool(self.config.num_env_runners or self.config.num_learners)
        return lambda runner: runner.sample_or_say_why(by_reference, *clock)

    def _sample(self) -> list[Sampled]:
        """What all runners that answered sampled."""
        sampled = self.harvest.gather(self.env_runner_group, self._asking(self.iteration + 1))
        if self.harvest.begun_anew:
            restoring.bring_up_to_date(self, self.harvest.begun_anew)
        if sampled:
            self.metrics.aggregate([a.metrics for a in sampled], key=ENV_RUNNER_RESULTS)
            self.performance, self.known_fades = pooled(sampled), sampled[0].fades
            self._count_members([a.members for a in sampled])
            self.ledger.take(a.private or {} for a in sampled)
        return sampled

    def _are_enough(self, sampled: Sequence[Sampled]) -> bool:
        """Fewer balanced blocks than learners would leave one of them without a world."""
        return sum(a.rows for a in sampled) // self.plan.balanced_block >= max(1, self.config.num_learners)

    def _learn(self, sampled: list[Sampled], timesteps: dict[str, int]) -> list[object]:
        """The learners' metrics after one update; empty where runners were lost, and what is left is not enough."""
        while self._are_enough(sampled):
            results = learners.ask(self.learner_group, self._update_from(sampled, timesteps))
            if not isinstance(results[0], LostFragments):
                return results
            sampled = self.harvest.without_lost(sampled, results[0])
        return []

    def _update_from(self, sampled: Sequence[Sampled], timesteps: dict[str, int]) -> Callable[[Any], object]:
        """What a learner is asked."""
        batches, rows = [a.batch for a in sampled], [a.rows for a in sampled]
        iteration, scales = self.training_iteration, self.schedules.losses()
        return lambda learner: learner.update_from_fragments(batches, rows, iteration, timesteps, scales)

    def step(self) -> dict[str, object]:
        """One iteration's results, with RLlib's names; totals of env and agent steps stand at the top, too."""
        self.members, self.selected = {}, {}  # an iteration in which nothing is learned has none of the one before
        with learners.loss_told(self.learner_group):
            results = super().step()
        sampled = results.get(ENV_RUNNER_RESULTS, {})
        results["num_agent_steps_sampled_lifetime"] = int(
            sum(sampled.get(NUM_MODULE_STEPS_SAMPLED_LIFETIME, {}).values())
        )
        results["member"], results["survival"] = self.members, self.selected
        results[NUM_ENV_STEPS_SAMPLED_LIFETIME] = int(results.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        return results

    def log_result(self, result: dict[str, Any]) -> None:
        """Measure, call the user's on_train_result, and write down what both say."""
        self._recording.measure(self, result)
        super().log_result(result)
        self._recording.write(self, result)

    # ---- out of the trainer ----

    def rollout(
        self,
        seed: int = 0,
        greedy: bool = False,
        worlds: int | None = None,
        env_config: Mapping[str, Any] | None = None,
    ) -> Rollout:
        """Worlds in which the population plays as it is now (`popcomm.rollout.Playable`), on this process's CPU."""
        return released(self).rollout(seed, greedy, worlds, env_config)

    def population(self) -> Population:
        """The population as it is now, in a copy, out of the trainer."""
        return released(self)

    # RLlib's `evaluate` asks for one of these two, where it has brought the runners up to date.

    def _evaluate_on_local_env_runner(self, env_runner: PopulationEnvRunner) -> tuple[None, int, int, list[object]]:
        return evaluating.log(self.metrics, evaluating.here(self))

    def _evaluate_with_fixed_duration(self) -> tuple[None, int, int, list[object]]:
        return evaluating.log(self.metrics, evaluating.by_runners(self))

    # ---- state and checkpoints ----

    def get_state(
        self, components: Components = None, *, not_components: Components = None, **kwargs: object
    ) -> dict[str, object]:
        """RLlib's state, and what of the runners decides the future."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if components is None or restoring.RUNNER_STATES in components:
            state |= restoring.own_state(self)
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        restoring.set_own_state(self, state)

    def start_anew(self) -> None:
        """The worlds of all runners begin new episodes, with random numbers that follow from the seed and the steps."""
        self.ahead.forget()
        self.foreach_sampling_runner(lambda runner: runner.start_anew())

    def fades(self) -> list[dict[str, object]]:
        """What the schedules of reflexes remember, in all runners; nothing before the first step."""
        if self.known_fades is not None:
            return self.known_fades
        return next(iter(self.foreach_sampling_runner(lambda runner: runner.fades())), [])

    def foreach_sampling_runner(
        self, func: Callable[[PopulationEnvRunner], Answer], patience: float | None = None
    ) -> list[Answer]:
        """Results of those runners that sample: the remote ones, or the driver's own if there are none.

        patience: seconds to wait for them; None: until they answer.
        """
        local = self.config.num_env_runners == 0
        return self.env_runner_group.foreach_env_runner(func, local_env_runner=local, timeout_seconds=patience)

    def save_to_path(self, path: PathLike | None = None, **kwargs: object) -> str:
        """RLlib's checkpoint, complete or not there at all, with a manifest that `from_checkpoint` verifies."""
        learners.check_all_are_there(self.learner_group)
        with learners.loss_told(self.learner_group):
            return checkpoints.save(self, super().save_to_path, path, **kwargs)

    @classmethod
    def from_checkpoint(
        cls,
        path: PathLike,
        *args: object,
        trust: bool = False,
        config: PopulationPPOConfig | None = None,
        **kwargs: object,
    ) -> PopulationPPO:
        """The algorithm as it was when `path` was saved; it records nowhere, unless a config with a `run_dir` is given.

        Args:
            path: what `save_to_path` wrote.
            trust: read pickles, too: you know who wrote the checkpoint. Without, none of its files can run code;
                environments of others, whose state only a pickle has, begin new episodes.
            config: that it had, where one was not written down for lack of names (lambdas), or where it is to record:
                with the original's `run_dir`, what that run recorded beyond the checkpoint is recorded anew.

        Raises:
            CheckpointError: a file is missing or changed; the restored weights are not those that were saved; it is of
                an earlier popcomm, whose state is in pickles, and `trust` is not said.
            UserError: the config is not there, or names code of an installed package that no file can name.
        """
        checkpoints.verify(checkpoints.local_path(path))
        with nowhere() if config is None else nullcontext():
            if trust and config is None:
                return super().from_checkpoint(path, *args, trust=True, **kwargs)
            return restoring.made(cls, path, config, trust)

    def restore_from_path(
        self, path: PathLike, *args: object, component: str | None = None, trust: bool = False, **kwargs: object
    ) -> None:
        """Go on from what `save_to_path` wrote; see `from_checkpoint`.

        Args:
            path: a checkpoint; with `component`, the folder of that component in one.
            component: RLlib's name of a part, which alone is restored: learner_group/learner/rl_module/swarm.
            trust: read pickles, too.
        """

        def by_rllib() -> None:
            super(PopulationPPO, self).restore_from_path(path, *args, component=component, trust=True, **kwargs)

        # Runners refuse weights that are older than theirs, unless they are told to expect them.
        self.foreach_sampling_runner(lambda runner: runner.expect_weights())
        restoring.restore(self, Path(checkpoints.local_path(path)), component, trust, by_rllib)
        if component is None:
            make_callback(
                "on_checkpoint_loaded",
                self.callbacks,
                self.config.callbacks_on_checkpoint_loaded,
                kwargs={"algorithm": self},
            )

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune's way to `restore_from_path`, which calls on_checkpoint_loaded."""
        self.restore_from_path(checkpoint_dir)

    def remove_module(self, *args: object, **kwargs: object) -> NoReturn:
        raise UserError("species cannot be removed from a running population: they share a world")

    def add_module(self, *args: object, **kwargs: object) -> NoReturn:
        raise UserError("species cannot be added to a running population: they come from the world")

    def learner_statistics(self, results: dict[str, Any]) -> dict[str, dict[str, float]]:
        """{species: {name: value}} of the learners' part of a result."""
        learners = results.get(LEARNER_RESULTS, {})
        return {name: values for name, values in learners.items() if name != ALL_MODULES}


PopulationPPOConfig.algorithm = PopulationPPO
