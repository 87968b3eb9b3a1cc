"""One step of the networks of a species, and where their memories begin anew."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.channels.mailbox import Inbox
from popcomm.channels.vocabulary import closed
from popcomm.errors import UserError


def agent_step(
    agent: Any,
    spec: AgentSpec,
    obs: Tensor,
    inbox: Inbox | None,
    state: dict[str, Tensor],
    said: Tensor | None = None,
    generator: torch.Generator | None = None,
    greedy: bool = False,
    undecided: bool = False,
    seen: Tensor | None = None,
    open_symbols: int | None = None,
) -> AgentOutput:
    """One step of a network; those that speak symbol by symbol are told what was said, or how to choose it.

    obs is as it is kept, [P, R, O]; pictures are scaled here. What networks of a species that never speaks may say all
    the same is left out. undecided: leave out the action and the value (`popcomm.agents.contract.Agent`).
    seen: [P, R, ...], what the network made of these observations before, which are then given to it as they are kept.
    open_symbols: how many of them may be said; the logits of the others are out of reach. None: all.

    Raises:
        UserError: not all are open, and the network speaks symbol by symbol without being told so.
    """
    how: dict[str, Any] = {"undecided": True} if undecided else {}
    if getattr(agent, "autoregressive", False):
        how |= {"said": said, "generator": generator, "greedy": greedy}
        if open_symbols is not None:
            how["open_symbols"] = _told_of(agent, open_symbols)
    if seen is not None:
        how["seen"] = seen
    output = agent(spec.numbers(obs), inbox, state, **how)
    if spec.sends is None:
        return output._replace(message=None, said=None, manner=None)
    if open_symbols is None or output.message is None:
        return output
    return output._replace(message=closed(output.message, open_symbols))


def _told_of(agent: Any, open_symbols: int) -> int:
    if "open_symbols" not in signature(agent.forward).parameters:
        raise UserError(
            f"communication.vocabulary keeps symbols closed, and population.agent {type(agent).__name__} says its "
            "messages itself: its forward must take the keyword open_symbols"
        )
    return open_symbols


def reset_state(agent: Any, state: dict[str, Tensor], first: Tensor) -> dict[str, Tensor]:
    """Recurrent state [P, R, ...] put back to its start on rows where a life begins. first: [P, R] bool."""
    # To look whether there is any saves the rest on a CPU; a GPU would have to be waited for.
    if not state or (first.device.type == "cpu" and not bool(first.any())):
        return state
    start = agent.initial_state(first.shape[1])
    return {
        name: torch.where(first.view(*first.shape, *[1] * (value.ndim - 2)), start[name].to(value.dtype), value)
        for name, value in state.items()
    }
