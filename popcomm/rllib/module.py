"""RLModules: one per species, each a whole population; together the MultiRLModule of RLlib."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from popcomm.agents.contract import AgentSpec
from popcomm.agents.graph import LinkWeights
from popcomm.agents.pointing import make_pointing
from popcomm.agents.population import PopulationLinear
from popcomm.agents.quality import QualityHead
from popcomm.errors import UserError
from popcomm.rllib import checkpoints
from popcomm.rllib.growth import has_members, owners_of
from popcomm.rllib.ppo import ReturnNormaliser
from popcomm.rllib.sharing import share


class CentralCritic(nn.Module):
    """Value of a seat from the world's latent state and the seat's own observation: a tanh network per member."""

    def __init__(self, spec: AgentSpec, hidden: int = 64) -> None:
        super().__init__()
        sizes = [spec.state_size + spec.obs_size, hidden, hidden, 1]
        self.layers = nn.ModuleList(PopulationLinear(spec.members, i, o) for i, o in pairwise(sizes))

    def forward(self, world_state: Tensor, obs: Tensor) -> Tensor:
        """world_state [P, R, S], obs [P, R, O] -> normalised values [P, R]."""
        x = torch.cat([world_state, obs], -1)
        for layer in self.layers[:-1]:
            x = layer(x).tanh()
        return self.layers[-1](x).squeeze(-1)


class PopulationRLModule(TorchRLModule, ValueFunctionAPI):
    """One species: P members' networks, an optional central critic, the running statistics of their returns.

    model_config: {"spec": AgentSpec, "agent": class, "agent_config": dict, "critic": str, "quality": bool,
    "seed": int, "scales": {hyper-parameter: [P]}, "taught": bool, "links": (L, first strength)}. The weights are a
    function of the seed and of nothing else.
    """

    spec: AgentSpec
    agent: Any
    borrowed: frozenset[str] = frozenset()  # names of weights that are another species' (`popcomm.rllib.sharing`)
    teacher: Tensor
    lessons_left: Tensor | None

    def setup(self) -> None:
        config = self.model_config
        self.spec = config["spec"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config["seed"])
            self.agent = make_agent(config["agent"], self.spec, config["agent_config"])
            self.central_critic = CentralCritic(self.spec) if config["critic"] == "central" else None
            self.quality: QualityHead | None = None
            if config.get("quality"):
                size = self.agent.features_size
                weighs = make_pointing(self.spec, size)
                self.quality = QualityHead(self.spec.members, size, self.spec.action_space, pointing=weighs)
        self.returns = ReturnNormaliser(self.spec.members)
        # Strengths of the links by which it hears, where a graph is learned.
        links = config.get("links")
        self.links = None if links is None else LinkWeights(self.spec.members, *links)
        # [P] float64 each: a member's own value of a hyper-parameter, as a multiple of the setting (`.survival`).
        for key, values in config.get("scales", {}).items():
            self.register_buffer(scale_name(key), torch.as_tensor(values, dtype=torch.float64))
        # [P] int64 each: the place of who teaches a member, and iterations that are left of it (`lessons`).
        for key in ("teacher", "lessons_left"):
            nobody = torch.zeros(self.spec.members, dtype=torch.int64) if config.get("taught") else None
            self.register_buffer(key, nobody)
        check_member_axis(self.agent, self.spec.members, config["agent"].__name__)

    @property
    def everybodys(self) -> set[int]:
        """Ids of parameters and buffers that no member leaves to another: the links of a learned graph."""
        links = self.links
        return set() if links is None else {id(values) for values in (*links.parameters(), *links.buffers())}

    def scale(self, hyperparameter: str) -> Tensor | None:
        """[P] float64, members' own values as multiples of the setting; None where all have the setting's."""
        return getattr(self, scale_name(hyperparameter), None)

    @property
    def is_taught(self) -> bool:
        """Whether some members are taught by others."""
        return self.lessons_left is not None and bool(self.lessons_left.any())

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        return getattr(self.agent, "auxiliary_weights", {})

    def value(self, agent_value: Tensor, obs: Tensor, world_state: Tensor | None) -> Tensor:
        """Values [P, R], normalised where returns are: the agent's own, or the central critic's, which alone looks at
        obs and state."""
        if self.central_critic is None:
            return self.returns.of_output(agent_value)
        if world_state is None:
            raise UserError(
                "population.critic is 'central', and this environment has no latent state; use 'independent'"
            )
        return self.returns.of_output(self.central_critic(world_state, self.spec.numbers(obs)))

    def get_state(self, *args: object, **kwargs: object) -> dict[str, np.ndarray]:
        """RLlib's {name: array}, but statistics in float64 stay so: it rounds them to float32."""
        state = super().get_state(*args, **kwargs)
        exact = {name: b.cpu().numpy().copy() for name, b in self._exact() if name in state}
        return {name: value for name, value in (state | exact).items() if name not in self.borrowed}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Weights that are another species' are that one's to set."""
        if self.borrowed:
            now = self.state_dict()
            state = {**state, **{name: now[name].cpu().numpy() for name in self.borrowed}}
        super().set_state(state)
        for name, buffer in self._exact():
            if name in state:
                buffer.copy_(torch.as_tensor(state[name]))

    def restore_from_path(self, path: Any, *args: object, trust: bool = False, **kwargs: object) -> None:
        """RLlib's way to load weights (`load_state_path`, too), from safetensors; its pickles are read if trusted."""
        if trust and not checkpoints.has_state(Path(path)):
            super().restore_from_path(path, *args, **kwargs)
        else:
            self.set_state(checkpoints.read_state(Path(path), trust)[0])

    def _exact(self) -> list[tuple[str, Tensor]]:
        return [(name, buffer) for name, buffer in self.named_buffers() if buffer.dtype == torch.float64]

    def _forward(self, batch: dict[str, Any], **kwargs: object) -> dict[str, object]:
        """One silent step on obs [P, R, O]; the env runner and the learner call the agent itself, with inboxes."""
        obs = batch[Columns.OBS]
        state = batch.get(Columns.STATE_IN) or self.agent.initial_state(obs.shape[1])
        output = self.agent(self.spec.numbers(obs), None, state)
        return {Columns.ACTION_DIST_INPUTS: output.action_logits, Columns.STATE_OUT: output.state}

    def compute_values(self, batch: dict[str, Any], embeddings: object = None) -> Tensor:
        obs = batch[Columns.OBS]
        state = batch.get(Columns.STATE_IN) or self.agent.initial_state(obs.shape[1])
        value = self.value(self.agent(self.spec.numbers(obs), None, state).value, obs, batch.get("world_state"))
        return self.returns.denormalise(value)


def scale_name(hyperparameter: str) -> str:
    """Of the buffer that holds it."""
    return f"{hyperparameter}_scale"


class PopulationMultiRLModule(MultiRLModule):
    """The species that share a world and its channel, and the parts of their networks that they have in common."""

    def setup(self) -> None:
        super().setup()
        modules = {name: self[name].unwrapped() for name in self.keys()}
        for name, lent in share({name: module.agent for name, module in modules.items()}).items():
            modules[name].borrowed = frozenset(f"agent.{key}" for key in lent)


def make_agent(agent: type, spec: AgentSpec, arguments: dict[str, object]) -> Any:
    """A network of that class; its own error stays visible.

    RLlib takes an AttributeError in here for a module of its older kind, and would say that instead.
    """
    try:
        return agent(spec, **arguments)
    except AttributeError as error:
        raise RuntimeError(f"population.agent {agent.__name__} could not be made: {error}") from error


def check_member_axis(agent: nn.Module, members: int, name: str) -> None:
    """Raises UserError unless every row of every parameter is some member's.

    The members are the first axis, or `owners()` says whose each row is. A collective is one network, and what is
    neither in it is of all its seats.
    """
    owners = owners_of(agent)
    for key, value in agent.named_parameters():
        whose = f"population.agent {name}: the parameter {key} has shape {tuple(value.shape)}, and"
        if value in owners:
            _check_owners(owners[value], value, members, whose)
        elif not has_members(value, members) and not getattr(agent, "collective", False):
            raise UserError(
                f"{whose} its first axis must be the {members} members (or use members: 1, or say in owners() whose "
                "each row is)"
            )


def _check_owners(owner: Tensor, parameter: nn.Parameter, members: int, whose: str) -> None:
    if owner.dtype != torch.int64 or owner.shape != parameter.shape[:1]:
        raise UserError(
            f"{whose} owners() has {owner.dtype} of shape {tuple(owner.shape)} for it; it must be a member for each "
            "row, int64"
        )
    if owner.numel() and not (int(owner.min()) >= 0 and int(owner.max()) < members):
        raise UserError(f"{whose} owners() names members {int(owner.min())} to {int(owner.max())} of {members}")
