"""How likely decisions of a fragment are by a species' present outputs: what was done, what was said, and how."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput
from popcomm.agents.distributions import ActionDistribution
from popcomm.channels.manner import log_prob
from popcomm.channels.messages import MessageKind, told
from popcomm.rllib.fragment import Fragment, plain
from popcomm.rllib.plan import SpeciesPlan
from popcomm.rllib.round_walk import Spoken
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import SpeciesUnroll


class Likelihoods(NamedTuple):
    """How likely the decisions of a step were; each [P, R]."""

    log_prob: Tensor  # of the actions, nats
    entropy: Tensor  # of their distribution
    message_log_prob: Tensor | None = None  # of the messages, under reinforce
    message_entropy: Tensor | None = None
    manner_log_prob: Tensor | None = None  # whether and how urgently they were said


class Decisions:
    """Of one species, on rows [P, R] of its members."""

    def __init__(self, plan: SpeciesPlan, distribution: ActionDistribution) -> None:
        self.plan, self.distribution = plan, distribution
        self.messages: MessageKind | None = plan.spec.messages

    def likelihoods(self, run: SpeciesUnroll, rows: Rows, diagnose: bool = False) -> Likelihoods:
        """diagnose: whether to tell the messages' entropy where it has no coefficient, too."""
        output = run.outputs
        allowed = rows.optional("action_mask")
        found = Likelihoods(
            *self.distribution.log_prob_and_entropy(output.action_logits.float(), rows["actions"], allowed)
        )
        if self.messages is not None and output.message is not None:
            said = voiced(self.said_log_prob(run, rows), rows) if self._acts_by_message(output) else None
            found = found._replace(
                message_log_prob=said, message_entropy=self._entropy_of_messages(run, rows, diagnose)
            )
        if output.manner is not None:
            found = found._replace(manner_log_prob=self.manner_log_prob(run, rows))
        return found

    def _acts_by_message(self, output: AgentOutput) -> bool:
        return output.message is not None and self.plan.gradient == "reinforce"

    def _entropy_of_messages(self, run: SpeciesUnroll, rows: Rows, diagnose: bool) -> Tensor | None:
        """[P, R] nats, of what is said in all rounds; None where nobody asks for it: it is a tenth of an update."""
        rewarded = bool(self.plan.settings.message_entropy_coeff)
        if not rewarded and not diagnose:
            return None
        with torch.set_grad_enabled(rewarded):
            each = []
            for one in spoken(run):
                kind, params = rows.spoken(self.messages, one.params)
                each.append(kind.entropy(params, **told(kind, one.said)))
            return _over_rounds(_that_went_out(each, rows))

    def manner_log_prob(self, run: SpeciesUnroll, rows: Rows) -> Tensor:
        """[P, R] nats, of whether and how urgently messages were said in all rounds."""
        gated, total = "sender" in self.plan.spec.gates, torch.zeros_like(run.outputs.value, dtype=torch.float32)
        for one, (drawn, decided) in zip(spoken(run), rows.drawn_in_rounds(), strict=True):
            assert one.manner is not None
            total = total + torch.where(decided, log_prob(one.manner, drawn, gated), 0.0)
        return total

    def said_log_prob(self, run: SpeciesUnroll, rows: Rows) -> Tensor:
        """[P, R] nats, of what was said; where there are several rounds, in those in which it went out."""
        assert self.messages is not None
        parts = []
        for one, sent in zip(spoken(run), rows.sent_in_rounds(self.messages), strict=True):
            kind, params = rows.spoken(self.messages, one.params)
            parts.append(kind.log_prob(params, sent))
        return parts[0] if len(parts) == 1 else _over_rounds(_that_went_out(parts, rows))

    def relived(self, arrays: Fragment[Tensor], run: SpeciesUnroll) -> dict[str, Tensor]:
        """Log-probabilities of what was decided, by these outputs, as the fragment has them: {key: [B, T, N]}.

        Keys are "action_logp", and "message_logp" and "manner_logp" where the fragment has them. What nobody lived
        keeps what the fragment holds.
        """
        rows = Rows(arrays, run.places, self.plan.members)
        likelihoods = self.likelihoods(run, rows)
        said = likelihoods.message_log_prob
        if said is None and run.outputs.message is not None and "message_logp" in arrays:  # kept to hold them to that
            said = self.said_log_prob(run, rows)
        found = {
            "action_logp": likelihoods.log_prob,
            "message_logp": said,
            "manner_logp": likelihoods.manner_log_prob,
        }
        lived = run.mask.reshape(-1)
        places = torch.arange(lived.numel(), device=lived.device) if run.places is None else run.places
        result = {}
        for key, values in found.items():
            if values is not None:
                result[key] = plain(arrays)[key].clone()
                result[key].view(-1)[places[lived]] = values.reshape(-1)[lived]
        return result


def spoken(run: SpeciesUnroll) -> list[Spoken]:
    """What a species that speaks said, round after round; once where there are none."""
    assert run.outputs.message is not None
    return [*run.earlier, Spoken(run.outputs.message, run.outputs.said, run.outputs.manner)]


def voiced(values: Tensor, rows: Rows) -> Tensor:
    """[P, R]; 0 where a seat may not speak, and its message is no decision."""
    return torch.where(rows["voiced"], values, 0.0) if "voiced" in rows.arrays else values


def _that_went_out(each: list[Tensor], rows: Rows) -> list[Tensor]:
    """[P, R] of every round; 0 where its own message did not go out."""
    voices = rows.voiced_in_rounds()
    return each if voices is None else [torch.where(own, values, 0.0) for own, values in zip(voices, each, strict=True)]


def _over_rounds(each: list[Tensor]) -> Tensor:
    return each[0] if len(each) == 1 else torch.stack(each).sum(0)
