"""Messages in the update: credited from the next step on, relived as they were said, mute and deaf species."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.envs.testing import world_api_test
from popcomm.envs.world import Species, World, WorldStep
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.estimates import of_messages, with_a_next_step
from popcomm.rllib.ppo import a_step_later
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import SpeciesUnroll, Unroller
from tests.rllib.test_learner import learner_of, update, weights
from tests.rllib.test_rollout import runner_of
from tests.rllib.test_supervision import Fragment, game_config, played, unrolled

# ---- credit ----


def column(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype).view(1, -1, 1)


def test_what_follows_the_next_step_stands_at_this_one_by_hand() -> None:
    """A life of two steps, its final row, a life of one that dies, at once the next of three, cut by the fragment."""
    #                      two   final  one  three
    alive = column([1.0, 1, 0, 1, 1, 1, 1]).bool()
    first = column([1.0, 0, 0, 1, 1, 0, 0, 0]).bool()
    values = column([10.0, 20, 30, 40, 50, 60, 70])
    assert a_step_later(values, alive, first).flatten().tolist() == [20, 0, 0, 0, 60, 70, 0]


def test_seats_and_worlds_are_shifted_apart() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    alive, first = torch.ones(2, 3, 2, dtype=torch.bool), torch.zeros(2, 4, 2, dtype=torch.bool)
    alive[1, 1, 0] = False
    assert a_step_later(values, alive, first).tolist() == [[[2, 3], [4, 5], [0, 0]], [[0, 9], [10, 11], [0, 0]]]


class EchoWorld(World):
    """Two seats, episodes of two steps. In the second a seat gets 1 if it said symbol 1 in the first.

    In the first step it gets `bribe` where it said symbol 0: of that step and none of the message's doing, as far as
    "next" is concerned. Actions do nothing.
    """

    def __init__(self, num_worlds: int, device: Any = "cpu", bribe: float = 0.0, actions: int = 1) -> None:
        self.num_worlds, self.device, self.bribe = num_worlds, torch.device(device), bribe
        self.species = {"talker": Species("talker", 0, 2, 2, spaces.Discrete(actions))}
        self.said, self.age = torch.zeros(num_worlds, 2), 0

    def _say(self, rewards: Tensor) -> WorldStep:
        def flag(value: bool) -> Tensor:
            return torch.full((self.num_worlds, 2), value)

        clock = torch.nn.functional.one_hot(torch.tensor(self.age % 2), 2).float()
        views = {"talker": clock.expand(self.num_worlds, 2, 2).clone()}
        over = self.age == 2
        self.last = WorldStep(views, rewards, flag(False), flag(over), flag(not over), flag(self.age == 0))
        return self.last

    def reset(self, seed: int | None = None) -> WorldStep:
        self.age = 0
        return self._say(torch.zeros(self.num_worlds, 2))

    def step(self, actions: dict[str, Tensor], spoken: Tensor | None = None) -> WorldStep:
        if self.age == 2:
            return self.reset()
        now = torch.zeros(self.num_worlds, 2) if spoken is None else spoken
        rewards = self.said if self.age == 1 else self.bribe * (1 - now)
        self.said, self.age = now, self.age + 1
        return self._say(rewards)

    def get_state(self) -> dict[str, Any]:
        return {"said": self.said, "age": self.age, "last": self.last}

    def set_state(self, state: dict[str, Any]) -> WorldStep:
        self.said, self.age, self.last = state["said"], state["age"], state["last"]
        return self.last


def echo_config(bribe: float = 0.0, actions: int = 1, credit: str = "next") -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(EchoWorld, env_config={"bribe": bribe, "actions": actions})
        .communication(messages={"kind": "symbols", "vocab_size": 2, "length": 1}, gradient="reinforce", credit=credit)
        .population(agent="mlp", agent_config={"hidden": 8})
        .training(gamma=0.9, lr=0.01, num_epochs=1, entropy_coeff=0.0, normalize_returns=False)
        .env_runners(num_worlds_per_env_runner=64, rollout_fragment_length=6)
        .debugging(seed=2)
    )


def test_the_world_of_the_next_tests_keeps_the_contract() -> None:
    world_api_test(EchoWorld(3, bribe=1.0))


def says_one(learner: Any) -> list[float]:
    """Probability of symbol 1 in the first and in the second step of an episode, nothing heard."""
    agent = learner.networks["talker"].agent
    views = torch.eye(2).unsqueeze(0)
    with torch.no_grad():
        return agent(views, None, {}).message.softmax(-1)[0, :, 0, 1].tolist()


def after_updates(config: PopulationPPOConfig, times: int = 1) -> Any:
    runner, learner = runner_of(config), learner_of(config)
    for iteration in range(times):
        update(learner, runner, iteration)
    return learner


@pytest.mark.parametrize("actions", [1, 2])
def test_a_message_learns_from_the_step_after_it_and_not_from_its_own(actions: int) -> None:
    """The bribe is five times the reward, so that credit for the same step would teach the opposite, and does."""
    before = says_one(learner_of(echo_config(5.0, actions)))[0]
    by_next = says_one(after_updates(echo_config(5.0, actions), 3))[0]
    by_step = says_one(after_updates(echo_config(5.0, actions, credit="step"), 3))[0]
    assert by_step < before < by_next


def test_what_a_seat_gets_in_the_step_of_its_message_changes_nothing_at_all() -> None:
    """Of a seat that only speaks: the weights after an update are the same bits, whatever the bribe."""
    without, bribed = (weights(after_updates(echo_config(bribe)).networks["talker"]) for bribe in (0.0, 5.0))
    for name, value in without.items():
        assert torch.equal(value, bribed[name]), name


@pytest.mark.parametrize("actions", [1, 2])
def test_messages_that_nothing_follows_yet_get_no_advantage(actions: int) -> None:
    """Rows of the fragment: the two steps of an episode, its final row, and a first step whose reward is not here."""
    config = echo_config(actions=actions).env_runners(rollout_fragment_length=4)
    runner, learner = runner_of(config), learner_of(config)
    arrays = {n: {k: torch.from_numpy(v) for k, v in a.items()} for n, a in runner.sample().policy_batches.items()}
    learner._add_advantages(arrays)
    a = arrays["talker"]
    given = a["advantages" if actions == 1 else "message_advantages"]
    assert given[:, 0].abs().min() > 0
    assert not given[:, 2:].any()
    assert not given[:, 1].any()
    values = a["values"]
    if actions == 1:
        # The return of a message leaves out its own step. The episode is cut before the last one is heard: its value
        # is what is known of that future, and is not learned from itself.
        torch.testing.assert_close(a["value_targets"][:, 0], a["rewards"][:, 1] + 0.9 * values[:, 1])
        assert a["known"][0, :, 0].tolist() == [True, False, False, False]


@pytest.mark.parametrize(("ends", "targets"), [("truncated", [10, 10, 10, 10]), ("terminated", [1.9, 1, 0, 10])])
def test_at_a_cut_the_value_goes_on_and_at_a_death_nothing_comes_of_the_last_message(
    ends: str, targets: list[float]
) -> None:
    """Reward 1 in every step and gamma 0.9: worth 10 for ever. A life of three steps, its final row, a life cut by the
    fragment, in which messages are credited from the next step on."""
    alive, last = column([1, 1, 1, 0, 1, 1]).bool(), column([0, 0, 1, 0, 0, 0]).bool()
    a = {"alive": alive, "first": column([1, 0, 0, 0, 1, 0, 0]).bool(), "rewards": alive.float()}
    a |= {"values": torch.full((1, 7, 1), 10.0), "terminated": last & False, "truncated": last & False, ends: last}
    estimate = of_messages(a, SimpleNamespace(gamma=0.9, lambda_=1.0))
    known = with_a_next_step(a).flatten()
    assert known.tolist() == [True, True, ends == "terminated", False, True, False]
    got = estimate.targets.flatten()[[0, 1, 2, 4]]
    assert got.tolist() == pytest.approx(targets)


@pytest.mark.parametrize("credit", ["step", "next"])
def test_a_message_is_measured_against_those_that_were_said(credit: str) -> None:
    """Advantages of seats that decide by messages have mean 0 and deviation 1 where a seat may speak, 0 elsewhere."""
    config = game_config(
        env={"roles": "swapping", "num_agents": 3, "rounds": 4}, communication={"gradient": "reinforce"}
    )
    config.communication(credit=credit).training(gamma=0.9)
    runner, learner = runner_of(config), learner_of(config)
    arrays = {n: {k: torch.from_numpy(v) for k, v in a.items()} for n, a in runner.sample().policy_batches.items()}
    learner._add_advantages(arrays)
    a = arrays["agent"]
    given = a["advantages" if credit == "step" else "message_advantages"]
    said = given[a["voiced"] & (given != 0)]
    assert not given[~a["voiced"]].any()
    assert said.mean().item() == pytest.approx(0, abs=1e-5)
    assert said.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("gamma", "looks"), [(0.9, 5), (0.0, 4)])
def test_without_a_future_the_row_after_the_fragment_is_not_thought_about(gamma: float, looks: int) -> None:
    config = echo_config().training(gamma=gamma).env_runners(rollout_fragment_length=4)
    runner = runner_of(config)
    runner.sample()  # in which it is also asked how it listens
    calls: list[int] = []
    runner.agent("talker").register_forward_hook(lambda *args: calls.append(1))
    last = runner.sample().policy_batches["talker"]["values"][:, -1]
    assert len(calls) == looks
    assert bool(last.any()) == (gamma > 0)


# ---- the unroll ----


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("roles", ["fixed", "swapping"])
def test_symbols_said_one_by_one_are_as_likely_to_the_learner_as_to_the_runner(members: int, roles: str) -> None:
    """Step by step and folded alike; the seats change hands in the middle of the fragment."""
    env = {"speakers": 2, "listeners": 1} if roles == "fixed" else {"roles": "swapping", "num_agents": 3}
    config = game_config(members, env=env, communication={"gradient": "reinforce", "noise": 0.2})
    runner, fragment = played(config, 3)
    networks = {name: runner.module[name] for name in fragment}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    unroller = Unroller(networks, seats, config.message_kind, through=False)
    for runs in (unroller._folded(fragment), unroller._step_by_step(fragment)):
        for name, run in runs.items():
            rows, mask = Rows(fragment[name], run.places, members), run.mask
            log_prob = runner.distributions[name].log_prob(run.outputs.action_logits, rows["actions"])
            torch.testing.assert_close(log_prob[mask], rows["action_logp"][mask], atol=1e-5, rtol=1e-5)
            if runner.layout.species[name].speaks:
                said = config.message_kind.log_prob(run.outputs.message, rows.sent())
                torch.testing.assert_close(said[mask], rows["message_logp"][mask], atol=1e-5, rtol=1e-5)
                assert rows["message_logp"][mask].std() > 0


@pytest.mark.parametrize("credit", ["step", "next"])
def test_the_first_update_finds_the_policy_that_acted(credit: str) -> None:
    config = game_config(3, env={"roles": "swapping", "num_agents": 3}, communication={"gradient": "reinforce"})
    config.communication(credit=credit)
    logged = update(learner_of(config), runner_of(config))["agent"]
    assert abs(logged["approx_kl"].peek()) < 1e-6
    assert logged["clipfrac"].peek() == 0


def by_place(run: SpeciesUnroll, a: dict[str, Tensor], members: int) -> Tensor:
    """[rows, A], the logits of lived rows in the order of [B, T, N]."""
    order = torch.arange(a["alive"].numel()).view_as(a["alive"])
    places = Rows(a, run.places, members).gather(order)[run.mask]
    return run.outputs.action_logits[run.mask][places.argsort()]


@pytest.mark.parametrize("members", [1, 3])
def test_two_waves_give_the_outputs_and_the_senders_gradients_of_one_step_after_another(members: int) -> None:
    """Speakers first, then listeners: a loss of the listeners alone, with a weight of its own for every number."""
    config = game_config(members, env={"speakers": 2, "listeners": 2}, communication={"dropout": 0.3})
    runner, fragment = played(config, 3)
    networks = {name: runner.module[name] for name in fragment}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    unroller = Unroller(networks, seats, config.message_kind, through=True)
    speaker = list(networks["speaker"].agent.speech.parameters())
    outputs, gradients = [], []
    for runs in (unroller._folded(fragment), unroller._step_by_step(fragment)):
        logits = by_place(runs["listener"], fragment["listener"], members)
        assert len(logits) == int(fragment["listener"]["alive"].sum())
        loss = (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))).sum()
        outputs.append(logits.detach())
        gradients.append(torch.autograd.grad(loss, speaker))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    for folded, stepped in zip(*gradients, strict=True):
        assert stepped.abs().max() > 0
        torch.testing.assert_close(folded, stepped, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("turns", "wanted"), [(1, "_folded"), (2, "_step_by_step")])
def test_waves_are_taken_where_nobody_both_hears_and_speaks(
    turns: int, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, fragment = played(game_config(env={"turns": turns}))
    for path in ("_folded", "_step_by_step"):
        monkeypatch.setattr(Unroller, path, lambda self, fragment, path=path: path)
    assert unrolled(runner, fragment, through=True) == wanted


# ---- mute and deaf ----


def one_way(turns: int) -> tuple[Any, Fragment]:
    env = {"speakers": 2, "listeners": 2, "turns": turns}
    return played(game_config(env=env, communication={"gradient": "reinforce"}), 2)


def test_a_mute_species_sends_nothing_and_nobody_hears_it() -> None:
    runner, fragment = one_way(1)
    listener = fragment["listener"]
    assert "message_logp" not in listener
    assert "message_logp" in fragment["speaker"]
    assert not listener["messages"].any()
    assert not hasattr(runner.module["listener"].agent, "speech")
    heard = listener["senders"][listener["inbox_mask"]]
    assert set(heard.tolist()) == {0, 1}
    # Two speakers, heard in all lived steps but the first.
    lived = listener["alive"] & ~listener["first"][:, :-1]
    assert (listener["inbox_mask"].sum(-1)[lived] == 2).all()
    assert not listener["inbox_mask"][listener["first"][:, :-1]].any()


def test_a_deaf_species_gets_no_inbox() -> None:
    runner, fragment = one_way(1)
    assert not fragment["speaker"]["inbox_mask"].any()
    runs = unrolled(runner, fragment)
    assert runs["speaker"].inbox is None
    assert runs["listener"].inbox is not None
    assert runs["listener"].outputs.message is None
    assert runner.module["speaker"].spec.inbox_size == 0
    assert not hasattr(runner.module["speaker"].agent, "reader")


def test_in_conversations_all_speak_and_hear() -> None:
    runner, fragment = one_way(2)
    for name, a in fragment.items():
        assert "message_logp" in a
        assert a["messages"].any()
        own = a["senders"] == torch.arange(4)[runner.layout.species[name].seats].view(1, 1, -1, 1)
        assert not (own & a["inbox_mask"]).any()
        assert set(a["senders"][a["inbox_mask"]].tolist()) == {0, 1, 2, 3}


def test_the_talk_of_the_mute_costs_nothing() -> None:
    """Speakers pay for their symbols, and listeners, whose message is empty, do not."""
    env = {"message_cost": 0.25, "rounds": 3}
    _, fragment = played(game_config(env=env, training={"learn_from": "rewards"}))
    opening = fragment["speaker"]["first"][:, :-1]
    cost = 0.25 * (fragment["speaker"]["messages"][:, 1:] != 0).sum(-1)
    torch.testing.assert_close(-fragment["speaker"]["rewards"][opening], cost[opening].float())
    assert not fragment["listener"]["rewards"][opening].any()
    assert np.ptp(cost[opening].numpy()) > 0
