"""PopulationEnvRunner: RLlib's face of a Rollout, which hands out fragments and counts what is in them."""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO

from popcomm.agents.distributions import ActionDistribution
from popcomm.channels import Channel
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import World
from popcomm.errors import UserError
from popcomm.rllib import object_store
from popcomm.rllib.answers import Answer, Newcomer, Sampled, SamplingFailure
from popcomm.rllib.callbacks import RunnerCallbacks
from popcomm.rllib.determinism import leave_new_memory, without_compiler
from popcomm.rllib.episodes import Episodes
from popcomm.rllib.fragment import as_batch, packed
from popcomm.rllib.graph import graph_of, relink
from popcomm.rllib.listening import Listening
from popcomm.rllib.plan import plan_of, surroundings
from popcomm.rllib.rollout_statistics import RolloutStatistics
from popcomm.rllib.sampler import Sampler
from popcomm.rllib.settings import Settings
from popcomm.rllib.step_limit import StepLimit
from popcomm.rllib.transcript import Transcript
from popcomm.rollout import Rollout, Seeds, seed_of
from popcomm.schedules import Clock

logger = logging.getLogger(__name__)


class PopulationEnvRunner(EnvRunner, Checkpointable):
    """B worlds, stepped T times a call. RLlib makes one per `num_env_runners`, or one in the driver.

    `sample()` returns a MultiAgentBatch {species: arrays of `fragment.allocate`}. Worlds go on where they were from one
    call to the next; seats are drawn anew where episodes start.

    Attributes:
        rollout: the worlds, and who plays in them.
        sampler: makes fragments of its steps, counts them and writes them down.
    """

    def __init__(self, *, config: Settings, **kwargs: object) -> None:
        with without_compiler():
            super().__init__(config=config, **kwargs)
        leave_new_memory()
        self.plan = plan_of(config)
        self.env: World
        self.layout: WorldLayout
        self.num_worlds: int
        self._device = get_device(self.config, self.config.num_gpus_per_env_runner if self.worker_index else 0)
        self._weights_seq_no = 0
        self._life = uuid.uuid4().hex
        self._has_weights = False  # of the learners
        self._new = True  # has neither sampled nor been restored
        self.callbacks = RunnerCallbacks(config, {"env_runner": self, "metrics_logger": self.metrics})
        self.module: Any
        self.make_env()
        self.make_module()
        self.rollout = Rollout(
            self.env,
            dict(self.module.items()),
            self.channel,
            seeds=self._seeds(),
            seating=self.plan.seating_rule,
            explore=bool(config.explore),
        )
        episodes = Episodes(self.rollout, self.callbacks, self.module) if self.callbacks.follow_episodes else None
        limit, env = None, getattr(config.world, "__name__", config.world)
        if config.step_timeout_s is not None:
            who = f"env runner {self.worker_index or 0}: {self.num_worlds} world(s) of {env}"
            limit = StepLimit(config.step_timeout_s, who)
        # The first runner alone keeps a transcript.
        first = (self.worker_index or 0) <= 1
        self.sampler = Sampler(config, self.plan, self.rollout, dict(self.module.items()), first, episodes, limit)

    def _seeds(self, *branch: int) -> Seeds:
        """All that is random here is a function of the config's seed, this runner's index, and `branch`."""
        return Seeds.of(self.config.seed, self.worker_index or 0, *branch)

    @property
    def statistics(self) -> RolloutStatistics:
        """What is counted of the rollout."""
        return self.sampler.statistics

    @property
    def listening(self) -> Listening:
        """What is asked of those who play in it."""
        return self.sampler.listening

    @property
    def transcript(self) -> Transcript:
        """What is written down of it."""
        return self.sampler.transcript

    @property
    def distributions(self) -> dict[str, ActionDistribution]:
        """{species: distribution of its actions}."""
        return self.sampler.distributions

    # ---- what RLlib asks for ----

    def make_env(self) -> None:
        """Make the worlds and their channel (they start at the first sample)."""
        if self.env is not None:
            self.env.close()
        config = self.config
        # The driver's own runner makes no rollouts when there are remote ones, and an evaluation has worlds of its own:
        # one world is enough for the spaces.
        idle = config.in_evaluation or (self.worker_index == 0 and config.num_env_runners > 0)
        self.num_worlds = 1 if idle else config.num_worlds_per_env_runner
        self.env = config.make_world(self.num_worlds, self._device, playing=not idle)
        self.env.tells_state = self.plan.reads_state
        self.layout = self.plan.layout
        self.channel: Channel | None = self.plan.channel
        if not idle:
            context = EnvContext(config.env_config, self.worker_index or 0, num_workers=config.num_env_runners)
            self.callbacks.call("on_environment_created", env=self.env, env_context=context)

    def make_module(self) -> None:
        self.module = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True).build()
        self.module.foreach_module(lambda _, module: module.to(self._device))

    def agent(self, name: str) -> Any:
        """The network of a species."""
        return self.module[name].agent

    def get_spaces(self) -> dict[str, Any]:
        spaces = {name: (s.observation_space, s.action_space) for name, s in self.layout.species.items()}
        whole = tuple(next(iter(spaces.values())))
        return {**spaces, "__env__": whole, "__env_single__": whole}

    def assert_healthy(self) -> None:
        assert self.env is not None, "the worlds were not made"
        assert self.module is not None, "the networks were not made"

    def stop(self) -> None:
        if self.env is not None:
            self.env.close()

    def get_metrics(self) -> Any:
        """RLlib's reduced metrics of what was sampled since the last call."""
        self.statistics.log(self.metrics)
        session = self.rollout.players.session
        for name, value in ({} if session is None else session.measures()).items():
            self.metrics.log_value(("channel", name), value, window=1)
        return self.metrics.reduce()

    # ---- sampling ----

    @torch.no_grad()
    def sample(
        self,
        env_steps: int | None = None,
        performance: Mapping[str, float] | None = None,
        fades: list[dict[str, Any]] | None = None,
        iteration: int = 0,
        **kwargs: Any,
    ) -> MultiAgentBatch:
        """T steps of B worlds. Rows of the batch are worlds.

        A runner that is new to a training under way (RLlib made it in place of a lost one, with the same arguments)
        does not live through the beginning again: its random numbers are a function of `env_steps`, too.

        Args:
            env_steps: the environment steps of all runners so far, which fades follow; None: this runner's, as if the
                others had made as many.
            performance: what all runners measured last, which fades may follow; None: what this one did.
            fades: what the schedules of reflexes remember in all runners; None: what they do in this one.
            iteration: of the training, which transcripts note.
        """
        if self._new and env_steps:
            self.rollout.players.reseed(self._seeds(env_steps))
            # No world has had as many episodes, so none is numbered twice.
            self.transcript.number_from(env_steps)
        self._new = False
        if env_steps is None:
            env_steps = self.num_env_steps_sampled_lifetime * max(1, self.config.num_env_runners)
        # The clock counts what all runners step, and stands still within a fragment.
        told = self.statistics.performance if performance is None else performance
        self.rollout.follow(Clock(env_steps, told), fades or [])
        self.transcript.begin_fragment(iteration, env_steps)
        self.relink()
        if not self.rollout.started:
            self.sampler.begin()
        fragments, stepped = self.sampler.sample()
        self.num_env_steps_sampled_lifetime += stepped
        batch = as_batch(fragments, stepped)
        self.callbacks.call("on_sample_end", samples=batch)
        return batch

    def relink(self) -> None:
        """Send through the learned graph as the weights have it now; nothing where none is learned."""
        relink(self.rollout.players.session, graph_of(self.channel, self.layout, dict(self.module.items())))

    def sample_or_say_why(
        self,
        by_reference: bool,
        env_steps: int | None = None,
        performance: Mapping[str, float] | None = None,
        fades: list[dict[str, Any]] | None = None,
        iteration: int = 0,
    ) -> Answer | Newcomer:
        """The batch goes to the learners without passing the driver; a failure goes to the user with its traceback.

        RLlib would end this process on an exception, and its traceback would end with it. Where
        `fault_tolerance(restart_failed_sub_environments=True)` says so, the worlds are made anew.

        A remote runner that Ray began anew between two calls says so, and does not act with the weights it began with.
        """
        if self.worker_index and self._new and not self._has_weights:
            return Newcomer(self.worker_index)
        try:
            batch = self.sample(env_steps, performance, fades, iteration)
        except (Exception, SystemExit):
            failure = SamplingFailure(self.worker_index or 0, traceback.format_exc())
            if self.config.restart_failed_sub_environments:
                self._make_worlds_anew()
            return failure
        try:
            sent = object_store.put(packed(batch), self.config) if by_reference else batch
        except UserError as error:
            return SamplingFailure(self.worker_index or 0, "", str(error))
        measured = {name: float(value) for name, value in self.statistics.performance.items()}
        members = self.statistics.read_members()
        return Sampled(
            sent,
            self.num_worlds,
            self.get_metrics(),
            batch.env_steps(),
            measured,
            self.fades(),
            members,
            self.worker_index or 0,
            self.statistics.private.read(),
            self._life,
        )

    def succeed(self, newborn: Mapping[str, np.ndarray]) -> None:
        """Others sit on the seats of members that were replaced. newborn: {species: [P] bool}."""
        players = self.rollout.players
        if players.now is not None:
            players.succeed(newborn)
            self.statistics.lives.succeed(newborn, players.members, players.under_way)

    def _make_worlds_anew(self) -> None:
        self.make_env()
        self.rollout.renew(self.env)
        self.sampler.count_anew()
        # Not the worlds of the beginning again.
        players = self.rollout.players
        players.seeds = players.seeds._replace(world=int(players.seating_rng.integers(2**63)))

    @property
    def has_sampled(self) -> bool:
        """Whether this process has sampled, or goes on from one that had."""
        return not self._new

    def expect_weights(self) -> None:
        """Take the next weights whatever their number: an older checkpoint is about to be restored."""
        self._weights_seq_no = 0

    def fades(self) -> list[dict[str, Any]]:
        """What the schedules of reflexes remember; nothing before the first step, or where none act."""
        return self.rollout.fades()

    # ---- state ----

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Weights and counters; `run_state` has the rest."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        wanted = [components] if isinstance(components, str) else components
        unwanted = [not_components] if isinstance(not_components, str) else not_components or []
        if COMPONENT_RL_MODULE not in unwanted and (
            wanted is None or any(c.startswith(COMPONENT_RL_MODULE) for c in wanted)
        ):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        if COMPONENT_RL_MODULE in state:
            sequence = state.get(WEIGHTS_SEQ_NO, 0)
            if sequence == 0 or self._weights_seq_no < sequence:
                weights = state[COMPONENT_RL_MODULE]
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
                self._has_weights = True
            if sequence > 0:
                self._weights_seq_no = sequence

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        return [(COMPONENT_RL_MODULE, self.module)]

    def save_to_path(self, path: Any = None, *, state: dict[str, Any] | None = None, **kwargs: Any) -> str:
        """RLlib's files of a runner, without the weights: they are the learners', which write their own."""
        state = self.get_state(not_components=COMPONENT_RL_MODULE) if state is None else state
        return str(super().save_to_path(path, state=state, **kwargs))

    def run_state(self) -> dict[str, Any]:
        """All of this runner that decides the future, but the weights: the rollout's state, and what is counted of it.

        Where the worlds cannot be saved (foreign environments that do not pickle) "world" is None, and a restored
        runner starts new episodes.
        """
        own = {"belongs_to": self.surroundings(), "steps": self.num_env_steps_sampled_lifetime}
        return own | self.sampler.get_state() | self.rollout.get_state()

    def surroundings(self) -> dict[str, str]:
        """What a `run_state` must have in common with this runner, for it to go on from there."""
        return surroundings(self.config, self.plan, self.num_worlds)

    def start_anew(self) -> None:
        """Forget the worlds and all that went on in them: the next sample starts new episodes, with random numbers that
        are a function of the steps made so far."""
        self._new = True
        self.rollout.players.forget()
        self.sampler.count_anew()

    def set_run_state(self, state: dict[str, Any]) -> None:
        """Go on from a `run_state`."""
        self.start_anew()
        self._new = False
        self.num_env_steps_sampled_lifetime = steps = state["steps"]
        self.rollout.set_state(state)
        self.sampler.set_state(state, steps * max(1, self.config.num_env_runners))
        if state["started"] and not self.rollout.started:
            logger.warning("these worlds cannot be restored in the middle of an episode: new episodes start")
            self.sampler.begin(seed_of(self.rollout.players.seeds.world, steps))
