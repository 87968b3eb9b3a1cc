"""A vocabulary that grows, in training: what is said, what it is worth, and that a run goes on where it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium import spaces

import popcomm
from popcomm.agents.contract import AgentSpec
from popcomm.agents.step import agent_step
from popcomm.channels.messages import Symbols
from popcomm.errors import UserError
from popcomm.rllib.fragment import as_tensors, said_in
from popcomm.rllib.ppo import same
from popcomm.rllib.release import population_of
from popcomm.schedules import Clock
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_rollout import clock_config, runner_of

EIGHT = {"kind": "symbols", "vocab_size": 8, "length": 2}
CLOSED = {"first": 4, "schedule": 1.0}  # for ever
GROWS = {"first": 2, "schedule": {"kind": "linear", "begin": 0, "end": 600}}


def config(agent: str = "mlp", vocabulary: Any = CLOSED, **rest: Any) -> Any:
    return clock_config(agent=agent, messages=EIGHT, vocabulary=vocabulary, **rest)


HEADS = {
    "reinforce": {"agent": "mlp", "gradient": "reinforce"},
    "counterfactual": {"agent": "mlp", "gradient": "reinforce", "noise": 0.3, "credit": "counterfactual"},
    "straight_through": {"agent": "mlp", "gradient": "straight_through"},
    "relaxed": {"agent": "mlp", "gradient": "relaxed"},
    "symbol by symbol": {
        "agent": "gru", "gradient": "reinforce", "agent_config": {"hidden": 8}
    },
}  # fmt: skip


@pytest.mark.parametrize("how", HEADS)
def test_nobody_says_what_is_closed_and_all_losses_are_those_of_what_is_open(how: str) -> None:
    """With equal logits a message has the entropy 2 log 4, not 2 log 8, and its symbols are as even as they can be."""
    given = config(**HEADS[how]).training(message_balance_coeff=0.1, message_entropy_coeff=0.01, message_kl_coeff=0.1)
    runner, learner = runner_of(given), learner_of(given)
    for module in (runner.module["speaker"], learner.networks["speaker"]):
        for name, parameter in module.agent.named_parameters():
            if "speech" in name or "message" in name:
                torch.nn.init.zeros_(parameter)
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    kind = given.message_kind
    said = kind.as_symbols(said_in(arrays["speaker"]))
    assert set(said.unique().tolist()) == {0, 1, 2, 3}
    if how != "relaxed":
        spoken = arrays["speaker"]["alive"]
        found = arrays["speaker"]["message_logp"][spoken]
        torch.testing.assert_close(found, torch.full_like(found, -2 * math.log(4)))
    learner._add_advantages(arrays)
    run = learner.unroller.run(arrays)["speaker"]
    loss, logged = learner.losses["speaker"](arrays["speaker"], run, 0.0, arrays, same, False)
    assert torch.isfinite(loss)
    assert logged["message_entropy"].item() == pytest.approx(2 * math.log(4), abs=1e-4)
    assert logged["message_balance"].item() == pytest.approx(2 * math.log(4), abs=1e-4)
    assert logged["message_kl"].item() == pytest.approx(0.0, abs=1e-5)


def test_what_is_closed_learns_nothing_and_what_was_opened_does() -> None:
    given = config(vocabulary=GROWS).training(message_balance_coeff=0.1)
    runner, learner = runner_of(given), learner_of(given)
    head = learner.networks["speaker"].agent.message_head
    before = head.bias.detach().clone()
    update(learner, runner)
    moved = (head.bias.detach() != before).view(2, 8).any(0).tolist()
    assert moved[:2] == [True, True]
    assert moved[2:] == [False] * 6
    batch = runner.sample(env_steps=600)
    assert set(batch.policy_batches["speaker"]["open_symbols"].tolist()) == {8}
    learner.update_from_fragments([batch], [runner.num_worlds], 1, {"num_env_steps_sampled_lifetime": 600})
    assert (head.bias.detach() != before).view(2, 8).any(0).all()


def test_the_same_seed_gives_the_same_weights_and_a_restored_runner_goes_on_the_same() -> None:
    gated = {"kind": "gated", "measure": "reward", "begin": -1.0, "end": 1.0, "smoothing": 0.5}
    given = config(vocabulary={"first": 2, "schedule": gated})
    one, other = runner_of(given), runner_of(given)
    for runner in (one, other):
        runner.sample()
        runner.sample(env_steps=84, performance={"reward": 0.3})
    state, fades = one.run_state(), one.fades()
    assert fades[0]["smoothed"] == 0.3
    again = runner_of(given)
    again.set_run_state(state)
    batches = [r.sample(env_steps=168, performance={"reward": 0.4}, fades=fades) for r in (one, other, again)]
    first, *rest = (batch.policy_batches["speaker"] for batch in batches)
    assert set(first["open_symbols"].tolist()) == {round(2 + 6 * (1 - (1 - 1.35 / 2)))}
    for found in rest:
        assert all((first[key] == found[key]).all() for key in ("messages", "actions", "open_symbols"))


def test_the_language_is_measured_by_what_may_be_said() -> None:
    runner = runner_of(config())
    for parameter in runner.module["speaker"].agent.parameters():
        torch.nn.init.zeros_(parameter)
    runner.sample()
    assert runner.statistics.language["vocabulary_used"] == 1.0
    assert runner.statistics.language["vocabulary_effective"] == pytest.approx(1.0, abs=0.03)


def test_a_network_that_says_its_messages_itself_must_know_what_is_open() -> None:
    class Deaf(torch.nn.Module):
        autoregressive = True

        def forward(self, obs: Any, inbox: Any, state: Any, said: Any, generator: Any, greedy: bool) -> Any:
            raise AssertionError("not reached")

    spec = AgentSpec(2, spaces.Discrete(2), Symbols(8, 2), 0)
    with pytest.raises(UserError, match=r"population\.agent Deaf says its messages itself"):
        agent_step(Deaf(), spec, torch.zeros(1, 3, 2), None, {}, open_symbols=4)


def test_a_measure_that_nobody_makes_is_told_before_work_starts() -> None:
    gated = {"kind": "gated", "measure": "rewards"}
    with pytest.raises(UserError, match=r"communication\.vocabulary\.schedule: measure 'rewards' does not exist"):
        config(vocabulary={"first": 2, "schedule": gated}).validate()


def test_an_evaluation_and_a_population_out_of_the_trainer_keep_to_it(tmp_path: Any) -> None:
    given = config(vocabulary=GROWS)
    modules = given.get_multi_rl_module_spec(inference_only=True).build()
    found = population_of(given, modules, Clock(300), [])
    for population in (found, popcomm.load(found.save_pretrained(tmp_path / "saved"))):
        rollout = population.rollout(seed=1)
        rollout.begin()
        said = torch.cat([rollout.step()[0].sent[:, :2] for _ in range(5)])
        assert said.unique().tolist() == [0, 1, 2, 3, 4]
