"""Messages of real numbers: the network's output, with normal noise if asked for, or as much as privacy needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.channels.privacy import Privacy, privacy_of
from popcomm.channels.relaxed import at_least_float32
from popcomm.channels.superposition import Superposition, superposition_of
from popcomm.checks import number, whole
from popcomm.errors import UserError


@dataclass(frozen=True)
class Vectors:
    """A vector of `size` real numbers; with `std` > 0 it is normally distributed around the network's output.

    With `privacy` the output is clipped, and the noise is what (epsilon, delta) takes; no message goes out without,
    greedy ones neither. With `superposition` the output is several vectors, of which a message is put together
    (`popcomm.channels.superposition`).

    Raises:
        UserError: a size below one, a negative std, one beside privacy, which sets it, noise beside a random
            measurement, whose messages have no density that could be told, or what Privacy and Superposition refuse.
    """

    size: int
    std: float = 0.0
    privacy: Privacy | Mapping[str, Any] | None = None
    superposition: Superposition | Mapping[str, Any] | None = None
    kind: ClassVar[str] = "vectors"
    gradients: ClassVar[tuple[str, ...]] = ("through",)

    def __post_init__(self) -> None:
        whole("messages.size", self.size, 1)
        number("messages.std", self.std, "not be negative", least=0)
        if self.privacy is not None and self.std:
            raise UserError(f"messages.std is {self.std}, and follows from messages.privacy; leave one of them out")
        object.__setattr__(self, "privacy", privacy_of(self.privacy))
        object.__setattr__(self, "superposition", superposition_of(self.superposition))
        if self.parts is not None and self.parts.drawn and (self.std or self.privacy):
            what = "privacy" if self.privacy else f"std {self.std}"
            raise UserError(
                "messages.superposition.measure is 'random', which does not go with "
                f"messages.{what}; use learned or top_1"
            )

    @property
    def mechanism(self) -> Privacy | None:
        """What hides what the sender saw; None: nothing does."""
        return cast("Privacy | None", self.privacy)

    @property
    def parts(self) -> Superposition | None:
        """What a message is put together of; None: the output is the message."""
        return cast("Superposition | None", self.superposition)

    @property
    def always_drawn(self) -> bool:
        """Whether a message is never its distribution's mode, not even of those who explore nothing."""
        return self.privacy is not None

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on every number."""
        return self.std if self.mechanism is None else self.mechanism.sigma

    def center(self, params: Tensor, drawn: Tensor | None = None) -> Tensor:
        """What the noise is added to: the output, put together of its parts and clipped where it is private.

        Args:
            params: [..., *params_shape].
            drawn: [..., K], what parts are measured with at random; None: in play.

        Returns:
            [..., size].
        """
        whole = params if self.parts is None else self.parts.combined(params, self.size, drawn)
        return whole if self.mechanism is None else self.mechanism.clipped(whole)

    def _rows(self, params: Tensor) -> torch.Size:
        """The axes in front of a message's."""
        return params.shape[: params.dim() - len(self.params_shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def params_shape(self) -> tuple[int, ...]:
        return (self.size,) if self.parts is None else self.parts.params_shape(self.size)

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
        hidden = self.mechanism
        noise = f" plus normal noise of standard deviation {self.deviation:g}" if self.deviation else ""
        if hidden is not None:
            many = f"any {hidden.messages:,} messages of a sender" if hidden.messages > 1 else "a message"
            noise = (
                f", clipped to the L2 norm {hidden.clip:g},{noise}: ({hidden.epsilon:g}, {hidden.delta:g})-"
                f"differential privacy of what {many} were made of"
            )
        source = "the network's output"
        if self.parts is not None:
            source = f"put together of {self.parts.encoders} outputs of the network by {self.parts.measure} weights"
        return f"a message is a vector of {self.size} real numbers, {source}{noise}"

    def space(self) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (self.size,), np.float32)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Nothing is kept of vectors in which nothing is random."""
        if self.parts is not None and self.parts.drawn:
            return (self.parts.drawn,)
        return (self.size,) if self.deviation else (0,)

    def draw_noise(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise: [..., *noise_shape] float32."""
        return torch.randn(*self._rows(params), *self.noise_shape, generator=generator, device=params.device)

    def sample_with(self, params: Tensor, noise: Tensor) -> Tensor:
        """params [..., *params_shape] and noise -> [..., size], float32 or wider; differentiable in params."""
        params = at_least_float32(params)
        if self.parts is not None and self.parts.drawn:
            return self.center(params, noise)
        return self.center(params) + self.deviation * noise if self.deviation else self.center(params)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.sample_with(params, self.draw_noise(params, generator))

    def mode(self, params: Tensor) -> Tensor:
        """The mean, float32; of private messages, which have to be noisy, a sample by torch's default generator."""
        return self.sample(params).float() if self.always_drawn else self.center(params.float())

    def log_prob(self, params: Tensor, messages: Tensor) -> Tensor:
        """Normal log-density summed over the vector; zero for the noiseless distribution, which has no density."""
        if self.deviation == 0:
            return params.new_zeros(self._rows(params))
        z = (messages - self.center(params)) / self.deviation
        return (-0.5 * z.square() - math.log(self.deviation) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Differential entropy (nats); zero for the noiseless distribution."""
        if self.deviation == 0:
            return params.new_zeros(self._rows(params))
        each = 0.5 * math.log(2 * math.pi * math.e) + math.log(self.deviation)
        return params.new_full(self._rows(params), self.size * each)

    def soft(self, params: Tensor) -> Tensor:
        """The output itself (clipped, where it is private), without noise."""
        return self.center(params)

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
