"""The unroll of steps with rounds of messages in them: gradients go through all rounds, and through memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.graph import LearnedGraph
from popcomm.channels import Learned
from popcomm.channels.mail import Mail
from popcomm.channels.messages import MessageKind
from popcomm.rllib.fragment import Fragment, plain


class Spoken(NamedTuple):
    """What a species said in one round of all steps."""

    params: Tensor  # [P, T R, *params_shape]
    said: Tensor | None  # [P, T R, ...], of networks that speak symbol by symbol
    manner: Tensor | None  # [P, T R, 3], where it is asked for


def walk_rounds(
    walks: Mapping[str, Any],
    seats: Mapping[str, slice],
    rounds: int,
    messages: MessageKind,
    through: bool,
    routed: bool,
    graph: LearnedGraph | Learned | None,
) -> None:
    """Let species walk through their fragments, all rounds of every step.

    Args:
        walks: {species: its walk}, at step 0 (`popcomm.rllib.species_walk`).
        seats: {species: slice of the world's seats}.
        rounds: R, one or more.
        messages: their kind.
        through: whether gradients flow from receivers to senders.
        routed: whether all hear all others, without inboxes.
        graph: by whose links they hear, where these have strengths.
    """
    every = list(walks.values())
    for t in range(every[0].length):
        for walk in every:
            walk.open(t)
        # Nobody has said anything yet.
        mail = _heard(every, t, rounds - 1, None, routed, graph)
        mail = mail._replace(mask=torch.zeros_like(mail.mask))
        for before in reversed(range(rounds)):  # the last one
            for name, walk in walks.items():
                walk.speak(t, before, mail, seats[name])
            soft = side_by_side([walk.soft(t, messages, before) for walk in every]) if through else None
            mail = _heard(every, t, before, soft, routed, graph)
        for name, walk in walks.items():
            walk.step(t, mail, seats[name])


def _heard(
    walks: Sequence[Any],
    t: int,
    before: int,
    soft: Tensor | None,
    routed: bool,
    graph: LearnedGraph | Learned | None,
) -> Mail:
    """What was said in step t, so many rounds before the last, as it was heard: stored samples forward, and `soft`, the
    differentiable form [B, N, *features shape], for the way back."""
    keys = ("messages", "senders", "inbox_mask")
    said, senders, mask = (side_by_side([walk.steps.of_round(t, key, before) for walk in walks]) for key in keys)
    gate = None if graph is None else graph.gate(senders)
    hears = side_by_side([walk.steps.at(t, "alive") for walk in walks]) if routed else None
    return Mail(said, senders, mask, soft, hears, gate=gate)


def folded(arrays: Fragment[Tensor]) -> Fragment[Tensor]:
    """Arrays [B, T, ...] as [B T, 1, ...]: steps as worlds, where nothing links them.

    Of T + 1 rows the first T are kept; of messages, each in the row after the step that said it, the last T.
    """
    length = arrays["alive"].shape[1]

    def fold(key: str, values: Tensor) -> Tensor:
        values = values[:, -length:] if key == "messages" else values[:, :length]
        return values.flatten(0, 1).unsqueeze(1)

    kept = {
        key: fold(key, values) for key, values in plain(arrays).items() if values.ndim > 1 and key != "previous_obs"
    }
    if "open_symbols" in arrays:
        kept["open_symbols"] = arrays["open_symbols"]
    return cast("Fragment[Tensor]", kept)


def joined_rounds(spoken: Sequence[AgentOutput], length: int) -> tuple[Spoken, ...]:
    """What was said in all rounds but the last, first to last; nothing of those that never speak.

    Args:
        spoken: outputs of all rounds, step after step.
        length: how many steps.
    """
    rounds = len(spoken) // length
    joined = []
    for number in range(rounds - 1):
        outputs = spoken[number::rounds]
        params = along_rows([output.message for output in outputs])
        if params is not None:
            said, manner = (along_rows([getattr(o, name) for o in outputs]) for name in ("said", "manner"))
            joined.append(Spoken(params, said, manner))
    return tuple(joined)


def joined_expenses(expenses: Sequence[Tensor | None], length: int) -> Tensor | None:
    """[P, T R], what was spent in all rounds of each step; None where that is not known. The arguments are those of
    `joined_rounds`."""
    rounds = len(expenses) // length
    if rounds < 2:
        return along_rows(expenses)
    each = [along_rows(expenses[number::rounds]) for number in range(rounds)]
    known = [values for values in each if values is not None]
    return torch.stack(known).sum(0) if known else None


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """What all species have, [B, N_s, ...] each, as [B, N, ...]."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def along_rows(values: Sequence[Tensor | None]) -> Tensor | None:
    """[P, R, ...] of every step -> [P, T R, ...]; None where there are none."""
    there = [value for value in values if value is not None]
    return torch.cat(there, 1) if there else None
