"""PopulationPPOConfig: RLlib's chained configuration, with populations and channels."""

from __future__ import annotations

from typing import ClassVar

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from typing_extensions import Self

from popcomm.channels import MessageKind
from popcomm.evolution.strategy import IMITATE
from popcomm.rllib import validation
from popcomm.rllib.config_of_training import ConfigOfTraining
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.graph import links_of
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.module import PopulationMultiRLModule, PopulationRLModule
from popcomm.rllib.plan import Plan, messages_of, plan_of
from popcomm.rllib.survival_plan import first_scales
from popcomm.rllib.unsupported import filled_in, load_paths
from popcomm.rollout import seed_of

MODULE_BRANCH = 5


class PopulationPPOConfig(ConfigOfTraining):
    """Configuration of PopulationPPO.

    >>> config = (PopulationPPOConfig()
    ...     .environment("swarm_v0", env_config={"num_agents": 10})
    ...     .communication(messages={"kind": "symbols", "vocab_size": 64, "length": 5}, topology={"kind": "ring"})
    ...     .population(agent="symbolic", members=10)
    ...     .env_runners(num_worlds_per_env_runner=4))
    >>> config.layout.num_agents
    10

    Settings of PPO start where agents learned to talk (docs/learning_to_talk.md): many small steps, and an entropy
    bonus that keeps listeners trying. A unit of its own: `minibatch_size` and `train_batch_size_per_learner` count
    worlds (rows of a fragment), and the latter follows from the runners and their worlds.
    """

    # PopulationPPO, which names itself here: it stands on this.
    algorithm: ClassVar[type | None] = None

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or self.algorithm)
        self.env_runner_cls = PopulationEnvRunner

    # ---- what follows ----

    @property
    def plan(self) -> Plan:
        """What follows from the settings as they are now."""
        return plan_of(self)

    @property
    def message_kind(self) -> MessageKind | None:
        """The kind of message that is sent in training, or None."""
        return messages_of(self)

    # ---- what RLlib asks for ----

    def get_default_learner_class(self) -> type[PopulationPPOLearner]:
        return PopulationPPOLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=PopulationRLModule)

    def get_multi_rl_module_spec(
        self, *, env: object = None, spaces: object = None, inference_only: bool = False, **kwargs: object
    ) -> MultiRLModuleSpec:
        """One RLModule per species. What `.rl_module(rl_module_spec=...)` says of where to load weights is kept."""
        specs, plan, paths = {}, plan_of(self), load_paths(self)
        for index, (name, species) in enumerate(plan.species.items()):
            scales, taught = {}, False
            if plan.survival is not None and name in plan.survival.strategies:
                scales = first_scales(plan.survival, species.members, self.seed, index)
                taught = plan.survival.begin_with(name) == IMITATE
            specs[name] = RLModuleSpec(
                module_class=PopulationRLModule,
                observation_space=species.species.observation_space,
                action_space=species.species.action_space,
                model_config={
                    "spec": species.spec,
                    "agent": species.agent_class,
                    "agent_config": dict(species.agent_config),
                    "critic": species.critic,
                    "quality": species.quality_weight > 0,
                    "seed": seed_of(self.seed, MODULE_BRANCH, index),
                    "scales": scales,
                    "taught": taught,
                    "links": links_of(plan, name),
                },
                load_state_path=paths.get(name),
            )
        return MultiRLModuleSpec(multi_rl_module_class=PopulationMultiRLModule, rl_module_specs=specs)

    def get_evaluation_config_object(self) -> Self | None:
        """RLlib's copy for its evaluation runners, whose worlds stay those of training: an evaluation makes its own."""
        config = super().get_evaluation_config_object()
        if config is not None:
            config.env_config = self.env_config
        return config

    def validate(self) -> None:
        """Check everything before any work starts.

        Raises:
            UserError: in one sentence, the key, its value, and what is allowed.
        """
        plan = validation.check(self)
        self.filled_in = filled_in(self, plan)
        self._set(**self.filled_in)
        super().validate()

    def validate_train_batch_size_vs_rollout_fragment_length(self) -> None:
        """RLlib compares env steps here; a batch of whole worlds is what the runners sample by construction."""

    def get_rollout_fragment_length(self, worker_index: int = 0) -> int:
        return self.rollout_fragment_length
