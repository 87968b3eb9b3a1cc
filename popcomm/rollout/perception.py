"""Perception: a step of the worlds as those on the seats take it in, where reflexes of the channel deprive them."""

from __future__ import annotations

import numpy as np
import torch

from popcomm.channels.session import Session
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import WorldStep


def perceived(step: WorldStep, session: Session | None, layout: WorldLayout) -> WorldStep:
    """The step as agents perceive it: the deprived get other observations in place of theirs, and no labels."""
    if session is None or not session.deprives:
        return step
    seen, labels = dict(step.observations), step.labels
    for deprivation in session.deprived():
        if labels is not None:
            labels = labels.masked_fill(torch.from_numpy(deprivation.mask).to(labels.device), -1)
        for name, species in layout.species.items():
            space, taken = species.observation_space, deprivation.mask[:, species.seats]
            device, values = seen[name].device, seen[name].cpu().numpy()
            low, high = space.low, space.high
            if species.sight is not None and species.sight.in_bytes:
                low, high = np.zeros(species.obs_size), species.sight.high
            instead = deprivation.perceive(values[taken].astype(np.float32), low, high)
            values = values.copy()
            values[taken] = np.rint(instead) if values.dtype == np.uint8 else instead
            seen[name] = torch.from_numpy(values).to(device)
    return step._replace(observations=seen, labels=labels)
