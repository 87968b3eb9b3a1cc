"""The loss of one species on an unrolled fragment: PPO, entropies, and the network's own losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from popcomm.agents.contract import Agent, AgentOutput, AuxiliaryBatch
from popcomm.agents.distributions import ActionDistribution
from popcomm.channels.manner import log_prob
from popcomm.channels.messages import MessageKind, told
from popcomm.envs.world import Species
from popcomm.rllib.balance import kept_in_use, pooled
from popcomm.rllib.exploration import exploration
from popcomm.rllib.fragment import Fragment, plain
from popcomm.rllib.lessons import lesson_loss
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.plan import SpeciesPlan
from popcomm.rllib.ppo import Reduce, same, surrogate, value_error
from popcomm.rllib.round_walk import Spoken
from popcomm.rllib.rows import Rows as _Rows
from popcomm.rllib.settings import Settings
from popcomm.rllib.supervision import answer_log_prob, due
from popcomm.rllib.unroll import SpeciesUnroll


class _Likelihoods(NamedTuple):
    """How likely the decisions of a step were; each [P, R]."""

    log_prob: Tensor  # of the actions, nats
    entropy: Tensor  # of their distribution
    message_log_prob: Tensor | None  # of the messages, under reinforce
    message_entropy: Tensor | None
    manner_log_prob: Tensor | None = None  # whether and how urgently they were said


class SpeciesLoss:
    """Callable: (arrays, unrolled, ...) -> (loss, what to log)."""

    def __init__(
        self,
        module: PopulationRLModule,
        plan: SpeciesPlan,
        distribution: ActionDistribution,
        species: Mapping[str, Species] | None = None,
    ) -> None:
        self.module, self.plan, self.distribution = module, plan, distribution
        self.species = species or {}  # all of the world, for what senders saw
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
        counts = reduce(mask.sum(1).double()).float().clamp(min=1)
        weight = mask / counts[:, None]

        def mean(values: Tensor) -> Tensor:
            """[P, R] -> the sum over members of the mean over their real rows. where: a dead row may hold anything."""
            return torch.where(mask, values, 0.0).mul(weight).sum()

        rows, scaled = _Rows(arrays, run.places, members), self._scaled()
        likelihoods = self._likelihoods(run, rows, diagnose)
        if run.outputs.manner is not None:
            likelihoods = likelihoods._replace(manner_log_prob=self._manner_log_prob(run, rows))
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
            logged["message_entropy"] = spoken = mean(likelihoods.message_entropy)
            if scaled["message_entropy"]:
                loss = loss - scaled["message_entropy"] * spoken
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
        extra, extra_logged = self._own_losses(arrays, run, rows, world, mask, counts, reduce, diagnose)
        return loss + extra, {**logged, **extra_logged, "total_loss": (loss + extra) / members}

    @property
    def weights(self) -> dict[str, float]:
        """{loss: weight before any schedule} of those on messages."""
        plan, config = self.plan, self.config
        return {
            "quality": plan.quality_weight,
            "message_balance": plan.balance_weight,
            "message_sharpness": plan.balance_weight * plan.sharpness,
            "message_kl": config.message_kl_coeff,
            "message_entropy": config.message_entropy_coeff,
        }

    def _scaled(self) -> dict[str, float]:
        """The same, as schedules have them now."""
        return {name: weight * self.scales.get(name, 1.0) for name, weight in self.weights.items()}

    def _value_error(self, output: AgentOutput, rows: _Rows) -> Tensor:
        """[P, R], squared and clipped."""
        # Observations are gathered for a central critic alone: they may be pictures.
        seen = rows["obs"] if getattr(self.module, "central_critic", None) is not None else output.value
        values = self.module.value(output.value, seen, rows.world_state()).float()
        return value_error(values, rows["targets"], self.config.vf_clip_param)

    def _exploration(
        self,
        likelihoods: _Likelihoods,
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
            worth = self.module.quality(output.aux["features"].float(), rows["actions"])
            error = (worth - rows["targets"]).square()
            quality = mean(rows.where_known(error))
            total, logged["quality_loss"] = total + weights["quality"] * quality, quality / members
        if output.message is None:
            return total, logged
        voices = rows.voices(run.mask)

        def voiced(values: Tensor) -> Tensor:
            """[P, R] -> the mean over rows whose message went out and those whose did not, which count as 0."""
            return mean(torch.where(voices, values, 0.0))

        if config.message_kl_coeff and "message_logp" in rows.arrays:
            moved = self._said_log_prob(run, rows) - rows["message_logp"]
            kl = voiced(moved.exp() - 1 - moved)
            total, logged["message_kl"] = total + weights["message_kl"] * kl, kl / members
        if self.plan.balance_weight:
            groups = rows.groups(run.places, self._per_seat)
            # Each round has symbols of its own to keep in use.
            parts = [
                kept_in_use(
                    *rows.spoken(self.messages, spoken.params), spoken.said, *groups, voices, reduce, mean, weights
                )
                for spoken in _spoken(run)
            ]
            total = total + torch.stack([loss for loss, _ in parts]).sum(0)
            logged["message_balance"] = torch.stack([spread for _, spread in parts]).mean(0) / members
        return total, logged

    def _manner_log_prob(self, run: SpeciesUnroll, rows: _Rows) -> Tensor:
        """[P, R] nats, of whether and how urgently messages were said in all rounds."""
        gated, total = "sender" in self.module.spec.gates, torch.zeros_like(run.outputs.value, dtype=torch.float32)
        for spoken, (drawn, decided) in zip(_spoken(run), rows.drawn_in_rounds(), strict=True):
            assert spoken.manner is not None
            total = total + torch.where(decided, log_prob(spoken.manner, drawn, gated), 0.0)
        return total

    def _said_log_prob(self, run: SpeciesUnroll, rows: _Rows) -> Tensor:
        """[P, R] nats, of what was said in all rounds."""
        assert self.messages is not None
        parts = []
        for spoken, sent in zip(_spoken(run), rows.sent_in_rounds(self.messages), strict=True):
            kind, params = rows.spoken(self.messages, spoken.params)
            parts.append(kind.log_prob(params, sent))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)

    def decided(self, arrays: Fragment[Tensor], run: SpeciesUnroll) -> dict[str, Tensor]:
        """Log-probabilities of what was decided, by these outputs: {"action_logp", "message_logp"}, [B, T, N] each.

        Those of messages only where the fragment has them. What nobody lived keeps what the fragment holds.
        """
        rows = _Rows(arrays, run.places, self.module.spec.members)
        likelihoods = self._likelihoods(run, rows)
        said = likelihoods.message_log_prob
        if said is None and run.outputs.message is not None and "message_logp" in arrays:  # kept to hold them to that
            said = self._said_log_prob(run, rows)
        result = {}
        manner = None if run.outputs.manner is None else self._manner_log_prob(run, rows)
        for key, values in (("action_logp", likelihoods.log_prob), ("message_logp", said), ("manner_logp", manner)):
            if values is not None:
                lived = run.mask.reshape(-1)
                places = torch.arange(lived.numel(), device=lived.device) if run.places is None else run.places
                result[key] = plain(arrays)[key].clone()
                result[key].view(-1)[places[lived]] = values.reshape(-1)[lived]
        return result

    def _acts_by_message(self, output: AgentOutput) -> bool:
        return output.message is not None and self.plan.gradient == "reinforce"

    def _is_supervised(self, rows: _Rows) -> bool:
        return "answers" in rows.arrays

    def _likelihoods(self, run: SpeciesUnroll, rows: _Rows, diagnose: bool = False) -> _Likelihoods:
        output = run.outputs
        logits = output.action_logits.float()
        mask = rows.optional("action_mask")
        log_prob, entropy = self.distribution.log_prob_and_entropy(logits, rows["actions"], mask)
        if self.messages is None or output.message is None:
            return _Likelihoods(log_prob, entropy, None, None)
        message = None
        if self._acts_by_message(output):
            message = _voiced(self._said_log_prob(run, rows), rows)
        rewarded = bool(self.config.message_entropy_coeff)
        if not rewarded and not diagnose:  # it is a tenth of an update
            return _Likelihoods(log_prob, entropy, message, None)
        with torch.set_grad_enabled(rewarded):
            each = []
            for spoken in _spoken(run):
                kind, params = rows.spoken(self.messages, spoken.params)
                each.append(kind.entropy(params, **told(kind, spoken.said)))
            uncertain = each[0] if len(each) == 1 else torch.stack(each).sum(0)
            return _Likelihoods(log_prob, entropy, message, _voiced(uncertain, rows))

    def _policy_loss(
        self, likelihoods: _Likelihoods, rows: _Rows, mean: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """PPO's surrogate of what was decided, and its diagnostics, summed over members.

        Action and message are one decision with one advantage, or two where a message is credited from the next step
        on. Actions that are supervised are no decision.
        """
        # Of a single action there is nothing to decide either.
        acts = not self._is_supervised(rows) and getattr(self.distribution, "n", 0) != 1
        decisions = [(likelihoods.log_prob, rows["action_logp"], rows["advantages"])] if acts else []
        if likelihoods.message_log_prob is not None:
            said = (likelihoods.message_log_prob, _voiced(rows["message_logp"], rows), rows.message_advantages())
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

    def _own_losses(
        self,
        arrays: Fragment[Tensor],
        run: SpeciesUnroll,
        rows: _Rows,
        world: Mapping[str, Fragment[Tensor]],
        mask: Tensor,
        counts: Tensor,
        reduce: Reduce,
        diagnose: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's auxiliary losses, weighted, and its diagnostics."""
        agent, weights = self.module.agent, self.module.auxiliary_weights
        total = mask.new_zeros((), dtype=torch.float32)
        logged: dict[str, Tensor] = {}
        if not getattr(agent, "has_auxiliary_losses", True):
            # The targets are gathered for nobody else, and with an inbox they are larger than all the rest.
            return total, logged
        batch = auxiliary_batch(arrays, run, rows, world, self.species, self.module.spec.rounds)
        losses = agent.auxiliary_losses(batch, run.outputs)
        # A network averages over the rows it is given; with several learners that is its share of all rows.
        rows_share = mask.sum(1) / counts
        shares = _shares(agent, batch, reduce)
        for name, per_member in losses.items():
            part = per_member * shares.get(name, rows_share)
            total = total + weights.get(name, 1.0) * self.scales.get(name, 1.0) * part.sum()
            logged[name] = part.detach().sum() / len(part)
        if diagnose and hasattr(agent, "diagnostics"):
            with torch.no_grad():
                learners = reduce(torch.ones((), device=mask.device))
                logged.update({k: v / learners for k, v in agent.diagnostics(batch, run.outputs).items()})
        return total, logged


def _spoken(run: SpeciesUnroll) -> list[Spoken]:
    """What a species that speaks said, round after round; once where there are none."""
    assert run.outputs.message is not None
    return [*run.earlier, Spoken(run.outputs.message, run.outputs.said, run.outputs.manner)]


def _voiced(values: Tensor, rows: _Rows) -> Tensor:
    """[P, R]; 0 where a seat may not speak, and its message is no decision."""
    return torch.where(rows["voiced"], values, 0.0) if "voiced" in rows.arrays else values


def _shares(agent: Agent, batch: AuxiliaryBatch, reduce: Reduce) -> dict[str, Tensor]:
    """{loss: [P]}, this learner's share of what a loss averages over, where that is not the rows."""
    if reduce is same or not hasattr(agent, "auxiliary_counts"):
        return {}
    counts = {name: count.double() for name, count in agent.auxiliary_counts(batch).items()}
    return {name: (count / reduce(count.clone()).clamp(min=1)).float() for name, count in counts.items()}


def auxiliary_batch(
    arrays: Fragment[Tensor],
    run: SpeciesUnroll,
    rows: _Rows,
    world: Mapping[str, Fragment[Tensor]],
    species: Mapping[str, Species],
    rounds: int = 0,
) -> AuxiliaryBatch:
    """Targets for a network's own losses, in the order of its rows. species: all of the world; rounds: of a step."""
    alive, first = arrays["alive"], arrays["first"]
    # The row after a life's last step has its final observation; only a new life's first one must not be predicted.
    next_mask = alive & ~first[:, 1:]
    sender_obs, sender_mask = _what_senders_saw(run, rows, world, species, rounds)
    return AuxiliaryBatch(
        obs=rows["obs"],
        next_obs=rows.gather(arrays["obs"][:, 1:]),
        next_mask=rows.gather(next_mask) & run.mask,
        actions=rows["actions"],
        inbox=run.inbox,
        sender_obs=sender_obs,
        sender_obs_mask=sender_mask,
        world_state=rows.world_state(),
        mask=run.mask,
        earlier=tuple((spoken.params, spoken.said) for spoken in run.earlier),
        expense=run.expense,
    )


def _what_senders_saw(
    run: SpeciesUnroll,
    rows: _Rows,
    world: Mapping[str, Fragment[Tensor]],
    species: Mapping[str, Species],
    rounds: int,
) -> tuple[Tensor | None, Tensor | None]:
    """What the sender of every heard message saw when it spoke, [P, T R, K, Omax], and which numbers are real.

    Of pictures it is a glimpse.
    """
    if run.inbox is None:
        return None, None
    width = max(species[name].glimpse_size for name in world)
    seen, real = [], []
    for name, a in world.items():
        # One step before: the carried observation, then those of steps 0 ... T - 2. In rounds, in the same step.
        previous = torch.cat([a["previous_obs"].unsqueeze(1), a["obs"][:, : rows.length - 1]], 1)
        before = a["obs"][:, : rows.length] if rounds else previous
        before = species[name].glimpse(before)
        missing = width - before.shape[-1]
        seen.append(torch.nn.functional.pad(before, (0, missing)))
        real.append(torch.arange(width, device=before.device).lt(before.shape[-1]).expand(before.shape[2], width))
    everyone = torch.cat(seen, 2)  # [B, T, N, Omax]
    real_numbers = torch.cat(real, 0)  # [N, Omax]
    worlds, length, seats = everyone.shape[:3]
    # Of repeated and published words nobody saw anything one step before.
    senders = run.inbox.senders.clamp(max=seats - 1)
    step = torch.arange(worlds * length, device=senders.device)
    step = rows.gather(step.view(worlds, length, 1).expand(-1, -1, rows.arrays["alive"].shape[2]))
    flat = (step.unsqueeze(-1) * seats + senders).reshape(-1)
    sender_obs = everyone.reshape(-1, width).index_select(0, flat).view(*senders.shape, width)
    heard = run.inbox.mask if run.inbox.direct is None else run.inbox.mask & run.inbox.direct
    return sender_obs, heard.unsqueeze(-1) & real_numbers[senders]
