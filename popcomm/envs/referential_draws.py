"""What chance decides in a referential game: meanings, speakers, candidates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Episode(NamedTuple):
    """The draws of an episode; R rounds."""

    targets: Tensor  # [R, B] int64, rows of `meanings`
    speaking: Tensor  # [R, B, N] bool, who speaks; the others listen
    candidates: Tensor | None  # [R, B, D + 1] int64, rows of `meanings`; None where nobody picks
    places: Tensor | None  # [R, B] int64, the target's place among the candidates


def draw_episode(
    shape: tuple[int, int, int],
    speakers: int,
    swapping: bool,
    distractors: int,
    odds: Tensor,
    generator: torch.Generator,
) -> Episode:
    """All rounds at once, which is several times faster than one by one.

    Args:
        shape: (R, B, N).
        speakers: in every round: the first seats, or those that are drawn.
        swapping: whether they are drawn.
        distractors: D; 0 for no candidates.
        odds: [num_meanings] float64, the probability of a meaning or one before it.
        generator: on the device of `odds`.
    """
    draw = torch.rand(shape[:2], dtype=torch.float64, generator=generator, device=odds.device)
    targets = torch.searchsorted(odds, draw, right=True)
    if swapping:
        lots = torch.rand(shape, generator=generator, device=odds.device)
        chosen = lots.topk(speakers, sorted=False).indices
        speaking = torch.zeros(shape, dtype=torch.bool, device=odds.device).scatter_(-1, chosen, True)
    else:
        speaking = (torch.arange(shape[-1], device=odds.device) < speakers).expand(shape)
    if not distractors:
        return Episode(targets, speaking, None, None)
    return Episode(targets, speaking, *draw_candidates(targets, distractors, len(odds), generator))


def draw_candidates(
    targets: Tensor, distractors: int, num_meanings: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """For every target [...] int64, itself among D even draws of other meanings, in random order.

    Distinct draws by Floyd's algorithm (Bentley & Floyd 1987, "A sample of brilliance"), for all targets at once.

    Returns:
        Candidates [..., D + 1] int64, all different, and the target's place among them [...] int64.
    """
    shape, others = targets.shape, num_meanings - 1
    found = torch.empty(*shape, distractors + 1, dtype=torch.int64, device=targets.device)
    chosen = found[..., 1:]
    for i in range(distractors):
        top = others - distractors + i
        draw = torch.randint(top + 1, shape, generator=generator, device=targets.device)
        taken = (chosen[..., :i] == draw.unsqueeze(-1)).any(-1)
        chosen[..., i] = draw.masked_fill_(taken, top)
    # Draws count the meanings without the target.
    chosen += chosen >= targets.unsqueeze(-1)
    found[..., 0] = targets
    # Floyd's draws are an even sample in an uneven order, which would give the target away.
    order = torch.rand(found.shape, generator=generator, device=targets.device).argsort(-1)
    return found.gather(-1, order), order.argmin(-1)
