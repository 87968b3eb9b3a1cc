"""Private messages in training: what goes out, what the learner makes of it, and what members spend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.report import standing
from popcomm.analysis.run_folder import RunFolder

from popcomm.agents.distributions import action_distribution
from popcomm.channels.privacy import Privacy
from popcomm.cli import schema
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig, state_files
from popcomm.rllib.privacy import Ledger
from popcomm.rllib.rows import Rows
from tests.rllib.test_rollout import runner_of
from tests.rllib.test_rounds import networks, stirred, swarm, tensors, unrolled

WAYS = {"epsilon": 2.0, "delta": 1e-5, "clip": 0.5, "messages": 6}
PRIVATE = {"kind": "vectors", "size": 3, "privacy": WAYS}
FULL = {"kind": "full"}
STEPS, FRAGMENT, WORLDS, SEATS = 6, 7, 8, 4


def training(rounds: int = 0, agent: str = "mlp", members: int = 2, **more: Any) -> PopulationPPOConfig:
    config = swarm(rounds, PRIVATE, FULL, agent, members, **more)
    return config.environment("swarm_v0", env_config={"num_agents": SEATS, "max_steps": STEPS})


@pytest.mark.parametrize(("agent", "rounds"), [("mlp", 0), ("symbolic", 0), ("mlp", 1)])
def test_the_learner_hears_what_was_heard(agent: str, rounds: int) -> None:
    runner = stirred(runner_of(training(rounds, agent)))
    runner.sample()
    arrays = tensors(runner.sample())
    run, network = unrolled(runner, arrays)["swarm"], networks(runner)["swarm"]
    rows = Rows(arrays["swarm"], run.places, network.spec.members)
    law = action_distribution(runner.plan.species["swarm"].species.action_space)
    found = law.log_prob(run.outputs.action_logits, rows["actions"], None)
    torch.testing.assert_close(found[run.mask], rows["action_logp"][run.mask], rtol=1e-5, atol=1e-5)
    assert runner.plan.carries_gradients


def test_greedy_agents_hide_what_they_saw_too() -> None:
    sigma = Privacy(**WAYS).sigma
    said = []
    for explore in (True, False):
        runner = runner_of(training().env_runners(explore=explore))
        said.append(runner.sample().policy_batches["swarm"]["messages"][:, 1:].astype(float))
    for each in said:
        # The network's output is clipped to 0.5, beside a noise of about 4.
        assert each.std() == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_members_messages_are_counted_in_its_lives_and_in_all(rounds: int) -> None:
    runner = runner_of(training(rounds))
    seats = 0
    for _ in range(2):
        seats += runner.sample().policy_batches["swarm"]["alive"].sum()
    told = runner.statistics.private.read()["swarm"]
    assert told["all"].sum() == seats * max(rounds, 1)
    assert told["life"].tolist() == [STEPS * max(rounds, 1)] * 2
    again = runner.statistics.private.read()["swarm"]
    assert not again["all"].any()
    assert not again["life"].any()


def test_a_life_that_goes_on_after_a_restore_is_one() -> None:
    runner = runner_of(training())
    runner.sample()  # 7 steps, with an empty one where episodes start anew: lives are under way
    kept = runner.run_state()
    runner.statistics.private.read()
    runner.sample()
    other = runner_of(training())
    other.set_run_state(kept)
    other.sample()
    read = [r.statistics.private.read()["swarm"] for r in (runner, other)]
    assert {key: v.tolist() for key, v in read[0].items()} == {key: v.tolist() for key, v in read[1].items()}


def test_a_ledger_keeps_the_longest_life_and_the_sum_over_runners_and_files(tmp_path: Path) -> None:
    hidden, ledger = Privacy(**WAYS), Ledger(Privacy(**WAYS))
    ledger.take(
        {"swarm": {"life": np.array(life), "all": np.array(all_)}}
        for life, all_ in [([6, 0], [60, 0]), ([3, 3], [30, 9])]
    )
    state_files.write(tmp_path / "state", {"ledger": ledger.get_state()})
    restored = Ledger(hidden)
    restored.set_state(state_files.read(tmp_path / "state")[0]["ledger"])
    for one in (ledger, restored):
        spent = one.spent()["swarm"]
        assert spent["epsilon"].tolist() == pytest.approx([2.0, hidden.spent(np.array(3))], rel=1e-6)
        assert spent["epsilon_all"].tolist() == hidden.spent(np.array([90, 9])).tolist()
        assert one.scalars()["privacy/epsilon"] == pytest.approx(2.0, rel=1e-6)
        assert one.scalars()["privacy/epsilon_all"] == spent["epsilon_all"].max()
    assert Ledger(None).scalars() == {}


def test_training_is_the_same_with_the_same_seed() -> None:
    runs = [LocalTraining(training(), 8) for _ in range(2)]
    for run in runs:
        run.iterate()
        run.iterate()
    one, other = (run.learner.networks["swarm"].state_dict() for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.system
def test_what_was_spent_is_logged_reported_and_survives_a_restore(tmp_path: Path) -> None:
    config = training().env_runners(num_env_runners=0).training(num_epochs=1).recording(run_dir=str(tmp_path / "run"))
    algorithm = config.build_algo()
    algorithm.train()
    before = algorithm.train()["popcomm"]
    assert before["privacy/epsilon"] == pytest.approx(2.0, rel=1e-6)
    assert before["privacy/epsilon_all"] > 2.0
    assert before["privacy/sigma"] == Privacy(**WAYS).sigma
    saved = algorithm.save_to_path(tmp_path / "saved")
    restored = PopulationPPO.from_checkpoint(saved)
    after = [each.train()["popcomm"] for each in (algorithm, restored)]
    assert after[0]["privacy/epsilon_all"] == after[1]["privacy/epsilon_all"] > before["privacy/epsilon_all"]
    assert "in an episode" in standing(RunFolder.read(tmp_path / "run"))["privacy spent"]


@pytest.mark.parametrize("more", [{"gate": "sender"}, {"gate": "both"}, {"budget": 1}])
def test_what_tells_beside_the_message_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"which messages.privacy does not hide; use a gate of the receiver"):
        training(**more).validate()


def test_a_document_gives_privacy_and_its_wrong_values_are_told() -> None:
    world = {"environment": {"env": "swarm_v0"}}
    config = schema.apply({**world, "communication": {"messages": PRIVATE, "topology": FULL}}, PopulationPPOConfig())
    config.validate()
    assert config.plan.message_kind.mechanism == Privacy(**WAYS)
    wrong = {**PRIVATE, "privacy": {**WAYS, "delta": 1.5}}
    with pytest.raises(UserError, match=r"messages.privacy.delta is 1.5, and must lie between 0 and 1"):
        schema.apply({**world, "communication": {"messages": wrong, "topology": FULL}}, PopulationPPOConfig())


def test_a_gate_of_the_receiver_goes_with_privacy() -> None:
    training(gate="receiver").validate()
