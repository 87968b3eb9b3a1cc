"""Messages that may end early in the trainer: what is learned, paid, written down and counted of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.history import History
from popcomm.analysis.run_folder import Conversations

from popcomm.channels import Symbols, ending
from popcomm.language.recording import conversation_path, padded, read_conversations, write_conversations
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.balance import RARE, evenness
from popcomm.rllib.ppo import same
from popcomm.rllib.recording import _pictures
from popcomm.rllib.speaking import most_entropy
from popcomm.rollout.playback import moments
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_learns_to_talk import CopyWorld
from tests.rllib.test_relaxed_messages import assert_repeats, sampled, unrolled
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import ClockWorld

KIND = {"kind": "symbols", "vocab_size": 3, "length": 3, "end_symbol": True}
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": 8},
    "symbolic": {"hidden_dim": 8, "num_heads": 2},
    "gru": {"hidden": 8, "embedding": 4},
    "tiny": {"hidden_dim": 8, "num_heads": 2, "latent_tokens": 2, "depth": 1, "message_head": "autoregressive"},
}
LEARNED = [
    ("mlp", "relaxed"),
    ("mlp", "straight_through"),
    ("mlp", "reinforce"),
    ("symbolic", "relaxed"),
    ("symbolic", "straight_through"),
    ("gru", "straight_through"),
    ("gru", "reinforce"),
    ("tiny", "straight_through"),
    ("tiny", "reinforce"),
]


def talking(agent: str, gradient: str | None, **channel: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(ClockWorld, env_config={"death": 2})
        .communication(messages=KIND, topology={"kind": "full"}, gradient=gradient, **channel)
        .population(agent=agent, agent_config=SMALL[agent], members=2)
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=7)
        .debugging(seed=3)
    )


@pytest.mark.parametrize("channel", [{}, {"noise": 0.3, "dropout": 0.2}], ids=["clean", "noisy"])
@pytest.mark.parametrize(("agent", "gradient"), LEARNED)
def test_the_unroll_repeats_what_the_runner_did(agent: str, gradient: str, channel: dict[str, float]) -> None:
    runner = runner_of(talking(agent, gradient, **channel))
    for _ in range(2):
        arrays = sampled(runner)
        run = unrolled(runner, arrays, gradient != "reinforce")
        assert_repeats(runner, arrays, run)
    if gradient == "reinforce":
        said = arrays["speaker"].get("sent", arrays["speaker"]["messages"][:, 1:])
        assert torch.equal(said, ending.cut(said))
        kind = runner.plan.message_kind
        assert kind is not None
        log_prob = kind.log_prob(run["speaker"].outputs.message, _rows(arrays, run, said))
        expected = _rows(arrays, run, arrays["speaker"]["message_logp"])
        mask = run["speaker"].mask
        torch.testing.assert_close(log_prob[mask], expected[mask], atol=1e-5, rtol=1e-5)


def _rows(arrays: Any, run: Any, values: torch.Tensor) -> torch.Tensor:
    """[B, T, N, ...] in the order of the speakers' rows."""
    flat = values.reshape(-1, *values.shape[3:])
    return flat[run["speaker"].places].view(2, -1, *values.shape[3:])


@pytest.mark.parametrize(("agent", "gradient"), LEARNED)
def test_an_update_changes_what_is_said_and_stays_finite(agent: str, gradient: str) -> None:
    runner = runner_of(config := talking(agent, gradient))
    learner = learner_of(config)
    network: Any = learner.networks["speaker"].agent
    head = network.speech if agent == "gru" else network.message_head
    before = [value.detach().clone() for value in head.parameters()]
    update(learner, runner)
    assert any(not torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))
    assert all(value.isfinite().all() for value in network.parameters())


def test_the_balance_counts_positions_by_how_much_they_are_sent() -> None:
    """Two rows, two positions; the second position is sent in the first row alone, which always says symbol 1 there:
    nothing is even about it, and the row that ended does not make it so."""
    shares = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [1.0, 0.0]]]])
    sent = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    group, mask = torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool)
    found = evenness(shares, group, 1, mask, same, sent)
    entropy, pull = float(np.log(2)), RARE / 2 * 2
    torch.testing.assert_close(found, torch.tensor([[entropy + pull - RARE + RARE / 2 - RARE, entropy + pull - RARE]]))
    all_sent = evenness(shares, group, 1, mask, same, torch.ones(1, 2, 2))
    torch.testing.assert_close(all_sent, evenness(shares, group, 1, mask, same))


def test_the_most_entropy_is_that_of_all_messages_alike() -> None:
    assert most_entropy(Symbols(3, 3, end_symbol=True)) == pytest.approx(np.log(15))


@pytest.mark.parametrize("relaxed", [False, True])
def test_a_code_for_four_digits_is_learned_with_two_letters_and_an_end(relaxed: bool) -> None:
    config = (
        PopulationPPOConfig()
        .environment(CopyWorld)
        .communication(messages={**KIND, "length": 2, "relaxed": relaxed}, gradient=None if relaxed else "reinforce")
        .population(agent="mlp", agent_config={"hidden": 32})
        .env_runners(num_worlds_per_env_runner=32, rollout_fragment_length=6)
        .debugging(seed=1)
    )
    training = LocalTraining(config, evaluation_worlds=256)
    for _ in range(50):
        training.iterate()
    assert training.point().greedy >= 0.9


# ---- what it costs ----


def swarm(**env_config: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 10, **env_config})
        .communication(messages={**KIND, "length": 2}, gradient="straight_through", topology={"kind": "full"})
        .population(agent="mlp", agent_config=SMALL["mlp"], members=1)
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=7)
        .debugging(seed=3)
    )


def test_a_message_costs_what_of_it_was_sent() -> None:
    """Costs change no observation: rewards of a world differ by the price of the symbols before the end."""
    free, dear = (sampled(runner_of(swarm(message_cost=cost)))["swarm"] for cost in (0.0, 0.1))
    assert torch.equal(free["messages"], dear["messages"])
    sent = (ending.cut(dear["messages"][:, 1:]) != 0).sum(-1) * dear["alive"]
    assert set(sent.unique().tolist()) == {0, 1, 2}
    paid = (free["rewards"] - dear["rewards"]).sum(2)
    torch.testing.assert_close(paid, 0.1 * sent.sum(2).float(), atol=1e-5, rtol=1e-5)


# ---- what is written down ----


def recorded(tmp_path: Path) -> Any:
    config = talking("mlp", "reinforce")
    config.recording(run_dir=tmp_path, conversation_every=1, conversation_worlds=3)
    runner = runner_of(config)
    runner.sample()
    return runner


def test_transcripts_hold_what_was_sent(tmp_path: Path) -> None:
    runner = recorded(tmp_path)
    rows = runner.transcript.rows()
    lengths = {len(message) for message in rows["symbols"]}
    assert lengths == {1, 2, 3}
    for message in rows["symbols"]:
        assert 0 not in message[:-1]
        assert len(message) == 3 or message[-1] == 0
    assert _pictures(runner.config, rows).keys() >= {"symbol_use"}


def test_conversations_are_read_with_their_lengths(tmp_path: Path) -> None:
    rows = recorded(tmp_path).transcript.take()
    write_conversations(conversation_path(tmp_path, 1), rows)
    symbols = padded(read_conversations(tmp_path), "symbols")
    assert symbols is not None
    assert [row[row >= 0].tolist() for row in symbols] == [list(message) for message in rows["symbols"]]
    assert (symbols[:, 0] >= 0).all()
    read = Conversations(read_conversations(tmp_path)).symbols
    assert read is not None
    assert read.shape[1] == 3
    assert History.read(tmp_path).symbols.min() == -1


def test_what_was_not_sent_is_no_symbol_of_the_language(tmp_path: Path) -> None:
    """Weights that always end at once: one symbol, the end, and no entropy."""
    runner = runner_of(talking("mlp", "reinforce"))
    for name in runner.layout.species:
        head = runner.agent(name).message_head
        head.weight.data.zero_()
        head.bias.data.view(2, 3, 3)[..., 0] = 50.0
    runner.sample()
    told = runner.statistics.language
    assert told["symbol_entropy"] == 0.0
    assert told["vocabulary_used"] == pytest.approx(1 / 3)
    assert told["messages_per_speaker"] == 1.0


class Troupe:
    """A population of a config, at play."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner

    def rollout(self, seed: int = 0, greedy: bool = False, worlds: Any = None, env_config: Any = None) -> Any:
        self.runner.rollout.players.explore = not greedy
        return self.runner.rollout


@pytest.mark.parametrize("greedy", [False, True])
def test_it_can_be_played(greedy: bool) -> None:
    """What is shown is what was sent."""
    played = list(moments(Troupe(runner_of(swarm())), 8, greedy=greedy, draw=True))
    assert played[0].picture is not None
    messages = [saying.message for moment in played for saying in moment.said]
    assert all(0 not in message[:-1] for message in messages)
    assert all(len(message) == 2 or message == [0] for message in messages)
