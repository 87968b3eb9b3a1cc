"""The picture of `popcomm channel`: how long a word lives, and how often the load is above a number."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from popcomm.cli.channel import Array, Plan
from popcomm.language.drawing import BLUE, GREEN, ORANGE, card, dress, legend, png
from popcomm.theory import alive_by_type
from popcomm.theory.load import StationaryLoad

DEAD = 1e-4  # survival below this is not drawn
MOST_GENERATIONS = 200


def draw(plan: Plan) -> bytes:
    """A PNG with two panels."""
    figure = card(10.0, 4.0, _title(plan))
    left, right = figure.subplots(1, 2)
    _survival(left, plan)
    _load(right, plan)
    return png(figure)


def _title(plan: Plan) -> str:
    agents = len(plan.repetition.p)
    return f"{plan.audience.name} of {agents}, {plan.repetition.settings['kind']}: R = {plan.radius:.3g}"


def _survival(axes: Axes, plan: Plan) -> None:
    steps = np.arange(MOST_GENERATIONS + 1)
    alive = alive_by_type(plan.M(), steps)
    longest = alive.max(0)
    shown = slice(0, max(3, int((longest >= DEAD).sum()) + 1))
    dress(axes, "a word dies out", "steps since it was said", "probability that it is still repeated")
    if not np.allclose(alive.min(0), longest, rtol=1e-3):
        low = np.maximum(alive.min(0), DEAD / 10)
        axes.fill_between(steps[shown], low[shown], longest[shown], color=BLUE, alpha=0.2, lw=0, label="all senders")
    every = max(1, shown.stop // 20)
    axes.plot(
        steps[shown],
        alive.mean(0)[shown],
        color=BLUE,
        marker="o",
        markersize=3,
        markevery=every,
        label="mean of senders",
    )
    axes.set_yscale("log")
    axes.set_ylim(DEAD / 2, 1.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)


def _load(axes: Axes, plan: Plan) -> None:
    k = np.unique(np.linspace(0, _reach(plan), 300).astype(int))
    dress(axes, "log and inbox hold the load", "number of transmissions in a step, k", "probability of more than k")
    tail = "load" if plan.exact else "load (bound)"
    axes.plot(k, _tail(plan.exact, plan, k, None), color=BLUE, lw=2, label=tail)
    one = plan.hears_all
    what = "capacity and inbox" if one else "capacity"
    axes.axvline(plan.capacity, color=BLUE, lw=1, ls="--", label=f"{what} {plan.capacity}")
    if not one:
        axes.plot(k, _tail(None, plan, k, plan.heard), color=GREEN, lw=2, label="heard by the busiest agent (bound)")
        axes.axvline(plan.inbox, color=GREEN, lw=1, ls=":", label=f"inbox {plan.inbox}")
    axes.axhline(plan.loss, color=ORANGE, lw=1.2, label=f"loss {plan.loss:g}")
    axes.set_yscale("log")
    axes.set_ylim(plan.loss / 100, 1.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Below the panel, off its curves; and no ticks between powers of ten."""
    axes.minorticks_off()
    legend(axes, loc="upper left", bbox_to_anchor=(0.0, -0.17), ncols=2)


def _reach(plan: Plan) -> int:
    """As far as a hundredth of the loss."""
    small = max(plan.loss / 100, 1e-10)
    return max(5, plan.exact.capacity(small) if plan.exact else plan.load.capacity(small))


def _tail(exact: StationaryLoad | None, plan: Plan, k: Array, heard: Array | None) -> Array:
    return np.asarray(exact.sf(k)) if exact else plan.load.tail_bound(k, heard)
