"""The entropy bonus of actions: in each world, over all worlds, and for actions that are about to be ruled out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from popcomm.agents.distributions import ActionDistribution, Pool


def exploration(
    distribution: ActionDistribution,
    logits: Tensor,
    allowed: Tensor | None,
    entropy: Tensor,
    pool: Pool,
    mean: Callable[[Tensor], Tensor],
    over_worlds: float,
    rare: float,
    scale: Tensor | None,
) -> Tensor:
    """The bonus, summed over members: mean((1 - w) H(p) + w H(mean p)) + r openness, each member's at its own scale.

    H(mean p) is the entropy of what a member does in a step on a seat in all worlds together, H(p) that in one of them;
    their difference is the information of actions on what is known. With H(p) alone whoever answers by what is heard
    pays for it, and agents stay deaf where a little listening earns nothing yet; H(mean p) lets them answer at no cost,
    as long as all answers are given (Eccles 2019, section 3, has both of messages: positive signalling; here it makes
    for positive listening).

    Args:
        distribution: of the actions.
        logits: [P, R, A] float32.
        allowed: [P, R, A] bool; None: all.
        entropy: H(p), [P, R] nats.
        pool: means over rows of one member, step and seat in all worlds.
        mean: [P, R] -> the sum over members of the mean over their rows.
        over_worlds: w, 0 to 1.
        rare: r, weight of the pull at actions about to be ruled out (`popcomm.agents.openness`).
        scale: [P], how much each member's bonus counts; None: all as one.
    """

    def own(values: Tensor) -> Tensor:
        return mean(values if scale is None else values * scale.to(values).unsqueeze(1))

    if over_worlds:
        entropy = (1 - over_worlds) * entropy + over_worlds * distribution.entropy_of_all(logits, pool, allowed)
    total = own(entropy)
    return total + rare * own(distribution.openness(logits, allowed)) if rare else total
