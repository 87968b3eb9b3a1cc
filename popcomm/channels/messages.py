"""What passes between agents: symbols and vectors, each with its space, distribution and differentiable form.

A message kind turns a network's output (`params`) into messages and back into gradients. Binary words are another one,
in words.py; relaxed.py has those that are real in training and discrete in play.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from popcomm.channels.relaxed import NOISE, RelaxedSymbols, at_least_float32, not_blank
from popcomm.channels.sampling import sample_categorical
from popcomm.checks import number, positive, true_or_false, whole
from popcomm.errors import UserError


class MessageKind(Protocol):
    """What a channel, an agent and a learner need to know of a kind of message.

    Leading axes `...` are free: [B, N] in worlds, [P, R] in networks, with T anywhere in front.

    One of your own is learned with as `gradients` says: names of `popcomm.channels.kinds.GRADIENTS`, where each says
    what it asks of a kind. The first is taken where a config leaves it open ("relaxed" only where there is no other).

    Optional, of kinds that are reparameterised: `noise_shape`, `draw_noise(params, generator) -> noise`,
    `sample_with(params, noise) -> messages`, differentiable in params, and `transmitted_again(said, sent, heard)`: what
    a noisy channel makes of `said` that made `heard` of `sent`. The trainer keeps the noise of such messages, and hands
    `sample_with` of the present parameters to `straight_through` as `soft`. Of kinds with an alphabet:
    `probabilities(params) -> [..., positions, alphabet]` of the symbols at every position. Of any:
    `expense(params) -> [...]`, differentiable, what agents that are to be brief make small (without it: the sum of the
    absolute values of params).
    """

    kind: ClassVar[str]
    gradients: ClassVar[tuple[str, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one message."""
        ...

    @property
    def params_shape(self) -> tuple[int, ...]:
        """Shape of what a network puts out for one message."""
        ...

    @property
    def features_shape(self) -> tuple[int, ...]:
        """Shape of the float form of one message, which listeners read."""
        ...

    @property
    def alphabet(self) -> int | None:
        """How many symbols `as_symbols` knows; None for a kind that has none."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of messages."""
        ...

    def rule(self) -> str:
        """One sentence that says what a message is; printed when training starts."""
        ...

    def space(self) -> spaces.Space:
        """What is chosen to say a message, where agents speak through an action space."""
        ...

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
        """Entropy (nats) of the distribution of whole messages: [...]."""
        ...

    def soft(self, params: Tensor) -> Tensor:
        """The differentiable expectation [..., *features_shape] that carries gradients to the sender."""
        ...

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """Float form [..., *features_shape] of stored messages; its gradient, if `soft` is given, is that of `soft`."""
        ...

    def load(self, messages: Tensor) -> Tensor:
        """What is charged for by `message_cost`: [...] float32."""
        ...

    def spoken(self, messages: Tensor) -> Tensor:
        """Which of them are transmitted at all: [...] bool."""
        ...

    def as_symbols(self, messages: Tensor) -> Tensor:
        """The messages as strings of symbols 0 ... alphabet - 1, for statistics and pictures: [..., length] int64."""
        ...

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """The messages as transmitted by a channel with that much noise."""
        ...


def reparameterised(kind: object) -> bool:
    """Whether messages of that kind are made anew from kept noise when they are learned from."""
    return getattr(kind, "noise_shape", None) is not None


@dataclass(frozen=True)
class Symbols:
    """Exactly `length` symbols out of `vocab_size`; symbol 0 is the blank.

    There is no hidden end symbol: every message has `length` symbols, all of which the listener sees. The blank is a
    symbol like the others to the networks; it only is the one that `message_cost` does not charge for.

    Args:
        vocab_size: V, how many there are to choose from.
        length: L, how many make a message.
        temperature: of the softmax that carries gradients to the sender.
        relaxed: in the trainer they are points of the simplex (`popcomm.channels.relaxed`); `message_kind` sees to it.
        noise: how loud the noise of relaxed ones is beside the logits; None: `popcomm.channels.relaxed.NOISE`.

    Raises:
        UserError: fewer than two symbols, a length below one, a temperature or a noise that is not above 0, or a noise
            of symbols that are not relaxed.
    """

    vocab_size: int
    length: int
    temperature: float = 1.0
    relaxed: bool = False
    noise: float | None = None
    kind: ClassVar[str] = "symbols"
    gradients: ClassVar[tuple[str, ...]] = ("relaxed", "straight_through", "reinforce")

    def __post_init__(self) -> None:
        whole("messages.vocab_size", self.vocab_size, 2)
        whole("messages.length", self.length, 1)
        positive("messages.temperature", self.temperature)
        true_or_false("messages.relaxed", self.relaxed)
        if self.noise is not None and not self.relaxed:
            raise UserError(f"messages.noise is {self.noise}, and only relaxed symbols have some: set messages.relaxed")
        if self.noise is not None:
            self.on_simplex()  # which says what is wrong with it

    def on_simplex(self) -> RelaxedSymbols:
        """The same symbols as points of the simplex."""
        noise = NOISE if self.noise is None else self.noise
        return RelaxedSymbols(self.vocab_size, self.length, self.temperature, noise)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.length, self.vocab_size)

    @property
    def features_shape(self) -> tuple[int, ...]:
        return self.params_shape

    @property
    def alphabet(self) -> int:
        return self.vocab_size

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

    def probabilities(self, params: Tensor) -> Tensor:
        """[..., L, V]."""
        return params.softmax(-1)

    def log_drawn(self, params: Tensor) -> Tensor:
        """Log-probabilities (nats) with which symbols are drawn in training: [..., L, V]."""
        return params.log_softmax(-1)

    def soft(self, params: Tensor) -> Tensor:
        """Softmax at the kind's temperature (Jang 2017, eq. 2 without the noise: the stored sample has it)."""
        return (params / self.temperature).softmax(-1)

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """One-hot of the stored symbols [..., L, V]; gradient of `soft` (straight-through, Bengio 2013)."""
        hard = F.one_hot(messages, self.vocab_size).to(torch.float32 if soft is None else soft.dtype)
        return hard if soft is None else hard + soft - soft.detach()

    def load(self, messages: Tensor) -> Tensor:
        """Symbols that are not the blank."""
        return (messages != 0).sum(-1).float()

    def expense(self, params: Tensor) -> Tensor:
        """The expected number of symbols that are not the blank. params [..., L, V] -> [...]."""
        return not_blank(params)

    def spoken(self, messages: Tensor) -> Tensor:
        """All of them: a message of blanks is one, too."""
        return torch.ones(messages.shape[:-1], dtype=torch.bool, device=messages.device)

    def as_symbols(self, messages: Tensor) -> Tensor:
        return messages

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Each symbol is replaced by a uniform one with probability `noise`."""
        uniform = torch.rand(messages.shape, generator=generator, device=messages.device)
        other = torch.randint(self.vocab_size, messages.shape, generator=generator, device=messages.device)
        return torch.where(uniform < noise, other, messages)


@dataclass(frozen=True)
class Vectors:
    """A vector of `size` real numbers; with `std` > 0 it is normally distributed around the network's output.

    Raises:
        UserError: a size below one, or a negative std.
    """

    size: int
    std: float = 0.0
    kind: ClassVar[str] = "vectors"
    gradients: ClassVar[tuple[str, ...]] = ("through",)

    def __post_init__(self) -> None:
        whole("messages.size", self.size, 1)
        number("messages.std", self.std, "not be negative", least=0)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def features_shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def alphabet(self) -> None:
        """None: as_symbols has nothing to count."""
        return None

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def rule(self) -> str:
        noise = f" plus normal noise of standard deviation {self.std:g}" if self.std else ""
        return f"a message is a vector of {self.size} real numbers, the network's output{noise}"

    def space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (self.size,), np.float32)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Nothing is kept of noiseless vectors."""
        return (self.size,) if self.std else (0,)

    def draw_noise(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise: [..., size] float32, or [..., 0] of the noiseless distribution."""
        return torch.randn(*params.shape[:-1], *self.noise_shape, generator=generator, device=params.device)

    def sample_with(self, params: Tensor, noise: Tensor) -> Tensor:
        """params [..., size] and noise -> [..., size], float32 or wider; differentiable in params."""
        params = at_least_float32(params)
        return params + self.std * noise if self.std else params

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_with(params, self.draw_noise(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        """The mean, float32."""
        return params.float()

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Normal log-density summed over the vector; zero for the noiseless distribution, which has no density."""
        if self.std == 0:
            return params.new_zeros(params.shape[:-1])
        z = (messages - params) / self.std
        return (-0.5 * z.square() - math.log(self.std) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Differential entropy (nats); zero for the noiseless distribution."""
        if self.std == 0:
            return params.new_zeros(params.shape[:-1])
        each = 0.5 * math.log(2 * math.pi * math.e) + math.log(self.std)
        return params.new_full(params.shape[:-1], self.size * each)

    def soft(self, params: Tensor) -> Tensor:
        """The output itself, without noise."""
        return params

    def straight_through(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """The vector itself; `soft` is what the present sender says with the noise that was kept."""
        return messages if soft is None else soft

    def load(self, messages: Tensor) -> Tensor:
        """Every vector counts as one symbol."""
        return torch.ones(messages.shape[:-1], device=messages.device)

    def spoken(self, messages: Tensor) -> Tensor:
        """All of them."""
        return torch.ones(messages.shape[:-1], dtype=torch.bool, device=messages.device)

    def as_symbols(self, messages: Tensor) -> Tensor:
        """Raises TypeError: the alphabet of vectors is None."""
        raise TypeError("vectors have no symbols")

    def corrupt(self, messages: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
        """Normal noise of standard deviation `noise` is added."""
        return messages + noise * torch.randn(messages.shape, generator=generator, device=messages.device)

    def transmitted_again(self, said: Tensor, sent: Tensor, heard: Tensor) -> Tensor:
        """What is heard of `said` where `heard` was heard of `sent`: the same noise is added."""
        return said + (heard - sent)
