"""How actions with messages, and observations with inboxes, are laid out in Gymnasium spaces: as Dict, or flat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from popcomm.channels import Channel, MessageKind, Words
from popcomm.channels.words.codes import unpack
from popcomm.envs.flat_spaces import MASK, FlatAction, FlatObservation, mask_of
from popcomm.errors import UserError


class Heard(NamedTuple):
    """One agent's inbox; zeros where `mask` is 0."""

    messages: np.ndarray  # [K, *message shape]: [K, L] int64, [K] packed words or [K, D] float32
    senders: np.ndarray  # [K] int64, seats
    mask: np.ndarray  # [K] int8


class Layout(Protocol):
    """Spaces of every agent, and the way in and out of them."""

    observation_spaces: dict[Any, spaces.Space]
    action_spaces: dict[Any, spaces.Space]

    def split(self, agent: Any, action: Any) -> tuple[Any, np.ndarray]:
        """An agent's action -> the environment's action, and its message: [L], [D] or a packed word [] (0: silence)."""
        ...

    def join(self, agent: Any, observation: Any, heard: Heard) -> Any:
        """The environment's observation and an inbox -> what the agent observes."""
        ...

    def info(self, agent: Any, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        """The agent's info, from the environment's observation and info."""
        ...


class DictLayout:
    """Actions {"action", "message"}, observations {"observation", "inbox", "senders", "mask"}.

    Words are said as their bits [bits], with "speak", 0 or 1 (1 where it is left out), if they have a speak gate; they
    are heard as bits [K, bits]. With a lexicon they are said as an index, 0 for silence, and heard as [K, 1]. What is
    no word is silence.
    """

    def __init__(self, env: ParallelEnv, channel: Channel) -> None:
        self._kind = channel.messages
        self._saying = _saying(self._kind)
        self.action_spaces: dict[Any, spaces.Space] = {}
        self.observation_spaces: dict[Any, spaces.Space] = {}
        # One more stands for nobody, who publishes words.
        senders = channel.num_agents + (channel.size is not None)
        for agent in env.possible_agents:
            # Every agent has a message space of its own: seeding one must not move the others'.
            self.action_spaces[agent] = spaces.Dict({"action": env.action_space(agent), **_saying(self._kind)})
            self.observation_spaces[agent] = spaces.Dict(
                {
                    "observation": env.observation_space(agent),
                    "inbox": _inbox_space(self._kind, channel.inbox_size),
                    "senders": spaces.MultiDiscrete(np.full(channel.inbox_size, senders)),
                    "mask": spaces.MultiBinary(channel.inbox_size),
                }
            )

    def split(self, agent: Any, action: Any) -> tuple[Any, np.ndarray]:
        if not isinstance(action, Mapping) or not {"action", "message"} <= set(action):
            raise UserError(f"the action of '{agent}' is {action!r}, and must be a mapping with 'action' and 'message'")
        message = _checked(agent, action["message"], self._saying["message"])
        if isinstance(self._kind, Words):
            if "speak" in self._saying:
                speak = _checked(agent, action.get("speak", 1), self._saying["speak"], "'speak'")
                message = np.append(message, speak)
            message = self._kind.chosen(message)
        return action["action"], message

    def join(self, agent: Any, observation: Any, heard: Heard) -> dict[str, Any]:
        inbox = heard.messages
        if self._kind.alphabet is not None:
            inbox = self._kind.as_symbols(torch.from_numpy(inbox)).numpy()
        return {"observation": observation, "inbox": inbox, "senders": heard.senders, "mask": heard.mask}

    def info(self, agent: Any, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        return info


class FlatLayout:
    """One MultiDiscrete or Box for action and message, one Box for all that is observed.

    Words are said with one choice for each bit and one for the speak gate, or with one for the index in the lexicon,
    and heard as bits.
    """

    def __init__(self, env: ParallelEnv, channel: Channel) -> None:
        self._kind = channel.messages
        self._message_space = channel.messages.space()
        self._choices = _choices(self._message_space)
        agents = env.possible_agents
        self._actions = {agent: FlatAction(env.action_space(agent), agent) for agent in agents}
        self._observations = {
            agent: FlatObservation(env.observation_space(agent), agent, split_mask=not self._actions[agent].is_box)
            for agent in agents
        }
        self.action_spaces = {agent: self._action_space(agent) for agent in agents}
        numbers = self._kind.bits if isinstance(self._kind, Words) else int(np.prod(self._kind.features_shape))
        size = channel.inbox_size * numbers
        self.observation_spaces = {agent: self._observation_space(agent, size, channel.inbox_size) for agent in agents}

    def _action_space(self, agent: Any) -> spaces.Space:
        action, message = self._actions[agent], self._message_space
        if not action.is_box and not isinstance(message, spaces.Box):
            return spaces.MultiDiscrete(np.concatenate([action.nvec, self._choices]))
        if action.is_box and isinstance(message, spaces.Box):
            low, high = (
                np.concatenate(x) for x in zip(*((s.low, s.high) for s in (action.space, message)), strict=True)
            )
            return spaces.Box(low, high, dtype=np.float32)
        raise UserError(
            f"layout 'flat' cannot join actions {type(action.env_space).__name__} of agent '{agent}' with "
            f"{self._kind.kind}: discrete actions go with symbols or words, Box actions with vectors; use layout 'dict'"
        )

    def _observation_space(self, agent: Any, inbox: int, k: int) -> spaces.Box:
        box = self._observations[agent].box
        bounds = (-np.inf, np.inf) if isinstance(self._message_space, spaces.Box) else (0.0, 1.0)
        low = np.concatenate([box.low, np.full(inbox, bounds[0]), np.zeros(k)])
        high = np.concatenate([box.high, np.full(inbox, bounds[1]), np.ones(k)])
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def split(self, agent: Any, action: Any) -> tuple[Any, np.ndarray]:
        space, flat = self.action_spaces[agent], self._actions[agent]
        values = _checked(agent, action, space, "action")
        own = values.size - (len(self._choices) or self._message_space.shape[0])
        chosen, message = values[0] if isinstance(flat.space, spaces.Discrete) else values[:own], values[own:]
        if isinstance(self._kind, Words):
            message = self._kind.chosen(message if self._kind.vocab is None else message[0])
        return flat.to_env(chosen), message

    def join(self, agent: Any, observation: Any, heard: Heard) -> np.ndarray:
        flat = self._observations[agent]
        out = np.empty(self.observation_spaces[agent].shape, np.float32)
        flat.write(out[: flat.size], observation)
        inbox = self._shown(heard.messages) * heard.mask[:, None]
        out[flat.size : flat.size + inbox.size] = inbox.ravel()
        out[flat.size + inbox.size :] = heard.mask
        return out

    def _shown(self, messages: np.ndarray) -> np.ndarray:
        """[K, numbers]: one-hot for symbols, bits for words, the numbers themselves for vectors."""
        if isinstance(self._kind, Words):
            return unpack(messages, self._kind.bits)
        return self._kind.straight_through(torch.from_numpy(messages), None).flatten(1).numpy()

    def info(self, agent: Any, observation: Any, info: dict[str, Any]) -> dict[str, Any]:
        action = self._actions[agent]
        mask = None if action.is_box else mask_of(observation, info, self._observations[agent])
        if mask is None:
            return info
        symbols = np.ones(int(self._choices.sum()), np.int8)
        return {**info, MASK: np.concatenate([action.read_mask(mask).astype(np.int8), symbols])}


LAYOUTS: dict[str, type[DictLayout] | type[FlatLayout]] = {"dict": DictLayout, "flat": FlatLayout}


def _saying(kind: MessageKind) -> dict[str, spaces.Space]:
    """What a message is said with in a Dict: "message", and "speak" for words with a speak gate."""
    if isinstance(kind, Words) and kind.vocab is None:
        bits = {"message": spaces.MultiDiscrete(np.full(kind.bits, 2))}
        return {**bits, "speak": spaces.Discrete(2)} if kind.speak_gate else bits
    return {"message": kind.space()}


def _choices(message: spaces.Space) -> np.ndarray:
    """[C], the numbers of choices that a message takes; none for numbers."""
    if isinstance(message, spaces.Discrete):
        return np.array([message.n])
    return message.nvec if isinstance(message, spaces.MultiDiscrete) else np.zeros(0, np.int64)


def _inbox_space(kind: MessageKind, k: int) -> spaces.Space:
    if kind.alphabet is None:
        message = kind.space()
        return spaces.Box(np.tile(message.low, (k, 1)), np.tile(message.high, (k, 1)), dtype=np.float32)
    length = kind.as_symbols(torch.zeros(kind.shape, dtype=kind.dtype)).shape[-1]
    return spaces.MultiDiscrete(np.full((k, length), kind.alphabet))


def _checked(agent: Any, value: Any, space: spaces.Space, what: str = "message") -> np.ndarray:
    """The value as an array of the space.

    Raises:
        UserError: another shape, a symbol out of range, a number that is not finite.
    """
    is_box = isinstance(space, spaces.Box)
    array = np.asarray(value, np.float32) if is_box else np.asarray(value)
    fits = array.shape == space.shape
    if is_box:
        fits = fits and bool(np.isfinite(array).all())
    else:
        choices = space.n if isinstance(space, spaces.Discrete) else space.nvec
        fits = fits and np.issubdtype(array.dtype, np.integer) and bool(((array >= 0) & (array < choices)).all())
    if not fits:
        raise UserError(f"the {what} of '{agent}' is {value!r}, and must be of {space} with finite numbers")
    return array
