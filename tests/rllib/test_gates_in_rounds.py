"""Gates of senders where messages are exchanged in rounds: each round counts where its own message went out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from popcomm.agents.distributions import action_distribution
from popcomm.rllib.decisions import Decisions, spoken
from popcomm.rllib.ppo import same
from popcomm.rllib.rows import Rows
from tests.rllib.test_gates import gated
from tests.rllib.test_learner import learner_of
from tests.rllib.test_rollout import runner_of
from tests.rllib.test_rounds import SYMBOLS, stirred, tensors


def setting(**training: Any) -> tuple[Any, dict[str, Any]]:
    """A learner of two rounds, and a fragment in which gates were open and shut in both."""
    config = gated("mlp", SYMBOLS, 2, gate="sender", gradient="straight_through").training(**training)
    runner = stirred(runner_of(config))
    runner.sample()
    learner, arrays = learner_of(config), tensors(runner.sample())
    learner.module.set_state(runner.module.get_state())
    return learner, arrays


def logged_of(learner: Any, arrays: dict[str, Any], first: bool, last: bool) -> dict[str, Tensor]:
    """What is logged where gates were open in one round for all, or in both, or in none."""
    a = arrays["swarm"]
    a["earlier_opens"] = torch.where(a["alive"].unsqueeze(-1), int(first), -1).to(torch.int8)
    a["opens"] = torch.where(a["alive"], int(last), -1).to(torch.int8)
    a["voiced"] = a["alive"] & last
    learner._add_advantages(arrays)
    run = learner.unroller.run(arrays)["swarm"]
    return learner.losses["swarm"](a, run, 0.0, arrays, same, True)[1]


@pytest.mark.parametrize("name", ["message_balance", "message_entropy"])
def test_every_round_counts_where_its_own_message_went_out(name: str) -> None:
    """Both are means or sums over rounds, so that what each has alone adds up to what both have."""
    learner, arrays = setting()
    none, first, last, both = (
        logged_of(learner, arrays, *opens)[name].item()
        for opens in ((False, False), (True, False), (False, True), (True, True))
    )
    assert none == pytest.approx(0.0, abs=1e-6)
    assert min(first, last) > 0.1
    assert first + last == pytest.approx(both, rel=1e-5)


def test_the_likelihood_of_what_was_said_is_that_of_the_rounds_in_which_it_went_out() -> None:
    learner, arrays = setting(message_kl_coeff=1.0)
    a, plan = arrays["swarm"], learner.plan.species["swarm"]
    with torch.no_grad():
        run = learner.unroller.run(arrays)["swarm"]
        rows = Rows(a, run.places, plan.members)
        found = Decisions(plan, action_distribution(plan.species.action_space)).said_log_prob(run, rows)
        expected = torch.zeros_like(found)
        opens = [rows["earlier_opens"][..., 0], rows["opens"]]
        for one, sent, door in zip(spoken(run), rows.sent_in_rounds(plan.spec.messages), opens, strict=True):
            logs = one.params.float().log_softmax(-1).gather(-1, sent.unsqueeze(-1)).squeeze(-1)
            expected += logs.sum(-1) * (door > 0)
    assert ((opens[0] > 0) & (opens[1] == 0)).any()
    torch.testing.assert_close(found[run.mask], expected[run.mask])
    torch.testing.assert_close(rows["message_logp"][run.mask], expected[run.mask], atol=1e-5, rtol=1e-5)


def test_messages_are_held_to_what_they_were_in_the_rounds_in_which_they_went_out() -> None:
    """Whose gate is shut in the last round alone is held to what it said before."""
    learner, arrays = setting(message_kl_coeff=1.0)
    a = arrays["swarm"]
    a["message_logp"] = a["message_logp"] - 0.5
    found = logged_of(learner, arrays, True, False)["message_kl"].item()
    assert found > 0.01
    assert logged_of(learner, arrays, False, False)["message_kl"].item() == pytest.approx(0.0, abs=1e-7)
