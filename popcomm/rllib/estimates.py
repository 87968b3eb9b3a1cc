"""Advantages and value targets of a species' fragment: of its steps, or of its messages alone."""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.rllib.fragment import Fragment
from popcomm.rllib.ppo import Advantages, a_step_later, generalised_advantages
from popcomm.rllib.settings import Settings


def of_steps(a: Fragment[Tensor], config: Settings) -> Advantages:
    """What steps are worth: each with its own reward. config: of the species."""
    return generalised_advantages(
        a["rewards"], a["values"], a["terminated"], a["truncated"], a["alive"], config.gamma, config.lambda_
    )


def of_messages(a: Fragment[Tensor], config: Settings) -> Advantages:
    """The same with every reward one step earlier, when the message was sent that brought it about.

    Rows before a cut have no reward yet (`with_a_next_step`): their advantage is 0, their target the value that they
    have, and by that value the rows before them are bootstrapped.
    """
    rewards = a_step_later(a["rewards"], a["alive"], a["first"])
    known = with_a_next_step(a)[:, :-1]
    values, terminated, truncated = (x[:, :-1] for x in (a["values"], a["terminated"], a["truncated"]))
    estimate = generalised_advantages(
        rewards[:, :-1], values, terminated, truncated, known, config.gamma, config.lambda_
    )
    nothing = torch.zeros_like(rewards[:, -1:])
    return Advantages(
        torch.cat([estimate.advantages, nothing], 1), torch.cat([estimate.targets, a["values"][:, -2:-1]], 1)
    )


def with_a_next_step(a: Fragment[Tensor]) -> Tensor:
    """[B, T, N] bool, rows whose messages' doing is known: not where an episode is cut, nor the fragment's last row.

    A life that terminates has no next step, and that is known: nothing comes of its last message.
    """
    known = a["alive"] & (a["terminated"] | ~a["truncated"])
    # What the last row's messages bring about is in the next fragment.
    known[:, -1] = False
    return known
