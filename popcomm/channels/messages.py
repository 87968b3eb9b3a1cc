"""What passes between agents: symbol strings and vectors, each with its space, its law and its differentiable form.

A message kind turns a network's output (`params`) into messages and back into gradients. Words (binary strings with a
gate) belong beside these two as a third class with the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Integral
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.channels.sampling import sample_categorical
from popcomm.errors import UserError, unknown


class MessageKind(Protocol):
    """What a channel, an agent and a learner need to know of a kind of message.

    Leading axes `...` are free: [B, N] in worlds, [P, R] in networks, with T anywhere in front.
    """

    kind: ClassVar[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one message."""
        ...

    @property
    def params_shape(self) -> tuple[int, ...]:
        """Shape of what a network puts out for one message."""
        ...

    @property
    def dtype(self) -> torch.dtype: ...

    def rule(self) -> str:
        """One sentence that says what a message is; printed when training starts."""
        ...

    def space(self) -> spaces.Space: ...

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """params [..., *params_shape] -> messages [..., *shape]."""
        ...

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest messages, shaped as samples."""
        ...

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Log-probability (nats) of whole messages: [...]."""
        ...

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy (nats) of the law of whole messages: [...]."""
        ...

    def soft(self, params: Tensor) -> Tensor:
        """The differentiable expectation [..., *params_shape] that carries gradients to the sender."""
        ...

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """Float form [..., *params_shape] of stored messages, whose gradient (if `soft` is given) is that of `soft`."""
        ...

    def load(self, messages: Tensor) -> Tensor:
        """What is charged for by `message_cost`: [...] float32."""
        ...

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """The messages as transmitted by a channel with that much noise."""
        ...


@dataclass(frozen=True)
class Symbols:
    """Exactly `length` symbols out of `vocab_size`; symbol 0 is the blank.

    There is no hidden end symbol: every message has `length` symbols, all of which the listener sees. The blank is a
    symbol like the others to the networks; it only is the one that `message_cost` does not charge for.

    Raises:
        UserError: fewer than two symbols, or a length below one.
    """

    vocab_size: int
    length: int
    temperature: float = 1.0
    kind: ClassVar[str] = "symbols"

    def __post_init__(self) -> None:
        whole("messages.vocab_size", self.vocab_size, 2)
        whole("messages.length", self.length, 1)
        if self.temperature <= 0:
            raise UserError(f"messages.temperature is {self.temperature}, and must be above 0")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.length, self.vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    def rule(self) -> str:
        bits = self.length * math.log2(self.vocab_size)
        return (
            f"a message is exactly {self.length} symbols out of {self.vocab_size} ({bits:.1f} bits at most); "
            "no end symbol; symbol 0 is the blank, the only one that costs nothing"
        )

    def space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete(np.full(self.length, self.vocab_size, dtype=np.int64))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """params [..., L, V] logits -> [..., L] int64."""
        return sample_categorical(params, generator)

    def mode(self, params: Tensor) -> Tensor:
        """The likeliest symbol at each position. params [..., L, V] -> [..., L] int64."""
        return params.argmax(-1)

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Sum over the L positions. params [..., L, V], messages [..., L] -> [...]."""
        return params.log_softmax(-1).gather(-1, messages.unsqueeze(-1)).squeeze(-1).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        log_p = params.log_softmax(-1)
        return -(log_p.exp() * log_p).sum((-1, -2))

    def soft(self, params: Tensor) -> Tensor:
        """Softmax at the kind's temperature (Jang 2017, eq. 2 without the noise: the stored sample has it)."""
        return (params / self.temperature).softmax(-1)

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """One-hot of the stored symbols [..., L, V]; gradient of `soft` (straight-through, Bengio 2013)."""
        hard = F.one_hot(messages, self.vocab_size).to(torch.float32 if soft is None else soft.dtype)
        return hard if soft is None else hard + soft - soft.detach()

    def load(self, messages: Tensor) -> Tensor:
        return (messages != 0).sum(-1).float()

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each symbol is replaced by a uniform one with probability `noise`."""
        uniform = torch.rand(messages.shape, generator=generator, device=messages.device)
        other = torch.randint(self.vocab_size, messages.shape, generator=generator, device=messages.device)
        return torch.where(uniform < noise, other, messages)


@dataclass(frozen=True)
class Vectors:
    """A vector of `size` real numbers; with `std` > 0 it is sampled from a normal law around the network's output.

    Raises:
        UserError: a size below one, or a negative std.
    """

    size: int
    std: float = 0.0
    kind: ClassVar[str] = "vectors"

    def __post_init__(self) -> None:
        whole("messages.size", self.size, 1)
        if self.std < 0:
            raise UserError(f"messages.std is {self.std}, and must not be negative")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def rule(self) -> str:
        noise = f" plus normal noise of standard deviation {self.std:g}" if self.std else ""
        return f"a message is a vector of {self.size} real numbers, the network's output{noise}"

    def space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (self.size,), np.float32)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.std == 0:
            return params.float()
        noise = torch.randn(params.shape, generator=generator, device=params.device)
        return params.float() + self.std * noise

    def mode(self, params: Tensor) -> Tensor:
        return params.float()

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Normal log-density summed over the vector; zero for the noiseless law, which has no density."""
        if self.std == 0:
            return params.new_zeros(params.shape[:-1])
        z = (messages - params) / self.std
        return (-0.5 * z.square() - math.log(self.std) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Differential entropy (nats); zero for the noiseless law."""
        if self.std == 0:
            return params.new_zeros(params.shape[:-1])
        each = 0.5 * math.log(2 * math.pi * math.e) + math.log(self.std)
        return params.new_full(params.shape[:-1], self.size * each)

    def soft(self, params: Tensor) -> Tensor:
        return params

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """The stored vector; the gradient is the identity on the network's output."""
        return messages if soft is None else messages + soft - soft.detach()

    def load(self, messages: Tensor) -> Tensor:
        """Every vector counts as one symbol."""
        return torch.ones(messages.shape[:-1], device=messages.device)

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Normal noise of standard deviation `noise` is added."""
        return messages + noise * torch.randn(messages.shape, generator=generator, device=messages.device)


def whole(key: str, value: Any, at_least: int) -> int:
    """The value, which must be a whole number.

    Raises:
        UserError: it is something else, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"{key} is {value!r}, and must be a whole number")
    if value < at_least:
        raise UserError(f"{key} is {value}, and must be at least {at_least}")
    return int(value)


MESSAGE_KINDS: dict[str, type] = {"symbols": Symbols, "vectors": Vectors}


def message_kind(value: MessageKind | dict[str, Any] | None) -> MessageKind | None:
    """A kind of message from its config mapping, e.g. {"kind": "symbols", "vocab_size": 64, "length": 5}.

    Raises:
        UserError: no such kind, or arguments that do not fit it.
    """
    return None if value is None else made("communication.messages", value, MESSAGE_KINDS, "sample")


def made(key: str, value: Any, classes: dict[str, type], method: str) -> Any:
    """The object that a config means: {"kind": name, **arguments}, a bare name, or an object that has the method.

    Raises:
        UserError: none of these.
    """
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, Mapping):
        return build_from_config(key, dict(value), classes)
    if not hasattr(value, method):
        raise UserError(
            f"{key} is {value!r}, and must be a mapping with 'kind' ({', '.join(sorted(classes))}) or an object"
        )
    return value


def build_from_config(key: str, value: dict[str, Any], classes: dict[str, type]) -> Any:
    """An object from {"kind": name, **arguments}, with errors in the user's words."""
    arguments = dict(value)
    name = arguments.pop("kind", None)
    if name is None:
        raise UserError(f"{key} has no 'kind'; allowed: {', '.join(sorted(classes))}")
    if name not in classes:
        raise unknown(f"{key}.kind", name, classes)
    fields = signature(classes[name]).parameters
    for argument in arguments:
        if argument not in fields:
            raise unknown(f"{key} of kind '{name}': the argument", argument, fields or ["(none)"])
    try:
        return classes[name](**arguments)
    except TypeError as error:
        raise UserError(f"{key} of kind '{name}': {str(error).split('__init__() ')[-1]}") from error
