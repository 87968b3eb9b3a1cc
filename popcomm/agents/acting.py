"""Acting outside a trainer: dict observations of `with_messages` in, the environment's own actions and messages out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.agents.action_bounds import ActionBounds
from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.distributions import action_distribution
from popcomm.channels.mailbox import Inbox
from popcomm.channels.messages import MessageKind, Symbols, likeliest
from popcomm.channels.relaxed import Dru, RelaxedSymbols
from popcomm.channels.words import Words
from popcomm.envs.flat_spaces import FlatAction, FlatObservation, mask_of
from popcomm.envs.foreign import backing_world, species_behind, structure_behind
from popcomm.envs.sight import sight_of
from popcomm.errors import UserError, unknown

# Kinds whose messages are shown as symbols, and are no symbols themselves.
MADE_OF_SYMBOLS = (Dru, RelaxedSymbols, Words)
DEFAULT_SENDERS = 64  # seats that an agent built without a spec can tell apart


@dataclass(frozen=True)
class EnvSpec(AgentSpec):
    """An AgentSpec that remembers the environment's own spaces, which `act` takes and gives."""

    env_observation_space: spaces.Space | None = None
    env_action_space: spaces.Space | None = None


def default_spec() -> AgentSpec:
    """The place of an agent in `popcomm.CommunicationEnv` as it comes, with up to 64 agents.

    Observations are two flags and a meaning of two attributes with ten values, one-hot; an action names both values;
    messages are four symbols out of 16.
    """
    meaning = 2 * 10
    return AgentSpec(
        obs_size=2 + meaning,
        action_space=spaces.MultiDiscrete([10, 10]),
        messages=Symbols(vocab_size=16, length=4),
        inbox_size=DEFAULT_SENDERS - 1,
        state_size=meaning,
        num_agents=DEFAULT_SENDERS,
        sender_obs_size=2 + meaning,
    )


def spec_for(env: Any, agent: Any) -> EnvSpec:
    """The place of one agent in an environment of `with_messages(..., layout="dict")`.

    Raises:
        UserError: an environment without messages, one of another layout, an unknown agent, or spaces that networks
            cannot handle (see `popcomm.envs.flat_spaces`).
    """
    channel = getattr(env, "channel", None)
    if channel is None:
        raise UserError(f"'{env}' has no messages, and an agent's spec is read from one that has; wrap with_messages")
    if agent not in env.possible_agents:
        raise unknown("agent", agent, env.possible_agents)
    joined = {name: env.observation_space(name) for name in env.possible_agents}
    if not all(isinstance(space, spaces.Dict) and "inbox" in space.spaces for space in joined.values()):
        raise UserError(f"'{env}' has the layout 'flat', and agents act in the layout 'dict'")
    own, action = joined[agent]["observation"], env.action_space(agent)["action"]
    flat_action = FlatAction(action, agent)
    seen = {
        name: FlatObservation(space["observation"], name, split_mask=not flat_action.is_box)
        for name, space in joined.items()
    }
    sizes = {name: flat.size for name, flat in seen.items()}
    mute, deaf = _never(env, agent)
    return EnvSpec(
        speaks=not mute,
        hears=not deaf,
        obs_size=sizes[agent],
        observation_space=structure_behind(env, agent, own) or seen[agent].structure,
        action_space=flat_action.space,
        messages=channel.messages,
        inbox_size=channel.inbox_size,
        state_size=_state_size(env),
        # One more stands for nobody, who publishes words.
        num_agents=channel.num_agents + (channel.size is not None),
        sender_obs_size=max(sight.glimpse_size if (sight := sight_of(s.structure)) else s.size for s in seen.values()),
        env_observation_space=own,
        env_action_space=action,
    )


def _never(env: Any, agent: Any) -> tuple[bool, bool]:
    """Whether the agent's species never speaks and never hears, where a World says so."""
    species = species_behind(env, agent)
    return (False, False) if species is None else (not species.speaks, not species.hears)


def _state_size(env: Any) -> int:
    world = backing_world(env)
    return 0 if world is None else world.state_size


class _Faces:
    """An agent's spaces beside the environment's: the way in for observations, the way out for actions."""

    def __init__(self, spec: AgentSpec) -> None:
        own, action = spaces.Box(-np.inf, np.inf, (spec.obs_size,), np.float32), spec.action_space
        if isinstance(spec, EnvSpec):
            own, action = spec.env_observation_space or own, spec.env_action_space or action
        self.distribution = action_distribution(spec.action_space)
        self.bounds = ActionBounds(spec.action_space)
        self.action = FlatAction(action, "agent")
        self.observation = FlatObservation(own, "agent", split_mask=not self.action.is_box)


class Acting:
    """Part of an agent: `act` in an environment, with a memory that lasts until `reset`.

    It is for one member (spec.members = 1), and keeps what the agent carries from step to step.
    """

    spec: AgentSpec
    _carried: dict[str, Tensor] | None = None

    @cached_property
    def _faces(self) -> _Faces:
        return _Faces(self.spec)

    def reset(self) -> None:
        """Forget the episode: the next `act` starts a new one."""
        self._carried = None

    @torch.no_grad()
    def act(
        self, observation: Any, greedy: bool = False, generator: torch.Generator | None = None
    ) -> tuple[Any, np.ndarray | None]:
        """One step.

        Args:
            observation: {"observation": the environment's, "inbox": [K, L] int64 or [K, D] float32 (words: bits
                [K, bits], with a lexicon [K, 1]), "senders": [K] int, "mask": [K] int or bool}, K any number; an agent
                that never hears takes the observation alone, too.
                An "action_mask" in the environment's part is obeyed.
            greedy: the likeliest action and symbols instead of samples.
            generator: source of the samples; torch's default one if None.

        Returns:
            The action, as the environment's action space wants it, and the message, [L] int64 or [D] float32 (words:
            bits [bits] int64, with a lexicon the index, int64): zeros of an agent that never speaks, which nobody
            hears, and None where there are no messages. Silence is all zeros; "speak" can be left out beside it.

        Raises:
            UserError: the agent holds several members, the observation is not what it was built for, a symbol or a
                sender that it does not know.
        """
        if self.spec.members != 1:
            raise UserError(
                f"this agent holds {self.spec.members} members, and acts for one; move it with extract and insert"
            )
        own = observation["observation"] if _has(observation, "inbox") else observation
        obs, mask = self._numbers(own), self._action_mask(own)
        inbox = None if self.spec.receives is None else self._inbox(observation)
        state = self.initial_state(1) if self._carried is None else self._carried  # type: ignore[attr-defined]
        how = {"greedy": greedy, "generator": generator} if getattr(self, "autoregressive", False) else {}
        output: AgentOutput = self(obs, inbox, state, **how)  # type: ignore[operator]
        self._carried = output.state
        distribution = self._faces.distribution
        logits = output.action_logits
        action = distribution.mode(logits, mask) if greedy else distribution.sample(logits, generator, mask)
        chosen = self._faces.action.to_env(self._faces.bounds.of(action[0, 0].cpu()).numpy())
        return chosen[()], self._message(output, greedy, generator)

    def _message(self, output: AgentOutput, greedy: bool, generator: torch.Generator | None) -> np.ndarray | None:
        kind, said = self.spec.sends, output.said
        if kind is None or output.message is None:
            silent = self.spec.messages
            return None if silent is None else _shown(silent, torch.zeros(silent.shape, dtype=silent.dtype))
        if said is None:
            said = likeliest(kind, output.message, generator) if greedy else kind.sample(output.message, generator)
        return _shown(kind, said[0, 0].cpu())

    def _numbers(self, own: Any) -> Tensor:
        """The environment's observation as [1, 1, O]."""
        face = self._faces.observation
        flat = np.empty(self.spec.obs_size, face.dtype)
        misfit = self._misfit(f"the observation has {_described(own)}", f"{flat.size} numbers")
        # One number would be spread over all.
        if isinstance(face.space, spaces.Box) and np.size(own) != flat.size:
            raise misfit
        try:
            face.write(flat, own)
        except (TypeError, ValueError, KeyError, IndexError, AssertionError) as error:
            raise misfit from error
        return self.spec.numbers(self._tensor(flat))

    def _action_mask(self, own: Any) -> Tensor | None:
        mask = mask_of(own, None, self._faces.observation)
        return None if mask is None else self._tensor(self._faces.action.read_mask(mask))

    def _inbox(self, observation: Any) -> Inbox:
        """What was heard as [1, 1, K, ...]."""
        kind = self.spec.receives
        assert kind is not None
        for key in ("inbox", "senders", "mask"):
            if not _has(observation, key):
                raise self._misfit(f"the observation has no '{key}'", "what with_messages(..., layout='dict') gives")
        messages, senders = np.asarray(observation["inbox"]), np.asarray(observation["senders"])
        mask = np.asarray(observation["mask"]).astype(bool)
        slots = len(mask)
        shape, units = _shape(kind)
        if messages.shape != (slots, *shape) or senders.shape != (slots,):
            what = f"the inbox has shape {messages.shape} beside {senders.shape} senders and a mask of {slots}"
            raise self._misfit(what, f"K messages of {shape[0]} {units}")
        real, choices = messages[mask], kind.alphabet
        if choices is not None and real.size and (real.min() < 0 or real.max() >= choices):
            worst = real.max() if real.max() >= choices else real.min()
            raise self._misfit(f"the inbox has the symbol {worst}", f"symbols 0 to {choices - 1}")
        if mask.any() and not 0 <= senders[mask].min() <= senders[mask].max() < self.spec.num_agents:
            raise self._misfit(f"the senders are {senders[mask].tolist()}", f"0 to {self.spec.num_agents - 1}")
        # What is not real may be anything, and must still be found in the tables.
        messages = np.where(mask.reshape(slots, *[1] * len(shape)), messages, 0)
        heard = self._tensor(messages)
        heard = kind.from_symbols(heard) if isinstance(kind, MADE_OF_SYMBOLS) else heard.to(kind.dtype)
        return Inbox(heard, self._tensor(np.where(mask, senders, 0)).long(), self._tensor(mask))

    def _tensor(self, array: np.ndarray) -> Tensor:
        """One row of one member: [1, 1, *shape], where the weights are."""
        device = next(self.parameters()).device  # type: ignore[attr-defined]
        return torch.as_tensor(array, device=device)[None, None]

    def _misfit(self, what: str, built_for: str) -> UserError:
        name = type(self).__name__
        return UserError(
            f"{what}, and this {name} was built for {built_for}; "
            f"{name}(spec_for(env, agent)) makes one for an environment"
        )


def _shape(kind: MessageKind) -> tuple[tuple[int, ...], str]:
    """The shape of one message as `with_messages` shows it, and what it is made of."""
    if isinstance(kind, Words):
        return ((kind.bits,), "bits") if kind.vocab is None else ((1,), "index in a lexicon")
    if isinstance(kind, RelaxedSymbols):
        return (kind.length,), "symbols"
    return kind.shape, "symbols" if isinstance(kind, Symbols) else "numbers"


def _shown(kind: MessageKind, message: Tensor) -> np.ndarray:
    """One message as `with_messages` takes it."""
    if isinstance(kind, Words):
        message = kind.as_symbols(message) if kind.vocab is None else kind.to_index(message)
    elif isinstance(kind, MADE_OF_SYMBOLS):  # in play they are discrete
        message = kind.as_symbols(message)
    return message.numpy()


def _has(observation: Any, key: str) -> bool:
    return isinstance(observation, Mapping) and key in observation


def _described(own: Any) -> str:
    if isinstance(own, Mapping):
        return f"the keys {', '.join(map(str, own))}"
    size = int(np.size(own))
    return f"{size} number{'s' * (size != 1)}"
