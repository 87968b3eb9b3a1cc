"""Gates and budgets: what is let in, what goes out, and who is served."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.local_training import LocalTraining

from popcomm.agents.contract import AgentSpec
from popcomm.agents.distributions import action_distribution
from popcomm.agents.gates import Manner, check_urgency
from popcomm.agents.pretrained import spec_from_json, spec_to_json
from popcomm.channels.session import UNDER_WAY
from popcomm.channels.vectors import Vectors
from popcomm.cli import schema
from popcomm.envs.platoon_sight import CRITICALITY, PLACE, SPEED
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.decisions import Decisions
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.rows import Rows
from popcomm.rollout.recipes import ChannelRecipe
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_messages_as_actions import echo_config
from tests.rllib.test_rollout import runner_of
from tests.rllib.test_rounds import (
    RELAXED,
    SYMBOLS,
    VECTORS,
    WORDS,
    networks,
    stirred,
    swarm,
    tensors,
    unrolled,
    whisper,
)

FULL = {"kind": "full"}


def gated(agent: str = "mlp", messages: Any = RELAXED, rounds: int = 0, members: int = 2, **more: Any) -> Any:
    return swarm(rounds, messages, more.pop("topology", FULL), agent, members, **more)


@pytest.mark.parametrize(
    ("agent", "messages", "rounds", "more"),
    [
        ("mlp", RELAXED, 0, {"gate": "both"}),
        ("symbolic", VECTORS, 0, {"gate": "both", "budget": 2}),
        ("mlp", SYMBOLS, 0, {"gate": "sender", "gradient": "reinforce"}),
        ("symbolic", RELAXED, 2, {"gate": {"kind": "both", "price": 0.1}, "budget": {"messages": 1, "price": 0.2}}),
        ("ic3net", VECTORS, 0, {}),
        ("tarmac", VECTORS, 2, {"gate": "receiver"}),
        ("commnet", RELAXED, 1, {"gate": "sender"}),
        ("mlp", SYMBOLS, 1, {"gradient": "reinforce", "budget": 1, "topology": {"kind": "k_nearest", "k": 2}}),
    ],
)
def test_the_unroll_finds_every_decision_as_likely_as_the_rollout(
    agent: str, messages: Any, rounds: int, more: dict[str, Any]
) -> None:
    runner = stirred(runner_of(gated(agent, messages, rounds, **more)))
    runner.sample()
    arrays = tensors(runner.sample())
    run, network = unrolled(runner, arrays)["swarm"], networks(runner)["swarm"]
    plan, rows = runner.plan.species["swarm"], Rows(arrays["swarm"], run.places, network.spec.members)
    law = action_distribution(plan.species.action_space)
    found = {"action_logp": law.log_prob(run.outputs.action_logits, rows["actions"], None)}
    if network.spec.manners:
        found["manner_logp"] = Decisions(plan, law).manner_log_prob(run, rows)
        assert bool((arrays["swarm"]["manner_logp"][arrays["swarm"]["alive"]] != 0).any())
    for key, values in found.items():
        torch.testing.assert_close(values[run.mask], rows[key][run.mask], rtol=1e-5, atol=1e-5)


def test_nobody_hears_whose_gate_is_shut() -> None:
    runner = runner_of(gated(gate="sender"))
    network = networks(runner)["swarm"]
    with torch.no_grad():
        network.agent.manner.door.weight.zero_()
        network.agent.manner.door.bias.fill_(-50.0)
    arrays = runner.sample().policy_batches["swarm"]
    assert not arrays["inbox_mask"].any()
    assert not arrays["voiced"].any()
    assert set(np.unique(arrays["opens"])) <= {-1, 0}
    assert runner.statistics.language["sender_gate"] == 0.0


def test_a_shut_receiver_gate_lets_nothing_in_and_says_so() -> None:
    runner = stirred(runner_of(gated("symbolic", gate="receiver", members=1)))
    with torch.no_grad():
        networks(runner)["swarm"].agent.gate.of_state.bias.fill_(-200.0)
    runner.sample()
    language = runner.statistics.language
    assert language["receiver_gate"] == pytest.approx(0.0, abs=1e-6)
    assert language["listening"] == pytest.approx(0.0, abs=1e-5)
    names = runner.layout.agents
    assert {k for k in language if k.startswith("receiver_gate/")} == {
        f"receiver_gate/{a}/{b}" for a in names for b in names if a != b
    }


def test_a_message_that_goes_out_costs_its_price_in_what_is_learned_from_alone() -> None:
    free = runner_of(gated(gate="sender", messages=VECTORS)).sample().policy_batches["swarm"]
    runner = runner_of(gated(gate={"kind": "sender", "price": 0.25}, messages=VECTORS))
    dear = runner.sample().policy_batches["swarm"]
    spoke = dear["opens"] > 0
    assert 0.1 < spoke.mean() < 0.95
    np.testing.assert_allclose(dear["rewards"], free["rewards"] - 0.25 * spoke, atol=1e-6)


@pytest.mark.parametrize("rounds", [0, 2])
def test_silence_in_words_costs_nothing_though_the_gate_is_open(rounds: int) -> None:
    batches = []
    for price in (0.0, 0.25):
        ways: dict[str, Any] = {"gate": {"kind": "sender", "price": price}, "gradient": "straight_through"}
        ways["budget"] = {"messages": 1, "price": price}
        batches.append(runner_of(gated("symbolic", WORDS, rounds, **ways)).sample().policy_batches["swarm"])
    free, dear = batches
    said, opens, haste = dear["messages"][:, 1:, :, None], dear["opens"][..., None], dear["haste"][..., None]
    if rounds:
        rest = [dear[f"earlier_{key}"] for key in ("messages", "opens", "haste")]
        said, opens, haste = (np.concatenate(two, -1) for two in zip(rest, (said, opens, haste), strict=True))
    spoke = (opens > 0) & (said != 0)
    assert ((opens > 0) & (said == 0)).any()
    assert spoke.any()
    fees = 0.25 * spoke * (1 + 1 / (1 + np.exp(-haste)))
    np.testing.assert_allclose(dear["rewards"], free["rewards"] - fees.sum(-1), atol=1e-6)


def test_a_budget_fills_inboxes_with_the_most_urgent() -> None:
    runner = stirred(runner_of(gated(budget=1, members=1)))
    arrays = runner.sample().policy_batches["swarm"]
    assert arrays["senders"].shape[-1] == 1
    priority, compared = arrays["haste"], 0
    for t in range(1, 7):
        on_air = arrays["alive"][:, t - 1] & ~arrays["first"][:, t]
        for world, seat in np.argwhere(arrays["inbox_mask"][:, t, :, 0]):
            others = [n for n in range(4) if n != seat and on_air[world, n]]
            assert arrays["senders"][world, t, seat, 0] == max(others, key=lambda n: priority[world, t - 1, n])
            compared += 1
    assert compared > 50
    measured = runner.rollout.players.session.measures()
    assert measured["refused"] == pytest.approx(2 * measured["served"], rel=0.2)  # three others, one is served


def test_a_price_closes_the_gate_of_who_has_nothing_to_say() -> None:
    """Of two seats only the first sees the digit; the second's message is worth nothing to anybody. Three digits need
    no more than two messages, where silence is the third: the first speaks two times in three. (Of seeds 1 to 10 two,
    and not this one, go on saying three.)"""
    config = whisper(2, 1, RELAXED, "mlp", hidden=32).debugging(seed=2)
    config.communication(topology=FULL, gate={"kind": "sender", "price": 0.2}).training(lr=1e-2)
    training = LocalTraining(config, evaluation_worlds=256)
    for _ in range(40):
        training.iterate()
    language = training.runner.statistics.language
    assert language["sender_gate/player_1"] < 0.2
    assert 0.5 < language["sender_gate/player_0"] < 0.8
    assert training.point().greedy > 0.9


def test_the_urgent_learn_to_be_served_first() -> None:
    """Two of three seats can be heard by the last, one message only: that of who sees the digit is worth hearing."""
    config = whisper(3, 1, RELAXED, "mlp", hidden=32)
    config.communication(topology=FULL, budget=1).training(lr=1e-2)
    training = LocalTraining(config, evaluation_worlds=256)
    for _ in range(40):
        training.iterate()
    language = training.runner.statistics.language
    assert language["priority/player_0"] > language["priority/player_1"] + 0.2
    assert training.point().greedy > 0.9


def test_a_runner_with_gates_and_a_budget_goes_on_bit_for_bit() -> None:
    config = gated("symbolic", gate="both", budget={"messages": 1, "patience": 2})
    one, other = runner_of(config), runner_of(config)
    one.sample()
    state = one.run_state()
    expected = tensors(one.sample())["swarm"]
    other.set_run_state(state)
    found = tensors(other.sample())["swarm"]
    for key, values in expected.items():
        assert torch.equal(values, found[key]), key


@pytest.mark.parametrize("credit", ["step", "receivers"])
@pytest.mark.parametrize("answers", [False, True])
def test_who_decides_by_its_gate_alone_measures_speech_against_silence(credit: str, answers: bool) -> None:
    """Lives of one step, in which silence earns 1 and speech 0; half of them speak. Of actions there is one, or they
    are learned from answers."""
    config = echo_config(actions=1 + answers, credit=credit).communication(gate="sender").training(gamma=0.9)
    runner, learner = runner_of(config), learner_of(config)
    arrays = tensors(runner.sample())
    a = arrays["talker"]
    alive = a["alive"].clone()
    speaks = (torch.arange(alive.shape[0]) % 2 == 0).view(-1, 1, 1) & alive
    if answers:
        a["answers"] = a["actions"].clone()
    a |= {"opens": torch.where(alive, speaks.to(torch.int8), -1), "voiced": speaks, "terminated": alive}
    a |= {"rewards": (alive & ~speaks).float(), "values": torch.zeros_like(a["values"])}
    a["truncated"].zero_()
    learner._add_advantages(arrays)
    torch.testing.assert_close(a["advantages"], torch.where(speaks, -1.0, 1.0) * alive)
    assert not a["message_advantages"].any()  # all messages earned the same, and the others were not said


def test_a_price_closes_the_gate_of_who_can_only_speak() -> None:
    """What is said is worth nothing to anybody, and costs 1."""
    config = echo_config(credit="step").communication(gate={"kind": "sender", "price": 1.0}).training(lr=0.03)
    runner, learner = runner_of(config), learner_of(config)
    doors = []
    for iteration in range(15):
        update(learner, runner, iteration)
        runner.module.set_state(learner.module.get_state())
        doors.append(runner.statistics.language["sender_gate"])
    assert doors[0] > 0.6
    assert doors[-1] < 0.2


def spec_of(**more: Any) -> AgentSpec:
    runner = runner_of(gated(budget=1, members=1))
    return networks(runner)["swarm"].spec


def test_urgency_is_learned_or_constant_or_read_from_parts_of_the_observation() -> None:
    spec, features, obs = spec_of(), torch.randn(1, 5, 8), torch.randn(1, 5, 10)
    always = Manner(spec, 8, urgency=0.5)(features, obs)
    assert always[..., 1].sigmoid().unique().tolist() == [0.5]
    assert not always[..., 2].any()  # and is not drawn
    assert not list(Manner(spec, 8, urgency=0.5).parameters())
    read = Manner(spec, 8, urgency=[0, 3])
    other = obs.clone()
    other[..., [0, 3]] += 1
    assert torch.equal(read(features, obs), read(torch.randn(1, 5, 8), obs))
    assert not torch.equal(read(features, obs), read(features, other))


def test_the_shipped_priority_is_learned_by_emergency_vehicles_from_place_speed_and_criticality_alone() -> None:
    config = schema.apply(schema.load("platoon_priority"), PopulationPPOConfig())
    runner = stirred(runner_of(config))
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    assert all(a["senders"].shape[-1] == 1 for a in arrays.values())
    assert not arrays["truck"]["haste"].any()  # the logit of .5
    assert not arrays["car"]["haste"].any()
    assert len(arrays["emergency"]["haste"].unique()) > 8
    manner = networks(runner)["emergency"].agent.manner
    assert manner.columns.tolist() == [*range(PLACE.start, PLACE.stop), SPEED, CRITICALITY]
    seen, features = torch.rand(1, 5, 18), torch.rand(1, 5, 64)
    others = seen.clone()
    others[..., 4:] += 1
    assert torch.equal(manner(features, seen), manner(features + 1, others))
    others[..., CRITICALITY] += 1
    assert not torch.equal(manner(features, seen), manner(features, others))


def test_what_does_not_fit_is_told() -> None:
    for settings, said in (
        ({"gate": "recever"}, r"communication\.gate.*receiver"),
        ({"gate": {"kind": "sender", "price": -1}}, "communication.gate.price is -1"),
        ({"gate": {"kind": "receiver", "price": 1}}, "who listens pays nothing"),
        ({"gate": 3}, "communication.gate is 3"),
        ({"budget": 0}, "communication.budget is 0"),
        ({"budget": 3}, "an agent hears at most 3 others"),
        ({"budget": {"patience": 3}}, "must say how many 'messages'"),
        ({"budget": 1, "topology": {"kind": "routed"}}, "communication.budget is of single messages"),
    ):
        with pytest.raises(UserError, match=said):
            gated("symbolic", members=1, **settings).validate()
    with pytest.raises(UserError, match="has no gates; use 'symbolic' or 'mlp'"):
        gated("tiny", gate="sender").validate()
    config = gated(gate="sender").training(gamma=0.0)
    with pytest.raises(UserError, match=r"training\.gamma is 0"):
        config.validate()
    dear = echo_config().communication(gate={"kind": "sender", "price": 0.1})
    with pytest.raises(UserError, match=r"'talker' with its one action does not count communication\.gate\.price"):
        dear.validate()
    dear.communication(credit="step").validate()
    spec = spec_of()
    for urgency, said in ((1.5, "agent_config.urgency is 1.5"), ([99], "names column 99"), (["speed"], "the part")):
        with pytest.raises(UserError, match=said):
            Manner(spec, 8, urgency=urgency)
    with pytest.raises(UserError, match=r"urgency is 0\.3, of messages, and species 'swarm' never speaks"):
        check_urgency(replace(spec, speaks=False), 0.3)
    with pytest.raises(UserError, match=r"without communication\.budget"):
        runner_of(gated().population(agent_config={"hidden": 16, "urgency": 0.3}))


def test_what_is_wrong_with_a_decision_to_speak_names_what_asks_for_it() -> None:
    private = {"kind": "vectors", "size": 2, "privacy": {"epsilon": 1.0, "delta": 1e-5, "clip": 1.0}}
    with pytest.raises(UserError, match=r"communication\.budget is 1, and whether a sender speaks"):
        gated("mlp", private, gate="receiver", budget=1).validate()
    with pytest.raises(UserError, match=r"gamma is 0, and communication\.budget is 1, so"):
        gated("mlp", gate="receiver", budget=1).training(gamma=0.0).validate()
    with pytest.raises(
        UserError, match=r"communication\.gate is 'sender' where it is left out \('none' takes it away\)"
    ):
        gated("ic3net", private, gate=None).validate()
    with pytest.raises(UserError, match=r"make a log, .*gate 'none' takes away also that of an agent"):
        gated("ic3net", WORDS, gate=None, capacity=3).validate()


@pytest.mark.parametrize("rounds", [0, 1])
@pytest.mark.parametrize("ways", [{"gate": {"kind": "sender", "price": 0.1}}, {"budget": {"price": 0.1}}])
def test_a_price_that_silence_among_words_spares_goes_with_credit_of_its_own_step_alone(
    ways: dict[str, Any], rounds: int
) -> None:
    key = next(iter(ways))
    for credit in ("receivers",) if rounds else ("next", "receivers", "counterfactual"):
        learned = {"gradient": "reinforce", "credit": credit}
        with pytest.raises(UserError, match=rf"'{credit}', which does not count communication\.{key}\.price = 0\.1"):
            gated("mlp", WORDS, rounds, **ways, **learned).validate()
        gated("mlp", SYMBOLS, rounds, **ways, **learned).validate()  # of which none is silence
        gated("mlp", WORDS, rounds, gate="sender", **learned).validate()
    gated("mlp", WORDS, rounds, **ways, gradient="reinforce").validate()
    gated("mlp", WORDS, rounds, **ways, gradient="straight_through").validate()


def test_policies_with_gates_learn_from_their_decisions() -> None:
    training = LocalTraining(gated(gate="both", budget=2, members=1), evaluation_worlds=8)
    agent = training.learner.networks["swarm"].agent
    before = {name: values.detach().clone() for name, values in agent.named_parameters()}
    training.iterate()
    still = {name for name, values in agent.named_parameters() if torch.equal(values, before[name])}
    assert not still


def test_a_recipe_of_a_channel_with_gates_can_be_written_down() -> None:
    kind = Vectors(2)
    recipe = ChannelRecipe(kind, FULL, gate={"kind": "sender", "price": 0.1}, budget=2, rounds=1)
    told = recipe.to_json()
    assert (told["gate"], told["budget"], told["rounds"]) == ({"kind": "sender", "price": 0.1}, 2, 1)
    assert ChannelRecipe(kind, **told) == replace(recipe, reflexes=[])
    assert set(ChannelRecipe(kind, FULL).to_json()).isdisjoint({"gate", "budget", "rounds"})


@pytest.mark.parametrize(
    ("gate", "names"),
    [(None, ("sender",)), ("none", ()), ("receiver", ("receiver",)), ("both", ("receiver", "sender"))],
)
def test_ic3net_has_its_senders_gate_unless_another_is_chosen(gate: Any, names: tuple[str, ...]) -> None:
    config = whisper(2, 1, VECTORS, "ic3net", hidden=8).communication(gate=gate)
    config.validate()
    assert config.plan.channel.gates.names == names
    assert config.plan.species["player"].spec.gates == names


def test_the_spec_of_a_network_with_gates_survives_as_json() -> None:
    spec = networks(runner_of(gated(gate="both", budget=2, rounds=1)))["swarm"].spec
    assert (spec.gates, spec.urgency, spec.rounds) == (("receiver", "sender"), True, 1)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


def junction(rounds: int = 0, length: int = 7, **budget: Any) -> Any:
    """Cars come and go; half of ten seats are empty."""
    return (
        PopulationPPOConfig()
        .environment("traffic_junction_v0", env_config={"num_agents": 10, "max_steps": 9})
        .communication(messages=SYMBOLS, topology=FULL, rounds=rounds, budget={"messages": 1, **budget})
        .population(agent="mlp", agent_config={"hidden": 16})
        .env_runners(num_worlds_per_env_runner=16, rollout_fragment_length=length)
        .debugging(seed=3)
    )


@pytest.mark.parametrize("rounds", [0, 2])
def test_nobody_on_an_empty_seat_is_served_and_only_messages_to_cars_are_counted(rounds: int) -> None:
    runner = stirred(runner_of(junction(rounds)))
    served = empty = 0
    for _ in range(3):
        arrays = runner.sample().policy_batches["car"]
        masks = [arrays["inbox_mask"][..., 0]]
        if rounds:
            masks += [arrays["earlier_inbox_mask"][..., number, 0] for number in range(rounds - 1)]
        alive = arrays["alive"]
        over = ~alive.any(2)  # rows for a last value, where those who lived one step before hear
        lived = alive[:, :-1] | alive[:, 1:]
        for mask in masks:
            assert not mask[~alive & ~over[:, :, None]].any()
            assert not mask[:, 1:][over[:, 1:, None] & ~lived].any()
            served += int(mask.sum())
        empty += int((~alive & ~over[:, :, None]).sum())
        assert over[:, 1:].any()
    assert empty > 500
    steps = 3 * 7 * max(1, rounds) + (0 if rounds else 1)  # without rounds what comes after the last step is heard, too
    session = runner.rollout.players.session
    taken, _, counted, _ = session._served.tolist()
    assert counted == steps
    assert taken == served + (0 if rounds else int(session.mail.mask.sum()))


@pytest.mark.parametrize("rounds", [0, 2])
def test_looking_ahead_leaves_everything_as_it_was(rounds: int) -> None:
    one, other = (stirred(runner_of(junction(rounds, patience=2))) for _ in range(2))
    for runner in (one, other):
        runner.rollout.begin(1)
    for _ in range(12):
        one.rollout.step()
        one.rollout.players.foresee(["car"])
        other.rollout.step()
        ours, theirs = one.rollout.players.session, other.rollout.players.session
        for key in UNDER_WAY[1:]:
            assert torch.equal(getattr(ours, key), getattr(theirs, key)), key
        assert torch.equal(one.rollout.players.generator.get_state(), other.rollout.players.generator.get_state())
    assert ours.measures() == theirs.measures()


@pytest.mark.parametrize("rounds", [0, 2])
def test_whom_patience_serves_does_not_depend_on_the_length_of_fragments(rounds: int) -> None:
    found = []
    for length in (3, 12):
        runner = stirred(runner_of(junction(rounds, length, patience=2)))
        parts = [runner.sample().policy_batches["car"] for _ in range(12 // length)]
        session = runner.rollout.players.session
        found.append(
            [np.concatenate([part[key] for part in parts], 1) for key in ("senders", "inbox_mask", "alive", "actions")]
            + [session._waited.numpy(), session._served.numpy()]
        )
    for short, long in zip(*found, strict=True):
        np.testing.assert_array_equal(short, long)
