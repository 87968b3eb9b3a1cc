"""Learning from a joint critic: it learns from what was lived what actions are worth, and policies follow it.

A policy gradient says of the action that was taken that it was better or worse than the value; while messages mean
nothing, and nobody answers by them, that is noise. The joint critic (`popcomm.agents.joint_critic`) learns from the
same returns, by regression, what *each* action would have been worth, in a state that it sees whole. Policies are drawn
towards softmax(Q / temperature) by the divergence KL(softmax(Q / temperature) || policy), over all actions, and not by
the one that was taken (mean actor-critic, Asadi et al. 2017, eq. 7, has the gradient of the expectation; the divergence
in place of it is the projection of Abdolmaleki et al. 2018, "Maximum a posteriori policy optimisation", section 4.2: it
does not fade where a policy is sure). Of what a listener cannot see it can only be told, and the gradient goes through
messages to those who know.

In a world of which agents see too little the critic recommends what they have no means to follow: then they come to the
mixture of what it recommends, where PPO's own loss, which stays, would have them choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import Tensor

from popcomm.agents.distributions import allow
from popcomm.agents.joint_critic import JointCritic, joined, seen_so_far
from popcomm.rllib.adam import Adam
from popcomm.rllib.gradients import sum_over_learners
from popcomm.rllib.joint_plan import JointCriticWays
from popcomm.rllib.plan import Plan
from popcomm.rllib.ppo import Reduce, ReturnNormaliser, explained_variance, member_moments
from popcomm.rllib.shares import Arrays
from popcomm.rollout import seed_of

JOINT_BRANCH = 16
EXPLAINED = "joint_critic_explained_var"


class JointLearning:
    """The joint critic of a learner; every learner has the same one, of all their worlds.

    Args:
        ways: of the config.
        plan: of it, too.
        seed: of the first weights, the same on every learner.
        device: of the learner.
    """

    def __init__(self, ways: JointCriticWays, plan: Plan, seed: int, device: torch.device) -> None:
        self.ways = ways
        self.species = {name: each.species for name, each in plan.species.items()}
        advised = tuple(name for name, each in plan.species.items() if each.joint_critic is not None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, JOINT_BRANCH))
            self.critic = JointCritic(self.species, advised, ways.hidden).to(device)
        self.optimizer = Adam(self.critic.parameters(), lr=ways.lr, fused=True)
        self.returns = {name: ReturnNormaliser(1).to(device) for name in advised}
        self._explained: dict[str, float] = {}

    def learn(self, arrays: Arrays, parts: Iterable[Tensor | None], reduce: Reduce) -> None:
        """Learn what actions are worth, and write it into the fragment: "worth", [B, T, N, A] of a species.

        Args:
            arrays: {species: its fragment, with value targets}.
            parts: rows of each minibatch, [M] int64; None: all of them.
            reduce: sum over learners.
        """
        seen = joined({name: self._seen(name, a) for name, a in arrays.items()})
        actions = {name: a["actions"] for name, a in arrays.items()}
        alive = {name: a["alive"] for name, a in arrays.items()}
        known = {name: arrays[name].get("known", alive[name]) for name in self.critic.judged}
        targets = {name: self._targets(name, arrays[name]["value_targets"], known[name], reduce) for name in known}
        for rows in parts:
            here = seen if rows is None else seen.index_select(0, rows)
            self._step(
                here,
                of_rows(actions, rows),
                of_rows(alive, rows),
                of_rows(targets, rows),
                of_rows(known, rows),
                reduce,
            )
        with torch.no_grad():
            worth = self.critic(seen, actions, alive)
        for name, values in worth.items():
            arrays[name]["worth"] = values
            done = _of_done(values, actions[name], alive[name])
            self._explained[name] = explained_variance(done, targets[name], known[name], reduce)

    def _seen(self, name: str, a: Any) -> Tensor:
        length = a["alive"].shape[1]
        obs = self.species[name].glimpse(a["obs"][:, :length])
        return seen_so_far(obs, a["first"][:, :length], a["alive"])

    def _targets(self, name: str, returns: Tensor, known: Tensor, reduce: Reduce) -> Tensor:
        """[B, T, N], the returns in deviations from their running mean."""
        nobody = torch.zeros_like(known, dtype=torch.int64)
        self.returns[name].update(member_moments(returns, nobody, known, 1, reduce))
        return self.returns[name].normalise_of(returns, nobody)

    def _step(
        self,
        seen: Tensor,
        actions: Mapping[str, Tensor],
        alive: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        known: Mapping[str, Tensor],
        reduce: Reduce,
    ) -> None:
        """One gradient step on the squared errors of the actions that were taken; none where it is not finite."""
        worth = self.critic(seen, actions, alive)
        total = seen.new_zeros(())
        for name, values in worth.items():
            done = _of_done(values, actions[name], alive[name])
            errors = torch.where(known[name], done - targets[name], 0.0).square()
            total = total + errors.sum() / reduce(known[name].sum().double()).float().clamp(min=1)
        total.backward()
        parameters = list(self.critic.parameters())
        sum_over_learners(parameters, reduce)
        if bool(torch.stack([p.grad.isfinite().all() for p in parameters if p.grad is not None]).all()):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)  # what is done with takes no memory until the next step

    def log(self, metrics: MetricsLogger) -> None:
        """Log how much of the returns it explains."""
        for name, share in self._explained.items():
            metrics.log_value((name, EXPLAINED), share, window=1)

    def get_state(self) -> dict[str, Any]:
        """Weights, statistics and optimizer."""
        return {
            "critic": _arrays(self.critic.state_dict()),
            "returns": {name: _arrays(each.state_dict()) for name, each in self.returns.items()},
            "optimizer": self._moments(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `get_state`; one of before there was a joint critic has none, and leaves it as it is."""
        if not state:
            return
        self.critic.load_state_dict(_tensors(state["critic"]))
        for name, normaliser in self.returns.items():
            normaliser.load_state_dict(_tensors(state["returns"][name]))
        for name, parameter in self.critic.named_parameters():
            if name in state["optimizer"]:
                held = state["optimizer"][name]
                self.optimizer.state[parameter] = {
                    key: torch.tensor(value, device=parameter.device) for key, value in held.items()
                }

    def _moments(self) -> dict[str, dict[str, Any]]:
        """{parameter: {"step", "exp_avg", "exp_avg_sq"}}, Adam's, of those that were stepped."""
        return {
            name: _arrays(self.optimizer.state[parameter])
            for name, parameter in self.critic.named_parameters()
            if parameter in self.optimizer.state
        }


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {key: value.cpu().numpy().copy() for key, value in tensors.items()}


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: torch.as_tensor(value) for key, value in arrays.items()}


def of_rows(values: Mapping[str, Tensor], rows: Tensor | None) -> dict[str, Tensor]:
    """Those worlds alone; None: all of them."""
    return {name: x if rows is None else x.index_select(0, rows) for name, x in values.items()}


def _of_done(worth: Tensor, actions: Tensor, alive: Tensor) -> Tensor:
    """[..., N, A] of all actions -> [..., N] of those that were taken; rows of the dead may hold anything."""
    return worth.gather(-1, torch.where(alive, actions, 0).unsqueeze(-1)).squeeze(-1)


def divergence(logits: Tensor, worth: Tensor, temperature: float, allowed: Tensor | None = None) -> Tensor:
    """KL(softmax(Q / temperature) || policy), nats: how far a policy is from what is recommended.

    Args:
        logits: [..., A] of the policy.
        worth: [..., A], Q; no gradient goes to it.
        temperature: in the units of Q.
        allowed: [..., A] bool; None: all actions are.

    Returns:
        [...], at least 0.
    """
    recommended = allow(worth.detach() / temperature, allowed).log_softmax(-1)
    policy = allow(logits, allowed).log_softmax(-1)
    return F.kl_div(policy, recommended, reduction="none", log_target=True).sum(-1)
