"""Settings: what a population's config holds, and where it starts; the config's methods say what each is for."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from ray import cloudpickle
from ray.rllib.algorithms.ppo.ppo import PPOConfig
from typing_extensions import Self

from popcomm.channels import MessageKind, Topology
from popcomm.channels.broadcast.reflex import Reflex
from popcomm.envs.layout import WorldLayout
from popcomm.envs.making import EnvLike, make_world
from popcomm.envs.world import World
from popcomm.errors import UserError, nearest

# Keys that RLlib has in dicts alone.
OF_DICTS = """
    callbacks class create_env_on_driver custom_eval_function framework input lambda multiagent num_cpus_for_driver
    num_workers
"""


class Settings(PPOConfig):
    """RLlib's settings and those of populations, as values; what follows from them is a `Plan` (popcomm.rllib.plan).

    All that trains knows its config as this.
    """

    # Settings that came later, for configs in checkpoints from before.
    message_credit: str = "step"
    learn_from: str = "rewards"
    rare_action_share: float | None = 0.0
    quality_coeff: float | None = 0.0
    message_balance_coeff: float | None = 0.0
    message_kl_coeff: float = 0.0
    message_sharpness: float | None = 0.0
    time_limit: str = "bootstrap"
    communities: int = 1
    mixing: float = 0.0
    reflexes: Sequence[Reflex | dict[str, object] | str] = ()
    channel_capacity: int | None = None
    channel_inbox: int | None = None
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
    # What `validate` set of RLlib's settings, which no user did: {name: value}.
    filled_in: Mapping[str, object] = {}

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self._start_with_populations()
        self._start_learning()
        self._layout: tuple[object, WorldLayout] | None = None

    def _start_with_populations(self) -> None:
        """The world, the channel, who lives in them, and what is written down."""
        self.world: EnvLike | None = None
        self.messages: MessageKind | dict[str, object] | None = None
        self.channel_topology: Topology | dict[str, object] = {"kind": "full"}
        self.message_gradient: str | None = None
        self.message_credit = "step"
        self.message_dropout = 0.0
        self.message_noise = 0.0
        self.reflexes = ()
        self.channel_capacity = None
        self.channel_inbox = None
        self.agent: str | type = "symbolic"
        self.members: int | Mapping[str, int] = 1
        self.agent_config: dict[str, object] = {}
        self.critic = "independent"
        self.seating = "shuffled"
        self.communities = 1
        self.mixing = 0.0
        self.num_worlds_per_env_runner = 64
        self.max_empty_iterations = 3
        self.max_nonfinite_updates = 5
        self.run_dir: str | None = None
        self.conversation_every = 10
        self.conversation_worlds = 4
        self.picture_every = 10
        self.checkpoint_every = 10

    def _start_learning(self) -> None:
        """What is learned from, and RLlib's own settings, with defaults that suit populations."""
        self.normalize_returns = True
        self.learn_from = "rewards"
        self.rare_action_share = None
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
        self.entropy_coeff: float | list[list[int | float]] = 0.05
        self.use_kl_loss = False
        self.delay_between_env_runner_restarts_s = 0.5
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False

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
            world = make_world(self.world, self.env_config, 1)
            # A frozen config may still look.
            self.__dict__["_layout"] = (key, WorldLayout.of(world))
            world.close()
        assert self._layout is not None
        return self._layout[1]

    def _environment(self) -> object:
        """All that the layout follows from, as it is now; None where that cannot be told."""
        try:
            return self.world, cloudpickle.dumps(self.env_config)
        except (TypeError, ValueError, pickle.PicklingError):
            return None
