"""Vocabularies that grow: a few symbols may be said at once, the others one after another while training goes on."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from popcomm.channels.messages import MessageKind, Symbols
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.checks import mapping, whole
from popcomm.errors import UserError
from popcomm.schedules import LoadLinear, Schedule, make_schedule

KEY = "communication.vocabulary"
CLOSED = -1e9  # a logit whose probability is exactly zero in float32, while sums of it stay finite
SETTINGS = ("first", "schedule")


class Vocabulary:
    """Which of V symbols may be said: 0 ... n - 1, where n follows a schedule from `first` to V.

    With strength s of the schedule round(first + (1 - s) (V - first)) are open: a schedule that ends above 0 leaves
    some closed for ever, and one that rises closes them again. With the schedule "load_linear" what grows on a straight
    line is the load of a symbol, log2 n bits, and not n itself: round(first^s V^(1 - s)). (Starting small: Elman 1993.)

    Args:
        first: symbols that are open at full strength, at least 2: symbol 0, the blank or the end, is one of them.
        schedule: of the strength; see `popcomm.schedules`.
        symbols: V.

    Raises:
        UserError: `first` that is not in 2 ... V - 1, or no schedule.

    >>> Vocabulary(8, {"kind": "linear", "begin": 0, "end": 100}, symbols=64).size(0.5)
    36
    """

    def __init__(self, first: int, schedule: Any, symbols: int) -> None:
        self.first, self.symbols = whole(f"{KEY}.first", first, 2), symbols
        if first >= symbols:
            raise UserError(
                f"{KEY}.first is {first}, and must be below messages.vocab_size = {symbols}: there is nothing to grow"
            )
        if schedule is None:
            raise UserError(f"{KEY}.schedule is missing: it says when symbols are opened")
        self.schedule: Schedule = make_schedule(schedule, f"{KEY}.schedule")

    def size(self, strength: float) -> int:
        """n, how many symbols are open at a strength in [0, 1]."""
        if isinstance(self.schedule, LoadLinear):
            return round(self.first**strength * self.symbols ** (1 - strength))
        return round(self.first + (1 - strength) * (self.symbols - self.first))


def make_vocabulary(value: Any, kind: MessageKind) -> Vocabulary | None:
    """The vocabulary that a config means, {"first": 8, "schedule": {...}}, of that kind of message; None: all is open.

    Raises:
        UserError: another value, or messages that are no symbols.
    """
    if value is None:
        return None
    if not isinstance(kind, Symbols | RelaxedSymbols):
        raise UserError(f"{KEY} opens one symbol after another, and messages are {kind.kind}; use kind symbols")
    mapping(KEY, value, SETTINGS, " and ")
    if "first" not in value:
        raise UserError(f"{KEY}.first is missing: it says how many symbols are open in the beginning")
    return Vocabulary(value["first"], value.get("schedule"), kind.vocab_size)


def closed(params: Tensor, open_symbols: int | None) -> Tensor:
    """Logits [..., V] whose symbols from `open_symbols` on are out of reach, without gradient; None: all are open."""
    if open_symbols is None or open_symbols >= params.shape[-1]:
        return params
    return params.masked_fill(torch.arange(params.shape[-1], device=params.device) >= open_symbols, CLOSED)


def narrowed(kind: Any, open_symbols: int | None) -> Any:
    """The kind whose vocabulary is what is open; None: the kind itself."""
    return kind if open_symbols is None else dataclasses.replace(kind, vocab_size=open_symbols)


def points(kind: Any, messages: Tensor, open_symbols: int | None) -> Tensor:
    """Messages of a kind as those of its `narrowed` one: symbols [..., L] as they are, and points [..., L, V] without
    the numbers of closed symbols, which are zeros: [..., L, n]."""
    return messages if open_symbols is None or not isinstance(kind, RelaxedSymbols) else messages[..., :open_symbols]


def widened(kind: Any, messages: Tensor) -> Tensor:
    """The inverse of `points`: messages of a `narrowed` kind as those of the kind."""
    if not isinstance(kind, RelaxedSymbols):
        return messages
    return torch.nn.functional.pad(messages, (0, kind.vocab_size - messages.shape[-1]))
