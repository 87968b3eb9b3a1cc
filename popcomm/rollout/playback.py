"""Playback: frames of a population at play, with the messages that are heard drawn as links."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from popcomm.channels.mail import Mail
from popcomm.errors import UserError
from popcomm.rollout.rollout import Playable


def frames(population: Playable, num_steps: int = 100, seed: int = 0, greedy: bool = False) -> Iterator[np.ndarray]:
    """RGB pictures [H, W, 3] uint8 of world 0, one a step; fades stand where the training stands.

    Raises:
        UserError: the environment has no picture.
    """
    # As many worlds as seat the members evenly: the first of them is shown.
    rollout = population.rollout(seed, greedy)
    try:
        rollout.begin()
        for _ in range(num_steps):
            rollout.step()
            try:
                yield rollout.world.render(world=0, links=heard_links(rollout.players.mail))
            except NotImplementedError as error:
                raise UserError(f"{error}; popcomm play needs an environment that can be rendered") from error
    finally:
        rollout.close()


def heard_links(mail: Mail | None) -> torch.Tensor | None:
    """(sender, receiver) pairs [M, 2] of world 0 in the present step; None in silence and where all hear all."""
    if mail is None or mail.hears is not None:
        return None
    senders, mask = (values[0] for values in mail.links)
    receivers = torch.arange(len(senders), device=senders.device).unsqueeze(1).expand_as(senders)
    return torch.stack([senders[mask], receivers[mask]], 1)
