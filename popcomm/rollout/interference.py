"""Interference: what becomes of messages when it is tried whether they matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from popcomm.channels import MessageKind, Words
from popcomm.channels.messages import reparameterised
from popcomm.errors import unknown

# (kind, messages [B, N, *message shape], voice [B, N] bool, generator) -> the messages and the voice in their place.
Interference = Callable[[MessageKind, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def silenced(kind: MessageKind, messages: Tensor, voice: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Nobody is heard, and talk costs nothing."""
    return messages, torch.zeros_like(voice)


def replaced(kind: MessageKind, messages: Tensor, voice: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise in place of what is said: symbols with equal probability, any words; numbers that are normal, with the mean
    and the deviation of those that are said in the step. Who is silent stays silent."""
    said = voice & kind.spoken(messages)
    return _where(said, _noise(kind, messages, said, generator), messages), voice


def shuffled(kind: MessageKind, messages: Tensor, voice: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of every seat that speaks, what the same seat says in another world; who speaks alone is heard as it is."""
    said = voice & kind.spoken(messages)
    return exchanged(messages, said, generator), voice


def exchanged(messages: Tensor, said: Tensor, generator: torch.Generator) -> Tensor:
    """The messages of each seat [B, N, ...] passed on among the worlds in which it speaks, said [B, N] bool.

    None stays where it is, where a seat speaks in two worlds or more.
    """
    chance = torch.rand(said.shape, generator=generator, device=said.device)
    order = (chance + 2.0 * ~said).argsort(0)  # [B, N], worlds that speak first, in random order
    count = said.sum(0, keepdim=True)
    place = torch.arange(len(said), device=said.device).unsqueeze(1)
    source = order.gather(0, torch.where(place < count, (place + 1) % count.clamp(min=1), place))
    partner = torch.empty_like(order).scatter_(0, order, source)
    return messages[partner, torch.arange(said.shape[1], device=said.device)]


def _noise(kind: Any, messages: Tensor, said: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(kind, Words):
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator, device=messages.device)))
        words = kind.uniform(rng, messages.numel()).reshape(tuple(messages.shape))
        return torch.from_numpy(words).to(messages.device)
    if kind.alphabet is not None:
        free = torch.zeros(*messages.shape[: said.ndim], *kind.params_shape, device=messages.device)
        return as_symbols(kind, kind.sample(free, generator))
    numbers = messages[said]
    if not len(numbers):
        return messages
    spread = numbers.std(0, correction=0) * torch.randn(messages.shape, generator=generator, device=messages.device)
    return numbers.mean(0) + spread


def as_symbols(kind: Any, messages: Tensor) -> Tensor:
    """Messages that are points between symbols in training, as the symbols that they are in play."""
    if reparameterised(kind) and kind.alphabet is not None:
        return kind.from_symbols(kind.as_symbols(messages))
    return messages


def _where(said: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(said.view(*said.shape, *[1] * (one.ndim - said.ndim)), one, other)


def in_turn(first: Interference | None, then: Interference | None) -> Interference | None:
    """One interference after the other."""
    if first is None or then is None:
        return first or then
    one, other = first, then

    def both(kind: MessageKind, messages: Tensor, voice: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return other(kind, *one(kind, messages, voice, generator), generator)

    return both


MESSAGES: dict[str, Interference | None] = {"on": None, "off": silenced, "noise": replaced, "shuffled": shuffled}


def interference(messages: str | None) -> Interference | None:
    """What is done to messages: nothing ("on", None), "off", "noise" or "shuffled".

    Raises:
        UserError: another word.
    """
    if messages is None:
        return None
    if messages not in MESSAGES:
        raise unknown("messages", messages, MESSAGES)
    return MESSAGES[messages]
