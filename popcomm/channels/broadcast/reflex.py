"""What a reflex is: the base of those of c11np, and of a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from popcomm.channels.broadcast.log import Log
from popcomm.channels.broadcast.moment import Measured, Moment
from popcomm.schedules import Clock, Schedule, make_schedule, refuse_load

if TYPE_CHECKING:
    from popcomm.channels.words import Words


class Reflex:
    """Base of reflexes. One of your own overrides what it is about, and leaves the rest.

    Args:
        schedule: how it fades; None is for ever, a number a constant strength (see `popcomm.schedules`).
    """

    name = "reflex"
    takes_turn = False  # True: an agent that transmits by this reflex does not transmit its own word in that step
    needs_labels = False  # True: it looks at `Moment.noticed`, which worlds without labels cannot tell

    def __init__(self, schedule: Schedule | dict[str, Any] | float | None = None) -> None:
        self.schedule = make_schedule(schedule)

    def bind(self, messages: Words, num_agents: int) -> None:
        """Check that this fits a channel; raises UserError if not."""

    def open(self, num_worlds: int, seed: int) -> None:
        """Make room for what is remembered of B worlds; nothing is remembered yet."""

    def strength(self, clock: Clock) -> float:
        """What is left of the reflex, in [0, 1]."""
        return self.schedule.strength(clock)

    def feedback(self, clock: Clock) -> float:
        """The probability that an agent hears a transmission of its own."""
        return 0.0

    def transmissions(self, moment: Moment) -> Log | None:
        """What goes on the air by this reflex, in any order.

        What it lets an agent transmit has generation 1 at least, a repetition: the agent did not choose it.
        """
        return None

    def deprived(self, clock: Clock, num_worlds: int, num_agents: int, rng: np.random.Generator) -> np.ndarray | None:
        """[B, N] bool, whose observation of the environment is taken away now; None where this is no such reflex."""
        return None

    def perceive(self, values: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the deprived perceive instead of observations `values` [..., O] with bounds low and high [O]."""
        return values

    def observe(self, measured: Measured) -> None:
        """Take note of what came of the words, once a step."""

    def forget(self, worlds: np.ndarray) -> None:
        """New episodes begin in worlds [B] bool."""

    def get_state(self) -> dict[str, Any]:
        """What is remembered, for checkpoints."""
        return {"schedule": self.schedule.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state`."""
        self.schedule.set_state(state["schedule"])

    def _not_in_load(self) -> None:
        refuse_load(self.schedule, f"reflex {self.name}")
