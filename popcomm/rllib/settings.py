"""Settings: what a population's config holds, and where it starts; the config's methods say what each is for."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ray import cloudpickle
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from ray.rllib.utils.serialization import NOT_SERIALIZABLE
from typing_extensions import Self

from popcomm.channels import MessageKind, Topology
from popcomm.channels.broadcast.reflex import Reflex
from popcomm.envs.layout import WorldLayout
from popcomm.envs.making import EnvLike, make_world
from popcomm.envs.process_worlds import TIMEOUT
from popcomm.envs.species import SpeciesLike
from popcomm.envs.world import Species, World
from popcomm.errors import UserError, nearest
from popcomm.rllib.by_species import BySpecies

# Keys that RLlib has in dicts alone.
OF_DICTS = """
    callbacks class create_env_on_driver custom_eval_function framework input lambda multiagent num_cpus_for_driver
    num_workers
"""
# Weights of the losses that make messages learned, where a config leaves them open (docs/learning_to_talk.md), and the
# share of the entropy bonus that pulls at actions about to be ruled out. Symbols that carry gradients rise from the
# first sharpness to the last.
LEFT_OPEN = {
    "quality_coeff": 0.5,
    "message_balance_coeff": 0.1,
    "message_sharpness": 0.1,
    "last_message_sharpness": 0.6,
    "rare_action_share": 1.0,
}
ENTROPY_COEFF = 0.05  # weight of the actions' entropy (nats), where a config leaves it open


class Settings(PPOConfig):
    """RLlib's settings and those of populations, as values; what follows from them is a `Plan` (popcomm.rllib.plan).

    All that trains knows its config as this.
    """

    # Settings that came later, for configs in checkpoints from before.
    message_credit: str | None = "step"
    importance_every: int = 0
    language_metrics: Sequence[str] = ()
    learn_from: str = "rewards"
    rare_action_share: float | None = 0.0
    entropy_over_worlds: float = 0.0
    quality_coeff: float | None = 0.0
    message_balance_coeff: float | None = 0.0
    message_kl_coeff: float = 0.0
    message_sharpness: float | None = 0.0
    time_limit: str = "bootstrap"
    processes: int | None = None
    process_timeout: float = TIMEOUT
    communities: int = 1
    mixing: float = 0.0
    reflexes: Sequence[Reflex | dict[str, object] | str] = ()
    channel_capacity: int | None = None
    channel_inbox: int | None = None
    channel_rounds: int = 0
    channel_gate: object = None
    channel_budget: object = None
    vocabulary: Mapping[str, object] | None = None
    survival_given: frozenset[str] = frozenset()  # keys of `survival` that were said
    survival_strategy: object = None
    survival_every: int = 10
    survival_fitness: object = "return"
    survival_smoothing: float = 0.5
    mutation_std: float = 0.02
    survival_crossover: float = 0.0
    survival_newborns: str | None = None
    survival_lessons: int = 5
    survival_hyperparameters: Mapping[str, Sequence[float]] | None = None
    survival_perturbation: float = 1.2
    survival_within: str = "species"
    mutation_schedule: object = None
    survival_pressure: object = None
    loss_schedules: Mapping[str, object] | None = None
    federated: object = None
    joint_critic: object = None
    keep_checkpoints: int | None = None
    step_timeout_s: float | None = None
    overlap: bool = False
    species_as: SpeciesLike | None = None
    agent_id: bool = False
    # {setting of `training`: {species: value}}, where they differ.
    learning_by_species: Mapping[str, Mapping[str, object]] = {}
    names_all_species: bool = False  # where it is False, a species that `members` does not name has one
    refuses_idle: bool = False  # where it is False, settings that others leave without effect are let through
    # What stands for None in the weights of losses, in the code that made the config: a checkpoint goes on with it.
    left_open: Mapping[str, float] = LEFT_OPEN
    # What `validate` set of RLlib's settings, which no user did: {name: value}.
    filled_in: Mapping[str, object] = {}

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self._start_with_populations()
        self._start_learning()
        self._layout: tuple[object, WorldLayout] | None = None
        self.learning_by_species = {}
        self.left_open = dict(LEFT_OPEN)
        self.names_all_species = True
        self.refuses_idle = True

    def _start_with_populations(self) -> None:
        """The world, the channel, who lives in them, and what is written down."""
        self.world: EnvLike | None = None
        self.species_as = None
        self.agent_id = False
        self.processes = None
        self.process_timeout = TIMEOUT
        self.messages: MessageKind | dict[str, object] | None = None
        self.channel_topology: Topology | dict[str, object] = {"kind": "full"}
        self.message_gradient: str | None = None
        self.message_credit = None
        self.message_dropout = 0.0
        self.message_noise = 0.0
        self.reflexes = ()
        self.channel_capacity = None
        self.channel_inbox = None
        self.channel_rounds = 0
        self.channel_gate = None
        self.channel_budget = None
        self.vocabulary = None
        self.agent: BySpecies[str | type] = "symbolic"
        self.members: BySpecies[int] = 1
        self.agent_config: Mapping[str, object] = {}
        self.critic: BySpecies[str] = "independent"
        self.seating = "shuffled"
        self.communities = 1
        self.mixing = 0.0
        self.num_worlds_per_env_runner = 64
        self.step_timeout_s = None
        self.overlap = False
        self.max_empty_iterations = 3
        self.max_nonfinite_updates = 5
        self.run_dir: str | None = None
        self.conversation_every = 10
        self.conversation_worlds = 4
        self.picture_every = 10
        self.checkpoint_every = 10
        self.keep_checkpoints = None

    def _start_learning(self) -> None:
        """What is learned from, and RLlib's own settings, with defaults that suit populations."""
        self.normalize_returns = True
        self.learn_from = "rewards"
        self.rare_action_share = None
        self.entropy_over_worlds = 0.0
        self.message_entropy_coeff = 0.0
        self.quality_coeff = None
        self.message_balance_coeff = None
        self.message_kl_coeff = 0.0
        self.message_sharpness = None
        self.time_limit = "bootstrap"
        self.autocast: str | None = None
        self.tf32 = False
        self.compile_agents = False
        self.num_env_runners = 0
        self.rollout_fragment_length = 16
        self.minibatch_size: int | None = None
        self.num_epochs = 2
        self.gamma = 0.95
        self.lambda_ = 0.95
        self.lr: float | list[list[int | float]] = 4e-3
        self.grad_clip: float | None = 1.0
        self.clip_param = 0.2
        self.vf_loss_coeff = 0.5
        self.vf_clip_param = math.inf
        self.entropy_coeff: float | list[list[int | float]] = ENTROPY_COEFF
        self.use_kl_loss = False
        self.delay_between_env_runner_restarts_s = 0.5
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Any:
        """RLlib's way from what a checkpoint keeps to a config."""
        if "left_open" not in state and state.get("message_gradient") != "reinforce":
            # From before a credit without effect was refused.
            state = {**state, "message_credit": None}
        return super().from_state(dict(state))

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        """RLlib's way from a dict, such as Tune's `param_space` and settings of one species, to a config.

        RLlib would take any key; here one that does not exist is an error. "env" is what `environment` takes.

        Raises:
            UserError: an unknown key, with the nearest one.
        """
        given = dict(config_dict)
        known = {*vars(self), *vars(Settings), *OF_DICTS.split()}
        for key in given:
            if key not in known and not key.startswith("__"):
                raise UserError(f"the setting '{key}' does not exist; {nearest(key, known)}")
        if given.get("env") not in (None, World):
            given = {"world": given["env"], **given, "env": World}
        return super().update_from_dict(given)

    @property
    def layout(self) -> WorldLayout:
        """The world's shape; makes one copy of it to look at, once per environment and env_config."""
        if self.world is None:
            raise UserError("environment.env is missing; for example: swarm_v0")
        key = self._environment()
        if key is None or self._layout is None or self._layout[0] != key:
            world = self.make_world(1, playing=False)
            # A frozen config may still look.
            self.__dict__["_layout"] = (key, WorldLayout.of(world))
            world.close()
        assert self._layout is not None
        return self._layout[1]

    def make_world(self, num_worlds: int, device: str | torch.device = "cpu", playing: bool = True) -> World:
        """B worlds of the environment, with the species that were chosen; only to be looked at if not `playing`."""
        processes = self.processes if playing else None
        return make_world(
            self.world, self.env_config, num_worlds, device, self.given_species, self.agent_id, processes,
            self.process_timeout,
        )  # fmt: skip

    @property
    def given_species(self) -> SpeciesLike | None:
        """What says of which species agents are: environment.species, or RLlib's policy_mapping_fn; None: nothing."""
        mapping = self.policy_mapping_fn
        if not (mapping is None or callable(mapping) or mapping == NOT_SERIALIZABLE):
            raise UserError(
                f"multi_agent.policy_mapping_fn is {mapping!r}, and must be a function from an agent to the name of "
                "its species"
            )
        is_given = callable(mapping) and not _same(mapping, PPOConfig.DEFAULT_POLICY_MAPPING_FN)
        if is_given and self.species_as is not None and mapping is not self.species_as:
            raise UserError(
                "environment.species and multi_agent.policy_mapping_fn both say of which species agents are; use one"
            )
        return mapping if is_given else self.species_as

    def own_settings(self, species: str) -> dict[str, object]:
        """{setting: value} of one species' module, where it has others than the rest."""
        own = {key: values[species] for key, values in self.learning_by_species.items() if species in values}
        return own | self.algorithm_config_overrides_per_module.get(species, {})

    def explores(self, species: Species) -> bool:
        """Whether an entropy bonus acts on the actions of a species: not if learned from answers, or single."""
        supervised = self.learn_from == "answers" and species.has_answers
        return not supervised and getattr(species.action_space, "n", 0) != 1

    def get_config_for_module(self, module_id: str) -> Settings:
        """RLlib's way to the settings of a species, which it remembers."""
        own = self.own_settings(module_id)
        if module_id not in self._per_module_overrides and own:
            self._per_module_overrides[module_id] = self.copy().update_from_dict(own)
        return self._per_module_overrides.get(module_id, self)

    def _environment(self) -> object:
        """All that the layout follows from, as it is now; None where that cannot be told."""
        try:
            parts = (self.env_config, self.given_species, self.agent_id)
            return self.world, cloudpickle.dumps(parts)
        except (TypeError, ValueError, pickle.PicklingError):
            return None


def _same(one: object, other: object) -> bool:
    """Whether two functions are one by their names, which pickles keep."""
    return one is other or _names(one) == _names(other)


def _names(function: object) -> tuple[object, object]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", function)
