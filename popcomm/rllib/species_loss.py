"""The loss of one species on an unrolled fragment: PPO, entropies, and the network's own losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.distributions import ActionDistribution
from popcomm.channels.messages import MessageKind
from popcomm.envs.world import Species
from popcomm.errors import unknown
from popcomm.rllib.balance import kept_in_use, pooled
from popcomm.rllib.decisions import Decisions, Likelihoods, spoken, voiced
from popcomm.rllib.exploration import exploration
from popcomm.rllib.fragment import Fragment
from popcomm.rllib.joint_learning import divergence
from popcomm.rllib.lessons import lesson_loss
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.own_losses import OwnLosses
from popcomm.rllib.plan import SpeciesPlan
from popcomm.rllib.ppo import Reduce, surrogate, value_error
from popcomm.rllib.rows import Rows as _Rows
from popcomm.rllib.settings import Settings
from popcomm.rllib.supervision import answer_log_prob, due
from popcomm.rllib.training_schedules import SHARPENING
from popcomm.rllib.unroll import SpeciesUnroll


class SpeciesLoss:
    """Callable: (arrays, unrolled, ...) -> (loss, what to log).

    Attributes:
        rows: [P] float64, how many each member had in the last minibatch, with all learners.
    """

    rows: Tensor

    def __init__(
        self,
        module: PopulationRLModule,
        plan: SpeciesPlan,
        distribution: ActionDistribution,
        species: Mapping[str, Species] | None = None,
    ) -> None:
        self.module, self.plan, self.distribution = module, plan, distribution
        self.decisions = Decisions(plan, distribution)
        self.own_losses = OwnLosses(module, species or {})  # all of the world, for what senders saw
        self.config: Settings = plan.settings
        self.scales: Mapping[str, float] = {}  # of the losses of `weights` and of the network's own, as schedules say
        self.messages: MessageKind | None = plan.spec.messages

    def __call__(
        self,
        arrays: Fragment[Tensor],
        run: SpeciesUnroll,
        entropy_coeff: float,
        world: Mapping[str, Fragment[Tensor]],
        reduce: Reduce,
        diagnose: bool,
        teacher: SpeciesUnroll | None = None,
        asked: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss summed over members of means over their rows.

        Args:
            arrays: this species' arrays [B, T, N, ...].
            run: the unrolled outputs.
            entropy_coeff: the present coefficient.
            world: the arrays of all species, for what senders saw.
            reduce: sum over learners.
            diagnose: whether to compute what is only logged of the last update, too: the network's diagnostics, and the
                messages' entropy where it has no coefficient.
            teacher: what parents do on the same rows, where some members are taught; else None.
            asked: random numbers for it.
        """
        config, output, mask = self.config, run.outputs, run.mask
        members = self.module.spec.members
        self.rows = reduce(mask.sum(1).double())
        counts = self.rows.float().clamp(min=1)
        weight = mask / counts[:, None]

        def mean(values: Tensor) -> Tensor:
            """[P, R] -> the sum over members of the mean over their real rows. where: a dead row may hold anything."""
            return torch.where(mask, values, 0.0).mul(weight).sum()

        rows, scaled = _Rows(arrays, run.places, members), self._scaled()
        likelihoods = self.decisions.likelihoods(run, rows, diagnose)
        policy, logged = self._policy_loss(likelihoods, rows, mean)
        entropy_mean = mean(likelihoods.entropy)
        loss = policy
        if self.module.spec.judged:
            value = mean(rows.where_known(self._value_error(output, rows)))
            loss, logged["vf_loss"] = loss + config.vf_loss_coeff * value, value
        if not self._is_supervised(rows):
            loss = loss - entropy_coeff * self._exploration(likelihoods, rows, run, reduce, mean)
        logged |= {"policy_loss": policy, "entropy": entropy_mean}
        if likelihoods.message_entropy is not None:
            logged["message_entropy"] = uncertain = mean(likelihoods.message_entropy)
            if scaled["message_entropy"]:
                loss = loss - scaled["message_entropy"] * uncertain
        if self.plan.joint_critic is not None and "worth" in arrays:
            logged["joint_critic_loss"] = distance = mean(rows.where_known(self._distance(output, rows)))
            loss = loss + scaled["joint_critic"] * distance
        logged = {name: total / members for name, total in logged.items()}
        more, more_logged = self._talk_losses(output, rows, run, reduce, mean, scaled)
        loss, logged = loss + more, logged | more_logged
        if self._is_supervised(rows):
            supervised, told = self._supervised_loss(output, rows, mask, reduce)
            loss, logged = loss + supervised, logged | told
        if teacher is not None and asked is not None:
            allowed = rows.optional("action_mask")
            earlier = [(own.params, shown.params) for own, shown in zip(run.earlier, teacher.earlier, strict=True)]
            lesson = lesson_loss(
                self.module, self.distribution, output, teacher.outputs, allowed, weight, asked, earlier
            )
            loss, logged["lesson_loss"] = loss + lesson, lesson.detach() / members
        extra, extra_logged = self.own_losses(run, rows, world, self.scales, counts, reduce, diagnose)
        return loss + extra, {**logged, **extra_logged, "total_loss": (loss + extra) / members}

    @property
    def weights(self) -> dict[str, float]:
        """{loss: weight before any schedule} of those on messages, and of what a joint critic recommends."""
        plan, config = self.plan, self.config
        return {
            "quality": plan.quality_weight,
            "message_balance": plan.balance_weight,
            "message_sharpness": plan.balance_weight * plan.sharpness,
            "message_kl": config.message_kl_coeff,
            "message_entropy": config.message_entropy_coeff,
            "joint_critic": 0.0 if plan.joint_critic is None else plan.joint_critic.weight,
        }

    def _scaled(self) -> dict[str, float]:
        """The same, as schedules have them now."""
        scaled = {name: weight * self.scales.get(name, 1.0) for name, weight in self.weights.items()}
        if self.plan.rise is not None:
            scaled["message_sharpness"] *= self.scales.get(SHARPENING, 1.0)
        return scaled

    def _value_error(self, output: AgentOutput, rows: _Rows) -> Tensor:
        """[P, R], squared and clipped."""
        # Observations are gathered for a central critic alone: they may be pictures.
        seen = rows["obs"] if getattr(self.module, "central_critic", None) is not None else output.value
        values = self.module.value(output.value, seen, rows.world_state()).float()
        return value_error(values, rows["targets"], self.config.vf_clip_param)

    def _distance(self, output: AgentOutput, rows: _Rows) -> Tensor:
        """[P, R] nats, from what the joint critic recommends."""
        assert self.plan.joint_critic is not None
        temperature, allowed = self.plan.joint_critic.temperature, rows.optional("action_mask")
        return divergence(output.action_logits.float(), rows["worth"], temperature, allowed)

    def _exploration(
        self,
        likelihoods: Likelihoods,
        rows: _Rows,
        run: SpeciesUnroll,
        reduce: Reduce,
        mean: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The exploration bonus (nats), summed over members."""

        def pool(values: Tensor) -> Tensor:
            return pooled(values, *rows.groups(run.places, self._per_seat), run.mask, reduce)

        return exploration(
            self.distribution,
            run.outputs.action_logits.float(),
            rows.optional("action_mask"),
            likelihoods.entropy,
            pool,
            mean,
            self.plan.over_worlds,
            self.plan.rare_share,
            self.module.scale("entropy_coeff"),
        )

    @property
    def _per_seat(self) -> bool:
        """Whether a member has rows enough on a seat to see what it leaves undone there."""
        return self.module.spec.members == 1 or self.plan.spec.seating in ("fixed", "worlds")

    def _talk_losses(
        self,
        output: AgentOutput,
        rows: _Rows,
        run: SpeciesUnroll,
        reduce: Reduce,
        mean: Callable[[Tensor], Tensor],
        weights: Mapping[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What tells senders whom they helped, and keeps all their symbols in use; weighted, summed over members."""
        config, members = self.config, self.module.spec.members
        total, logged = run.mask.new_zeros((), dtype=torch.float32), {}
        if self.module.quality is not None:
            # Observations are large; only who is offered candidates is asked with them.
            seen = None if self.module.quality.pointing is None else self.module.spec.numbers(rows["obs"])
            worth = self.module.quality(output.aux["features"].float(), rows["actions"], seen)
            error = (worth - rows["targets"]).square()
            quality = mean(rows.where_known(error))
            total, logged["quality_loss"] = total + weights["quality"] * quality, quality / members
        if output.message is None:
            return total, logged
        every, went_out = spoken(run), rows.voiced_in_rounds()
        voices = [run.mask] * len(every) if went_out is None else [run.mask & own for own in went_out]
        if config.message_kl_coeff and "message_logp" in rows.arrays:
            moved = self.decisions.said_log_prob(run, rows) - rows["message_logp"]
            # Rows whose message went out, in some round, and those whose did not, which count as 0.
            kl = mean(torch.where(torch.stack(voices).any(0), moved.exp() - 1 - moved, 0.0))
            total, logged["message_kl"] = total + weights["message_kl"] * kl, kl / members
        if self.plan.balance_weight:
            groups = rows.groups(run.places, self._per_seat)
            # Each round has symbols of its own to keep in use.
            parts = [
                kept_in_use(*rows.spoken(self.messages, one.params), one.said, *groups, own, reduce, mean, weights)
                for one, own in zip(every, voices, strict=True)
            ]
            total = total + torch.stack([loss for loss, _ in parts]).sum(0)
            logged["message_balance"] = torch.stack([spread for _, spread in parts]).mean(0) / members
        return total, logged

    def _is_supervised(self, rows: _Rows) -> bool:
        return "answers" in rows.arrays

    def _policy_loss(
        self, likelihoods: Likelihoods, rows: _Rows, mean: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's surrogate of what was decided, and its diagnostics, summed over members.

        Action and message are one decision with one advantage, or two where a message is credited from the next step
        on. Actions that are supervised are no decision.
        """
        # Of a single action there is nothing to decide either.
        acts = not self._is_supervised(rows) and getattr(self.distribution, "n", 0) != 1
        decisions = [(likelihoods.log_prob, rows["action_logp"], rows["advantages"])] if acts else []
        if likelihoods.message_log_prob is not None:
            said = (likelihoods.message_log_prob, voiced(rows["message_logp"], rows), rows.message_advantages())
            if acts and self.plan.credit == "step":
                new, old, advantage = decisions[0]
                decisions = [(new + said[0], old + said[1], advantage)]
            else:
                decisions.append(said)
        if likelihoods.manner_log_prob is not None:
            new, old = likelihoods.manner_log_prob, rows["manner_logp"]
            if decisions and acts:
                decisions[0] = (decisions[0][0] + new, decisions[0][1] + old, decisions[0][2])
            else:
                decisions.append((new, old, rows["advantages"]))
        # Something to log, where nothing is decided.
        total = likelihoods.log_prob.new_zeros(())
        logged = {"approx_kl": total, "clipfrac": total}
        for new, old, advantage in decisions:
            loss, ratio = surrogate(new, old, advantage, self.config.clip_param)
            total = total + mean(loss)
            with torch.no_grad():
                # Schulman's estimator k3 of the divergence from the policy that acted.
                logged["approx_kl"] = logged["approx_kl"] + mean(ratio - 1 - ratio.log())
                clipped = mean(((ratio - 1).abs() > self.config.clip_param).float())
                logged["clipfrac"] = logged["clipfrac"] + clipped / len(decisions)
        return total, logged

    def _supervised_loss(
        self, output: AgentOutput, rows: _Rows, mask: Tensor, reduce: Reduce
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the right actions where one is called for: mean over a member's, summed over members."""
        answers = rows["answers"]
        is_due = due(answers, tuple(answers.shape[2:])) & mask
        allowed = rows.optional("action_mask")
        log_prob = answer_log_prob(self.distribution, output.action_logits.float(), answers, is_due, allowed)
        counts = reduce(is_due.sum(1).double()).float().clamp(min=1)
        loss = -(log_prob.sum(1) / counts).sum()
        return loss, {"answer_loss": loss.detach() / len(counts)}


def check_scheduled(losses: Iterable[SpeciesLoss], schedules: Iterable[str]) -> None:
    """Raises UserError: a schedule is given for a loss that no network has, or that has no weight."""
    given = [weights for loss in losses for weights in (loss.module.auxiliary_weights, loss.weights)]
    known = {name for weights in given for name, weight in weights.items() if weight}
    for name in schedules:
        if name not in known:
            raise unknown("training.loss_schedules: the loss", name, known or ["(none)"])
