"""Networks on no memory for their weights: what a constructor says of a config, before work starts."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch

from popcomm.rllib.plan import SpeciesPlan


def draft_of(species: SpeciesPlan) -> Any:
    """The network of a species, whose weights hold no numbers.

    None: a class of the user's own needs real ones in its constructor, so that only the training can tell.

    Raises:
        UserError: the constructor refuses its agent_config.
    """
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("meta"),
        suppress(NotImplementedError, RuntimeError, TypeError),
    ):
        return species.agent_class(species.spec, **species.agent_config)
    return None
