"""A learned graph: who hears whom is trained, pruned, and the same for runners, learners and what is released."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from popcomm.agents.graph import RATE, LearnedGraph, LinkWeights
from popcomm.channels import Learned, make_topology
from popcomm.channels.mailbox import Inbox, PostedInbox
from popcomm.envs import with_messages
from popcomm.envs.relay_v0 import parallel_env
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.counterfactual import counterfactual_credit
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.release import population_of
from popcomm.rllib.succession import Succession, carry_out
from popcomm.schedules import Clock
from tests.rllib.test_credit import config_of
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_rollout import SYMBOLS, clock_config, runner_of

SHUT = -0.2 / RATE  # a weight whose link is shut at a threshold of .5
GIVEN = [[0, 0.3, 0.5, 0.9], [0.4, 0, 0.2, 0.1], [0.9, 0.3, 0, 0.6], [0.2, 0.8, 0.5, 0]]  # sender by receiver


def graph_config(**topology: Any) -> Any:
    config = config_of("step", lr=3e-3, num_epochs=2, entropy_coeff=0.01)
    links = {"kind": "learned", "between": "seats", "price": 0.0, **topology}
    return config.communication(gradient="straight_through", credit=None, topology=links)


def trained(config: Any, iterations: int, learner: Any = None, runner: Any = None) -> tuple[Any, Any]:
    config.validate()
    learner, runner = learner or learner_of(config), runner or runner_of(config)
    for iteration in range(iterations):
        runner.module.set_state(learner.module.get_state())
        update(learner, runner, iteration, runner.num_env_steps_sampled_lifetime)
    return learner, runner


def links(learner: Any) -> list[list[float]]:
    """[[seat 0 hears seat 0, seat 0 hears seat 1], ...]."""
    return learner.networks["pair"].links.probability.view(2, 2).tolist()


def test_a_shut_link_is_heard_as_nothing_and_has_the_gradient_of_an_open_one() -> None:
    weights = LinkWeights(2, 3, 0.6)
    assert weights.probability.tolist() == pytest.approx([0.6] * 3)
    weights.weight.data[:, 1] = SHUT
    weights.pruned[:, 2] = True
    strengths = weights.strengths(0.5)
    assert strengths.tolist() == pytest.approx([0.6, 0.0, 0.0])
    strengths.sum().backward()
    assert weights.weight.grad is not None
    slope = weights.weight.grad[0]
    assert slope[1] == pytest.approx(RATE * weights.probability[1].item() * (1 - weights.probability[1].item()) / 2)
    assert slope[0] > 0
    assert slope[2] == 0
    assert torch.equal(weights.weight.grad[0], weights.weight.grad[1])


def test_both_kinds_of_inbox_read_as_much_as_links_are_strong() -> None:
    posted = torch.tensor([[1.0], [2.0], [4.0]])
    index, mask = torch.tensor([[[1, 2], [0, 2]]]), torch.ones(1, 2, 2, dtype=torch.bool)
    gate = torch.tensor([[[0.5, 0.0], [1.0, 0.25]]])
    expected = [[1.0, 0.0], [1.0, 1.0]]
    lazy = PostedInbox(posted, index, index, mask, gate=gate)
    for inbox in (lazy, Inbox(lazy.messages, index, mask, gate=gate)):
        assert inbox.read(lambda messages, soft: messages)[0, ..., 0].tolist() == expected


def test_a_link_that_helps_opens_again_after_it_was_shut() -> None:
    learner, runner = trained(graph_config(start=0.6), 18)
    weight = learner.networks["pair"].links.weight
    with torch.no_grad():
        weight.fill_(SHUT)
    assert learner.graph.open_links == 0
    trained(learner.config, 15, learner, runner)
    heard_by_0, heard_by_1 = links(learner)
    assert heard_by_1[0] > 0.5
    assert heard_by_0[1] < heard_by_1[0]


def test_a_price_shuts_links_that_nobody_needs_and_stops_at_the_budget() -> None:
    learner, _ = trained(graph_config(price=0.02), 40)
    heard_by_0, heard_by_1 = links(learner)
    assert heard_by_0[1] < 0.5 < heard_by_1[0]
    free, _ = trained(graph_config(price=0.02, budget=1), 1)
    assert free.graph.penalty("pair") is not None
    with torch.no_grad():
        free.networks["pair"].links.weight.view(1, 2, 2)[:, 0, 1] = SHUT
    assert free.graph.open_links == 1
    assert free.graph.penalty("pair") is None


@pytest.mark.parametrize(
    ("between", "of", "links"),
    [
        ("seats", {"kind": "ring", "k": 2}, {"sensor": 6, "processor": 2, "actuator": 6}),
        ("seats", {"kind": "chain"}, {"sensor": 2, "processor": 1, "actuator": 3}),
        ("seats", {"kind": "full"}, {"sensor": 18, "processor": 6, "actuator": 18}),
        ("species", {"kind": "full"}, {"sensor": 3, "processor": 2, "actuator": 3}),  # one processor: not to itself
        ("species", {"kind": "chain"}, {"sensor": 1, "processor": 1, "actuator": 2}),
    ],
)
def test_links_that_the_topology_below_does_not_have_are_neither_counted_nor_charged(
    between: str, of: dict[str, Any], links: dict[str, int]
) -> None:
    topology = {"kind": "learned", "between": between, "of": of, "price": 0.01}
    config = PopulationPPOConfig().environment("factory_v0").communication(messages=SYMBOLS, topology=topology)
    graph = learner_of(config).graph
    assert graph.open_links == sum(links.values())
    linked = set()
    for name, many in links.items():
        assert graph.penalty(name).item() == pytest.approx(0.01 * 0.9 * many)
        told = graph.measures(name)
        assert told.pop("graph/open") == 1
        assert list(told.values()) == pytest.approx([0.9] * many)
        linked |= set(told)
    assert ("graph/sensor_0/sensor_1" in linked) == (between == "seats")
    pairs = graph.topology.of.connect(torch.ones(1, 7, dtype=torch.bool)).mask.sum()
    assert (graph.strengths() > 0).sum() == pairs


def test_where_links_follow_positions_or_differ_between_worlds_any_two_seats_may_be_linked() -> None:
    worlds = torch.zeros(2, 3, 3, dtype=torch.bool)
    worlds[0, 0, 1] = worlds[1, 1, 2] = True
    for of in ({"kind": "k_nearest", "k": 1}, {"kind": "custom", "adjacency": worlds.tolist()}):
        topology = make_topology({"kind": "learned", "of": of})
        assert isinstance(topology, Learned)
        assert torch.equal(topology.possible(3), ~torch.eye(3, dtype=torch.bool))
        topology.follow(0.9 * topology.possible(3).float(), pruned=True)
        assert topology.inbox_size(3) == 1
    ring = make_topology({"kind": "learned", "of": {"kind": "custom", "adjacency": worlds[0].tolist()}})
    assert isinstance(ring, Learned)
    assert ring.possible(3).nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("agent", ["mlp", "symbolic", "gru"])
@pytest.mark.parametrize("members", [1, 3])
def test_the_learner_hears_what_the_runner_heard(agent: str, members: int) -> None:
    """The log-probabilities of what was done, by the learner's unroll, with links of different strengths."""
    config = clock_config(agent=agent, members=members).communication(topology={"kind": "learned", "between": "seats"})
    check_that_both_hear_the_same(config)


@pytest.mark.parametrize(
    "settings",
    [
        {"topology": {"kind": "learned", "between": "seats"}, "rounds": 2},
        {"topology": {"kind": "learned", "strengths": GIVEN}},
        {"topology": {"kind": "learned", "strengths": GIVEN}, "rounds": 2},
        {"topology": {"kind": "learned", "between": "seats"}, "budget": 2},
    ],
)
def test_so_it_does_in_rounds_under_a_budget_and_where_the_graph_is_given(settings: dict[str, Any]) -> None:
    check_that_both_hear_the_same(clock_config(agent="mlp").communication(**settings))


def check_that_both_hear_the_same(config: Any) -> None:
    config.validate()
    runner, learner = runner_of(config), learner_of(config)
    for network in learner.networks.values():
        if learner.graph is not None:
            torch.nn.init.normal_(network.links.weight, generator=torch.Generator().manual_seed(1), std=0.2)
    for _ in range(2):
        runner.module.set_state(learner.module.get_state())
        arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    with torch.no_grad():
        run = learner._unroll(arrays)
    for name, unrolled in run.items():
        decided = learner.losses[name].decisions.relived(arrays[name], unrolled)
        alive = arrays[name]["alive"]
        torch.testing.assert_close(decided["action_logp"][alive], arrays[name]["action_logp"][alive], atol=2e-5, rtol=0)


def test_messages_through_a_graph_that_is_given_have_the_credit_of_those_through_one_that_is_learned() -> None:
    alike = {"kind": "learned", "strengths": (0.9 * (1 - torch.eye(4))).tolist()}
    found = []
    for topology in ({"kind": "learned", "between": "seats", "start": 0.9}, alike, "full"):
        config = clock_config(agent="mlp", gradient="reinforce", credit="counterfactual")
        runner = runner_of(config.communication(topology=topology))
        arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
        gained = [torch.ones_like(a["rewards"]) for a in arrays.values()]
        modules = dict(runner.module.items())
        found.append(counterfactual_credit(arrays, gained, config.plan, modules, torch.Generator().manual_seed(1))[0])
    by_learned, by_given, by_full = found
    torch.testing.assert_close(by_given, by_learned)
    assert (by_given - by_full).abs().max() > 1e-4


@pytest.mark.parametrize("rounds", [0, 1])
def test_who_hears_a_message_as_nothing_is_none_of_those_whom_its_sender_is_credited_with(rounds: int) -> None:
    """Of two seats the second hears the first, and the first hears nothing."""
    config = config_of("receivers").communication(
        topology={"kind": "learned", "strengths": [[0, 0.9], [0, 0]], "pruned": False}, rounds=rounds
    )
    config.validate()
    runner = runner_of(config)
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    learner_of(config)._add_advantages(arrays)
    pair = arrays["pair"]
    assert pair["inbox_mask"][:, 1].all()
    assert pair["message_advantages"][:, 0, 0].any()
    assert not pair["message_advantages"][..., 1].any()
    if not rounds:
        gained, modules = [torch.ones_like(pair["rewards"])], dict(runner.module.items())
        heard = counterfactual_credit(arrays, gained, config.plan, modules, torch.Generator())[1]
        assert heard[..., 0].any()
        assert not heard[..., 1].any()


def test_pruned_links_are_out_of_the_inbox_from_the_next_fragment_on() -> None:
    config = clock_config(agent="mlp").communication(
        topology={"kind": "learned", "between": "seats", "prune_at": 1, "price": 0.0}
    )
    config.validate()
    learner, runner = learner_of(config), runner_of(config)
    runner.sample()
    for network in learner.networks.values():
        network.links.weight.data.view(1, 2, 4)[:, :, 1:] = SHUT  # seat 0 alone is heard
    for steps, width in ((0, 3), (9, 3), (18, 1)):
        runner.module.set_state(learner.module.get_state())
        batch = runner.sample()
        a = batch.policy_batches["listener"]
        assert a["senders"].shape[-1] == width
        if width == 1:
            assert set(a["senders"][a["inbox_mask"]]) == {0}
            assert a["inbox_mask"].any()
        arrays = [batch]
        learner.update_from_fragments(arrays, [runner.num_worlds], 0, {"num_env_steps_sampled_lifetime": steps})
    strengths = learner.graph.strengths()
    assert learner.graph.pruned
    assert ((strengths > 0).sum() == 3).item()
    assert learner.graph.penalty("listener") is None


def test_a_budget_holds_before_links_are_pruned_and_what_is_released_afterwards_still_plays() -> None:
    links = {"kind": "learned", "between": "seats", "prune_at": 1, "price": 0.0}
    config = clock_config(agent="mlp").communication(topology=links, budget=2)
    config.validate()
    learner, runner = learner_of(config), runner_of(config)
    assert runner.sample().policy_batches["listener"]["senders"].shape[-1] == 2
    for network in learner.networks.values():
        network.links.weight.data.view(1, 2, 4)[:, :, 1:] = SHUT  # seat 0 alone is heard
    learner.graph.settle(1)
    runner.module.set_state(learner.module.get_state())
    assert runner.sample().policy_batches["listener"]["senders"].shape[-1] == 1
    rollout = population_of(config, learner.networks, Clock(0), []).rollout(worlds=4)
    rollout.begin()
    for _ in range(2):
        turn, _ = rollout.step()
    assert turn.mail is not None
    assert turn.mail.slots[turn.mail.mask].unique().tolist() == [0]


def test_a_budget_that_a_given_graph_never_reaches_is_told() -> None:
    alone = {"kind": "learned", "strengths": [[0, 1, 1, 1], *[[0] * 4] * 3]}
    config = clock_config(agent="mlp").communication(topology=alone, budget=2)
    with pytest.raises(UserError, match=r"budget is 2, and by the links of communication\.topology\.strengths an"):
        config.validate()


def test_whoever_takes_a_members_place_leaves_the_graph_as_it_is() -> None:
    config = clock_config(agent="mlp", members=2).communication(topology={"kind": "learned", "prune_at": 1})
    config.validate()
    learner = learner_of(config)
    network = learner.networks["listener"]
    network.links.weight.data[:, 0] = SHUT
    learner.graph.settle(1)
    before = {name: value.clone() for name, value in network.links.state_dict().items()}
    agent = {name: value.clone() for name, value in network.agent.state_dict().items()}
    newborns = Succession(np.array([-1, 0]), np.full(2, -1), False, 0, 0.5, 0.0, {}, seed=5)  # anew, and a mutant
    carry_out(newborns, network, [o for _, o in learner.get_optimizers_for_module("listener")])
    for name, value in network.links.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert any(not torch.equal(value, agent[name]) for name, value in network.agent.state_dict().items())


def test_a_member_whose_loss_is_not_finite_leaves_the_links_and_the_others_learning() -> None:
    config = clock_config(agent="mlp", members=4).communication(topology="learned").training(num_epochs=2)
    learner, runner = learner_of(config), runner_of(config)
    network = learner.networks["listener"]
    with torch.no_grad():
        network.agent.value_head.weight[1] = torch.nan
    before = network.links.weight.detach().clone()
    runner.module.set_state(learner.module.get_state())
    update(learner, runner, 0)
    assert (network.links.weight != before).any(1).tolist() == [True, False, True, True]
    assert network.links.weight.isfinite().all()


def test_a_run_state_and_weights_go_on_after_pruning_bit_for_bit() -> None:
    config = clock_config(agent="gru").communication(topology={"kind": "learned", "between": "seats", "prune_at": 1})
    runner, learner = runner_of(config), learner_of(config)
    with torch.no_grad():
        for network in learner.networks.values():
            network.links.weight[:, ::2] = SHUT
    learner.graph.settle(1)
    runner.module.set_state(learner.module.get_state())
    runner.sample()
    state, other = runner.run_state(), runner_of(config)
    other.module.set_state(runner.module.get_state())
    other.set_run_state(state)
    ours, theirs = runner.sample(), other.sample()
    for name, part in ours.policy_batches.items():
        for key, values in part.items():
            np.testing.assert_array_equal(values, theirs.policy_batches[name][key], err_msg=key)


@pytest.mark.parametrize("pruned", [False, True])
def test_what_is_released_has_the_graph_of_its_training(pruned: bool) -> None:
    learner, _ = trained(graph_config(prune_at=10**6), 2)
    with torch.no_grad():
        learner.networks["pair"].links.weight.view(1, 2, 2)[:, 0, 1] = SHUT
    learner.graph.settle(10**6 * pruned)
    population = population_of(learner.config, learner.networks, Clock(0), [])
    assert population.channel is not None
    told = population.channel.to_json()["topology"]
    again = make_topology(told)
    assert isinstance(again, Learned)
    assert again.is_given
    assert again.pruned == pruned
    torch.testing.assert_close(again.strengths, learner.graph.strengths().detach())
    rollout = population.rollout(worlds=4)
    rollout.begin()
    for _ in range(2):
        turn, _ = rollout.step()
    assert turn.mail is not None
    assert turn.mail.mask[:, 0].any() != pruned
    assert not turn.mail.gate[:, 0][turn.mail.mask[:, 0]].any()
    assert turn.mail.gate[:, 1].unique().tolist() == pytest.approx([links(learner)[1][0]])


@pytest.mark.parametrize("agent", ["mlp", "symbolic"])
@pytest.mark.parametrize("pruned", [False, True])
def test_what_is_released_does_what_it_did_in_training_before_and_after_pruning(agent: str, pruned: bool) -> None:
    """The same seed, and the same numbers; the links of two senders of three are shut."""
    config = clock_config(agent=agent).communication(topology={"kind": "learned", "between": "seats", "prune_at": 1})
    config.validate()
    learner, runner = learner_of(config), runner_of(config)
    with torch.no_grad():
        for network in learner.networks.values():
            network.links.weight.view(1, 2, 4)[:, :, 1:] = SHUT
    learner.graph.settle(int(pruned))
    runner.module.set_state(learner.module.get_state())
    batch = runner.sample().policy_batches
    population = population_of(config, learner.networks, Clock(0), [])
    rollout = population.rollout(seed=3, worlds=12)
    rollout.begin()
    for t in range(7):
        turn, _ = rollout.step()
        assert turn.mail is not None
        for name, species in runner.layout.species.items():
            np.testing.assert_array_equal(turn.mail.mask[:, species.seats], batch[name]["inbox_mask"][:, t])
            act = turn.acts[name]
            logp = runner.distributions[name].log_prob(act.thought.output.action_logits, act.actions, None)
            found = turn.seatings[name].to_worlds(logp)
            torch.testing.assert_close(found, torch.from_numpy(batch[name]["action_logp"][:, t]))


def test_strengths_of_an_export_that_does_not_say_so_are_those_of_a_pruned_graph() -> None:
    told = {"kind": "learned", "strengths": [[0, 0.9, 0], [0, 0, 0], [0, 0, 0]]}
    assert make_topology(told).inbox_size(3) == 1
    assert make_topology({**told, "pruned": True}).inbox_size(3) == 1
    assert make_topology({**told, "pruned": False}).inbox_size(3) == 2


def test_between_species_all_of_a_species_are_heard_alike() -> None:
    config = clock_config(agent="mlp", members=2).communication(topology="learned")
    config.validate()
    graph = learner_of(config).graph
    assert isinstance(graph, LearnedGraph)
    graph.links["listener"].weight.data[:, 0] = SHUT  # speakers first
    strengths = graph.strengths()
    assert strengths[:2, 2:].abs().max() == 0
    torch.testing.assert_close(strengths[2:, 2:], 0.9 * (1 - torch.eye(2)))
    told = graph.measures("listener")
    assert told["graph/speaker/listener"] == 0
    assert told["graph/open"] == 0.5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"threshold": 1.0}, "communication.topology.threshold is 1.0, and must lie between 0 and 1"),
        ({"start": 0}, "communication.topology.start is 0, and must lie between 0 and 1"),
        ({"between": "seat"}, "communication.topology.between is 'seat'; did you mean 'seats'"),
        ({"price": -1}, "communication.topology.price is -1"),
        ({"budget": 3, "price": 0}, "budget is 3, and price is 0"),
        ({"prune_at": 0}, "communication.topology.prune_at is 0"),
        ({"of": {"kind": "routed"}}, "communication.topology.of is Routed"),
        ({"strengths": [[0.0, 2.0], [0.0, 0.0]]}, "strengths must be numbers between 0 and 1"),
        ({"strengths": [0.0]}, r"strengths has shape \(1,\)"),
        ({"pruned": True}, "pruned is True, and is of strengths, which are not given"),
        ({"pruned": 1, "strengths": [[0.0, 0.5], [0.5, 0.0]]}, "communication.topology.pruned is 1, and must be"),
    ],
)
def test_a_graph_that_cannot_be_is_told(settings: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_topology({"kind": "learned", **settings})


def test_environments_for_others_have_no_graph_to_learn() -> None:
    with pytest.raises(UserError, match="topology learned is learned by popcomm's trainer"):
        with_messages(parallel_env(), {"kind": "symbols", "vocab_size": 2, "length": 1}, "learned")
