"""Learning from answers: rewards by hand, the supervised loss against torch's cross-entropy, what is logged."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from popcomm.agents import GRUAgent
from popcomm.agents.distributions import action_distribution
from popcomm.envs.world import Species
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.plan import plan_of
from popcomm.rllib.ppo import same
from popcomm.rllib.recording import Recording
from popcomm.rllib.rows import Rows
from popcomm.rllib.supervision import answer_log_prob, due, supervised_rewards
from popcomm.rllib.training_schedules import TrainingSchedules
from popcomm.rllib.unroll import SpeciesUnroll, Unroller
from tests.rllib.test_learner import learner_of
from tests.rllib.test_rollout import runner_of

Fragment = dict[str, dict[str, torch.Tensor]]

PAIR = {
    "speaker": Species("speaker", 0, 1, 1, spaces.Discrete(1)),
    "listener": Species("listener", 1, 3, 1, spaces.Discrete(2), has_answers=True),
}
DISTRIBUTIONS = {name: action_distribution(species.action_space) for name, species in PAIR.items()}


def game_config(members: Any = 1, agent: Any = "gru", **changes: Any) -> PopulationPPOConfig:
    """A referential game small enough for tests: nine meanings, four symbols, episodes of three rounds."""
    env = {"attributes": 2, "values": 3, "rounds": 3, **changes.pop("env", {})}
    communication = {"messages": {"kind": "symbols", "vocab_size": 4, "length": 2}, **changes.pop("communication", {})}
    training = {"learn_from": "answers", "gamma": 0.5, "num_epochs": 1, **changes.pop("training", {})}
    sizes = {"agent_config": {"hidden": 8, "embedding": 4}} if agent == "gru" else {}
    assert not changes
    return (
        PopulationPPOConfig()
        .environment("referential_v0", env_config=env)
        .communication(**communication)
        .population(agent=agent, members=members, **sizes)
        .training(**training)
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=7)
        .debugging(seed=1)
    )


def played(config: PopulationPPOConfig, times: int = 1) -> tuple[Any, Fragment]:
    """The runner, and the last of some fragments: with seven rows, two rounds of one episode and the start of another,
    or the like."""
    runner = runner_of(config)
    batch = [runner.sample() for _ in range(times)][-1]
    return runner, {name: as_tensors(dict(a)) for name, a in batch.policy_batches.items()}


def unrolled(runner: Any, fragment: Fragment, through: bool = False) -> dict[str, SpeciesUnroll]:
    networks = {name: runner.module[name] for name in fragment}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    return Unroller(networks, seats, runner.config.message_kind, through).run(fragment)


# ---- rewards ----


def logits_of(*probabilities: float) -> torch.Tensor:
    """[len, 2] logits whose second action has these probabilities."""
    p = torch.tensor(probabilities)
    return torch.stack([(1 - p).log(), p.log()], -1)


def supervised(answers: list[int], second: tuple[float, float], rewards: tuple[float, ...] = (7, 8, 9)) -> list[float]:
    """Rewards of one world whose two listeners take action 1 with these probabilities."""
    logits = {"speaker": torch.zeros(1, 1, 1), "listener": logits_of(*second).unsqueeze(0)}
    right = {"listener": torch.tensor([answers])}
    worlds = torch.tensor([rewards], dtype=torch.float32)
    return supervised_rewards(worlds, right, logits, DISTRIBUTIONS, PAIR)[0].tolist()


def test_listeners_get_the_log_probability_of_the_right_answer_and_speakers_its_mean() -> None:
    got = supervised([0, 1], (0.75, 0.5))
    assert got == pytest.approx([(math.log(0.25) + math.log(0.5)) / 2, math.log(0.25), math.log(0.5)])


def test_who_gives_no_answer_gets_the_mean_of_those_who_do() -> None:
    assert supervised([-1, 1], (0.75, 0.2)) == pytest.approx([math.log(0.2)] * 3)


def test_where_no_answer_is_due_the_worlds_own_rewards_stay() -> None:
    assert supervised([-1, -1], (0.75, 0.2)) == [7, 8, 9]


def test_an_answer_that_was_thought_impossible_costs_ten_nats() -> None:
    assert supervised([1, 0], (1e-9, 1e-9)) == pytest.approx([-5, -10, 0], abs=1e-6)


def test_worlds_are_judged_apart() -> None:
    logits = {"speaker": torch.zeros(2, 1, 1), "listener": logits_of(0.5, 0.5).expand(2, 2, 2)}
    answers = {"listener": torch.tensor([[0, 1], [-1, -1]])}
    got = supervised_rewards(torch.ones(2, 3), answers, logits, DISTRIBUTIONS, PAIR)
    torch.testing.assert_close(got, torch.tensor([[math.log(0.5)] * 3, [1.0] * 3]))


def test_an_answer_of_several_parts_is_due_where_none_is_minus_one_and_as_likely_as_their_product() -> None:
    answers = torch.tensor([[[1, 0], [-1, -1]]])
    is_due = due(answers, (2,))
    assert is_due.tolist() == [[True, False]]
    assert due(torch.tensor([3, -1, 0]), ()).tolist() == [True, False, True]
    logits = torch.cat([logits_of(0.8), logits_of(0.3)], -1).expand(1, 2, 4)
    distribution = action_distribution(spaces.MultiDiscrete([2, 2]))
    assert answer_log_prob(distribution, logits, answers, is_due)[0].tolist() == pytest.approx([math.log(0.8 * 0.7), 0])


@pytest.mark.parametrize("members", [1, 3])
def test_the_rewards_of_a_fragment_are_the_log_probabilities_at_the_weights_that_acted(members: int) -> None:
    runner, fragment = played(game_config(members), 2)
    run = unrolled(runner, fragment)["listener"]
    a = fragment["listener"]
    rows = Rows(a, run.places, members)
    answers = rows["answers"]
    is_due = due(answers, (2,))
    logits = run.outputs.action_logits.view(*answers.shape, 3)
    expected = logits.log_softmax(-1).gather(-1, answers.clamp(min=0).unsqueeze(-1)).squeeze(-1).sum(-1)
    torch.testing.assert_close(rows["rewards"][is_due], expected[is_due], atol=1e-5, rtol=1e-5)
    assert (rows["rewards"][~is_due] == 0).all()
    assert torch.equal(fragment["speaker"]["rewards"], a["rewards"])  # one listener is its own mean
    # Six worlds, and in seven rows from the eighth on: episodes of four steps and a row between.
    assert int(is_due.sum()) == 6 * 5


def test_rewards_are_the_worlds_own_where_nothing_is_supervised() -> None:
    _, fragment = played(game_config(training={"learn_from": "rewards"}))
    assert "answers" not in fragment["listener"]
    assert set(fragment["listener"]["rewards"].unique().tolist()) <= {0.0, 0.5, 1.0}
    assert fragment["listener"]["rewards"].max() > 0


def test_returns_that_are_logged_stay_the_worlds() -> None:
    """Log-probabilities are what is learned from; the score of the game is what is shown."""
    runner = runner_of(game_config())
    for _ in range(2):
        runner.sample()
    returns = runner.get_metrics()["episode_return_mean"].peek()
    assert 0 <= returns <= 6  # three rounds, for the speaker and the listener


def test_the_worlds_metrics_arrive_in_the_result() -> None:
    """A listener that answers meaning (0, 0) every time is right in one of four meanings, up to chance."""
    runner = runner_of(game_config(env={"attributes": 2, "values": 2, "rounds": 30}))
    with torch.no_grad():
        policy = runner.module["listener"].agent.policy.layers[-1]
        policy.weight.zero_()
        policy.bias.copy_(torch.tensor([[50.0, 0, 50, 0]]))
    logger = MetricsLogger(root=True)
    _, a = runner.sample(), runner.sample().policy_batches["listener"]
    right = (a["answers"] == 0).all(-1).sum() / (a["answers"] >= 0).all(-1).sum()
    logger.aggregate([runner.get_metrics()], key="env_runners")
    result = {**logger.reduce(), "num_env_steps_sampled_lifetime": 84, "num_agent_steps_sampled_lifetime": 168}
    algorithm = SimpleNamespace(
        config=runner.config,
        learner_statistics=lambda result: {},
        plan=runner.plan,
        selected={},
        schedules=TrainingSchedules(runner.config),
        attendance=SimpleNamespace(scalars=lambda result: {}),
        ahead=SimpleNamespace(scalars=dict),
        ledger=SimpleNamespace(scalars=dict, arrays=dict),
    )
    Recording().measure(algorithm, result)
    assert result["popcomm"]["world/accuracy"] == pytest.approx(right)
    assert result["popcomm"]["world/attribute_accuracy"] >= result["popcomm"]["world/accuracy"]


# ---- the supervised loss ----


def prepared(learner: Any, fragment: Fragment) -> tuple[Fragment, dict[str, SpeciesUnroll]]:
    """The fragment with its advantages, unrolled with the learner's own networks."""
    arrays = {name: dict(a) for name, a in fragment.items()}
    learner._add_advantages(arrays)
    return arrays, learner.unroller.run(arrays)


@pytest.mark.parametrize("members", [1, 3])
def test_the_supervised_loss_is_torchs_cross_entropy_and_all_that_the_policy_learns_from(members: int) -> None:
    """Summed over members, mean over each one's answers; an entropy bonus of 5 and sampled actions change nothing."""
    config = game_config(members, training={"entropy_coeff": 5.0})
    _, fragment = played(config, 2)
    learner = learner_of(config)
    arrays, runs = prepared(learner, fragment)
    network, run = learner.networks["listener"], runs["listener"]
    loss, logged = learner.losses["listener"](arrays["listener"], run, 5.0, arrays, same, False)
    # Only the policy: the value is another layer's, which sees what the policy sees without a gradient.
    policy = list(network.agent.policy.parameters())
    got = torch.autograd.grad(loss, policy, retain_graph=True)

    rows = Rows(arrays["listener"], run.places, members)
    answers = rows["answers"]
    expected = torch.zeros(())
    for member in range(members):
        here = (answers[member] >= 0).all(-1) & run.mask[member]
        logits = run.outputs.action_logits[member][here].view(-1, 3)
        both = torch.nn.functional.cross_entropy(logits, answers[member][here].flatten(), reduction="sum")
        expected = expected + both / int(here.sum())
    assert logged["answer_loss"].item() == pytest.approx(expected.item() / members, rel=1e-5)
    for a, b in zip(got, torch.autograd.grad(expected, policy, retain_graph=True), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    assert logged["policy_loss"].item() == logged["approx_kl"].item() == logged["clipfrac"].item() == 0


def test_the_supervised_loss_reaches_the_speaker_through_its_messages() -> None:
    """Under straight-through the listener's loss alone moves the speaker's words; without a gradient it does not."""
    for gradient in ("straight_through", "none"):
        config = game_config(communication={"gradient": gradient})
        _, fragment = played(config, 2)
        learner = learner_of(config)
        arrays, runs = prepared(learner, fragment)
        loss, _ = learner.losses["listener"](arrays["listener"], runs["listener"], 0.0, arrays, same, False)
        words = list(learner.networks["speaker"].agent.speech.parameters())
        reached = torch.autograd.grad(loss, words, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in reached) == (gradient == "straight_through")


def test_rows_without_an_answer_teach_nothing() -> None:
    config = game_config()
    _, fragment = played(config, 2)
    fragment["listener"]["answers"] = torch.full_like(fragment["listener"]["answers"], -1)
    learner = learner_of(config)
    arrays, runs = prepared(learner, fragment)
    loss, logged = learner.losses["listener"](arrays["listener"], runs["listener"], 0.0, arrays, same, False)
    assert logged["answer_loss"].item() == 0
    policy = torch.autograd.grad(loss, list(learner.networks["listener"].agent.policy.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in policy)


# ---- values that nobody reads ----


def test_without_a_reader_values_are_not_made_and_everything_else_learns_the_same(monkeypatch) -> None:
    """A critic that stops before all else changes no other gradient, and acting does not look at it."""
    config = game_config()
    found = []
    for apart in (True, False):
        monkeypatch.setattr(GRUAgent, "judges_apart", apart)
        _, fragment = played(config)
        learner = learner_of(config)
        arrays, runs = prepared(learner, fragment)
        losses = [learner.losses[n](arrays[n], run, 0.01, arrays, same, False) for n, run in runs.items()]
        named = {f"{n}.{k}": p for n, m in learner.networks.items() for k, p in m.named_parameters()}
        total = torch.stack([loss for loss, _ in losses]).sum()
        gradients = torch.autograd.grad(total, [*named.values()], allow_unused=True)
        found.append(
            {
                "acted": {n: {k: a[k] for k in ("actions", "rewards", "messages")} for n, a in fragment.items()},
                "values": torch.cat([a["values"].flatten() for a in fragment.values()]),
                "gradients": dict(zip(named, gradients, strict=True)),
                "logged": [set(logged) for _, logged in losses],
            }
        )
    without, judged = found
    assert not without["values"].any()
    assert judged["values"].any()
    torch.testing.assert_close(without["acted"], judged["acted"], atol=0, rtol=0)
    for name, expected in judged["gradients"].items():
        got = without["gradients"][name]
        if ".critic." in name:
            assert got is None
            assert expected.any()
        elif expected is not None:
            torch.testing.assert_close(got, expected, atol=1e-7, rtol=1e-6)
    for few, all_of_them in zip(without["logged"], judged["logged"], strict=True):
        assert all_of_them - few == {"vf_loss"}


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({}, [False, False]),
        ({"training": {"learn_from": "rewards"}}, [True, True]),
        ({"communication": {"gradient": "reinforce"}}, [True, True]),
        ({"agent": "symbolic"}, [True, True]),
        ({"training": {"quality_coeff": 0.5}}, [True, True]),
    ],
)
def test_values_are_read_where_something_is_decided_by_them(changes: dict[str, Any], judged: list[bool]) -> None:
    assert [s.spec.judged for s in plan_of(game_config(**changes)).species.values()] == judged
