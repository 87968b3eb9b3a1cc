"""Gates and budgets: what a channel asks for before a message goes out, and before it comes in.

A *receiver's* gate opens and shuts every number of a message by the listener's own state (`popcomm.agents.gates`); a
*sender's* gate is a decision in every step, to speak or not (IC3Net: Singh, Jain & Sukhbaatar 2019, section 3.2),
learned by policy gradients as actions are. A *budget* serves the most urgent of those who want to reach a listener.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from popcomm.channels.links import Links
from popcomm.checks import not_negative, whole
from popcomm.errors import UserError, unknown

KINDS = ("receiver", "sender", "both")
MIDDLE = 0.5  # the priority of who has none of its own


@dataclass(frozen=True)
class Gates:
    """Which gates there are; by default none."""

    receiver: bool = False
    sender: bool = False
    price: float = 0.0  # of a message that goes out, in units of reward; 0: nothing

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in ("receiver", "sender") if getattr(self, name))


def make_gates(value: Any) -> Gates:
    """From None or "none", "receiver", "sender", "both", or {"kind": one of these, "price": c}.

    Raises:
        UserError: none of these, or a price that is negative or has nobody to pay it.
    """
    if value is None or value == "none" or isinstance(value, Gates):
        return value if isinstance(value, Gates) else Gates()
    told = {"kind": value} if isinstance(value, str) else value
    if not isinstance(told, Mapping):
        raise UserError(f"communication.gate is {value!r}, and must be one of {', '.join(KINDS)}, none, or a mapping")
    for key in told:
        if key not in ("kind", "price"):
            raise unknown("communication.gate: the key", key, ("kind", "price"))
    kind, price = told.get("kind"), told.get("price", 0.0)
    if kind not in KINDS:
        raise unknown("communication.gate" + ".kind" * (told is value), str(kind), KINDS)
    not_negative("communication.gate.price", price)
    if price and kind == "receiver":
        raise UserError(f"communication.gate.price is {price}, and who listens pays nothing; use kind sender or both")
    return Gates(kind != "sender", kind != "receiver", float(price))


@dataclass(frozen=True)
class Budget:
    """How many messages a listener takes in a step (or round), and what urgency costs; by default all, and nothing."""

    messages: int | None = None  # K; None: all that reach it
    patience: int | None = None  # refusals in a row after which a sender comes first; None: it may wait for ever
    price: float = 0.0  # of a message that goes out, times its priority, in units of reward

    @property
    def ranks(self) -> bool:
        """Whether priorities matter at all."""
        return self.messages is not None or self.price > 0


def make_budget(value: Any) -> Budget:
    """From None, K, or {"messages": K, "patience": W, "price": c}, at least one of K and c in it.

    Raises:
        UserError: a number below 1, a negative price, or a key that does not exist.
    """
    if value is None or isinstance(value, Budget):
        return value or Budget()
    told = value if isinstance(value, Mapping) else {"messages": value}
    for key in told:
        if key not in ("messages", "patience", "price"):
            raise unknown("communication.budget: the key", key, ("messages", "patience", "price"))
    messages, patience, price = told.get("messages"), told.get("patience"), told.get("price", 0.0)
    for key, number in (("messages", messages), ("patience", patience)):
        if number is not None:
            whole(f"communication.budget.{key}" if told is value else "communication.budget", number, 1)
    not_negative("communication.budget.price", price)
    if messages is None and not price:
        raise UserError(f"communication.budget is {value!r}, and must say how many 'messages' there are, or a 'price'")
    if patience is not None and messages is None:
        raise UserError(f"communication.budget.patience is {patience}, and without 'messages' nobody is refused")
    return Budget(messages, patience, float(price))


class Served(NamedTuple):
    """Result of `serve`."""

    links: Links  # [B, N, budget], the most urgent first
    refused: Tensor  # [B, N, K] bool, of the links that there were
    waited: Tensor  # [B, N] int64


def serve(links: Links, priority: Tensor, waited: Tensor, spoke: Tensor, budget: Budget) -> Served:
    """The K most urgent of the messages that reach each listener.

    Who was refused `patience` times in a row comes first; then the higher priority; of equal ones whoever was refused
    more often in a row, then the one that the topology names first (the nearest, the lowest seat).

    Args:
        links: [B, N, K'].
        priority: [B, N] in [0, 1], of what seats say.
        waited: [B, N] int64, messages of each seat in a row that reached somebody and that nobody took.
        spoke: [B, N] bool, who said something.
        budget: with `messages`.

    >>> links = Links(torch.tensor([[[1, 2], [0, 2], [0, 1]]]), torch.ones(1, 3, 2, dtype=torch.bool))
    >>> nobody, all_speak = torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bool)
    >>> served = serve(links, torch.tensor([[0.1, 0.9, 0.5]]), nobody, all_speak, Budget(1))
    >>> served.links.senders.tolist(), served.waited.tolist()
    ([[[1], [2], [1]]], [[1, 0, 0]])
    """
    assert budget.messages is not None
    senders, real = links
    flat = senders.flatten(1)

    def of_sender(values: Tensor) -> Tensor:
        return values.gather(1, flat).view_as(senders)

    patient = torch.zeros_like(waited) if budget.patience is None else (waited >= budget.patience).long()
    order = torch.arange(senders.shape[-1], device=senders.device).expand_as(senders)
    # Stable sorts from the last criterion to the first.
    for key in (of_sender(waited), of_sender(priority), of_sender(patient), real.long()):
        order = order.gather(-1, key.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices)
    first = order[..., : budget.messages]
    kept = Links(senders.gather(-1, first), real.gather(-1, first))
    taken = torch.zeros_like(real).scatter(-1, first, kept.mask)
    return Served(kept, real & ~taken, _waiting(senders, real, taken, waited, spoke))


def _waiting(senders: Tensor, real: Tensor, taken: Tensor, waited: Tensor, spoke: Tensor) -> Tensor:
    """[B, N], see `serve`: it goes on for those who said nothing, or whom nobody could have heard."""

    def any_of(slots: Tensor) -> Tensor:
        counts = torch.zeros_like(waited).scatter_add(1, senders.flatten(1), slots.flatten(1).long())
        return counts > 0

    wanted = any_of(real) & spoke
    return torch.where(wanted, torch.where(any_of(taken), 0, waited + 1), waited)
