"""Learning from the world's answers instead of from its rewards, as supervised receivers do in signalling games."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from popcomm.agents.distributions import ActionDistribution
from popcomm.envs.world import Species

# A right answer that was thought impossible must not outweigh a whole batch: exp(-10) is below any sampled frequency.
LEAST_LOG_PROBABILITY = -10.0


def due(answers: Tensor, action_shape: tuple[int, ...]) -> Tensor:
    """Where an answer is called for: [...] bool from answers [..., *action_shape], which are -1 elsewhere."""
    return answers.flatten(-len(action_shape)).amin(-1) >= 0 if action_shape else answers >= 0


def answer_log_prob(
    distribution: ActionDistribution, logits: Tensor, answers: Tensor, is_due: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Log-probability (nats) of the right actions, [...], and 0 where none is called for. mask: [..., A], as acted."""
    log_prob = distribution.log_prob(logits, answers.clamp(min=0), mask)
    return torch.where(is_due, log_prob, 0.0)


def supervised_rewards(
    rewards: Tensor,
    answers: Mapping[str, Tensor],
    logits: Mapping[str, Tensor],
    distributions: Mapping[str, ActionDistribution],
    species: Mapping[str, Species],
    masks: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Rewards of a step, where answers are learned from.

    In worlds where an answer is due, a seat that gives one gets the log-probability of the right one (at least -10
    nats), and all others get the mean of those who give one: EGG's loss of a game, the receivers' cross-entropy, with
    the sign of a reward. It has less noise than whether the sampled action was right. Elsewhere the world's own rewards
    stay.

    Args:
        rewards: [B, N], the world's.
        answers: {species: [B, N_s, ...] int64}.
        logits: {species: [B, N_s, A]}, the distributions of the actions.
        masks: {species: [B, N_s, A] bool}, what is allowed, of species that have action masks.
    """
    score, called = torch.zeros_like(rewards), torch.zeros_like(rewards, dtype=torch.bool)
    for name, right in answers.items():
        kind = species[name]
        is_due = due(right, kind.action_space.shape or ())
        called[:, kind.seats] = is_due
        log_prob = answer_log_prob(distributions[name], logits[name].float(), right, is_due, (masks or {}).get(name))
        score[:, kind.seats] = log_prob.clamp(min=LEAST_LOG_PROBABILITY)
    mean = score.sum(1, keepdim=True) / called.sum(1, keepdim=True).clamp(min=1)
    supervised = torch.where(called, score, mean.expand_as(score))
    return torch.where(called.any(1, keepdim=True), supervised, rewards)
