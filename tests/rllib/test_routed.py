"""The routed channel in the trainer: what is heard, by whom, with which gradients, and who may use it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from popcomm.agents import AgentSpec, SymbolicAgent, TinyAgent
from popcomm.agents.inbox import inbox_of
from popcomm.channels import Channel, Routed, RoutedInbox, Symbols
from popcomm.envs import swarm_v0, with_messages
from popcomm.errors import UserError
from popcomm.rllib import species_walk, unroll
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import Unroller
from tests.rllib.test_learner import changed, learner_of, update, weights
from tests.rllib.test_rollout import clock_config, fragments, runner_of

SMALL: dict[str, dict[str, Any]] = {
    "symbolic": {"hidden_dim": 8, "num_heads": 2},
    "tiny": {"hidden_dim": 8, "num_heads": 2, "latent_tokens": 2, "depth": 1, "memory": "flare"},
}


def routed_config(agent: str = "symbolic", **rest: Any) -> Any:
    config = clock_config(agent=agent, agent_config=SMALL.get(agent, {}), **rest)
    return config.communication(topology={"kind": "routed", "latents": 4})


def mean_of_others(hidden: Tensor, said: Tensor, present: Tensor) -> Tensor:
    """What a hearing without weights would tell: the mean of what all others say."""
    spoken = said * present.unsqueeze(-1)
    count = (present.sum(1, keepdim=True) - present.long()).clamp(min=1).unsqueeze(-1)
    return (spoken.sum(2, keepdim=True) - spoken) / count


def numbers(messages: Tensor, soft: Tensor | None) -> Tensor:
    return messages.float()


def test_who_is_on_the_air_is_all_that_the_links_say() -> None:
    channel = Channel(Symbols(5, 2), Routed(4), num_agents=3)
    sent = torch.tensor([[True, False, True]])
    links = channel.connect(sent, torch.tensor([[False, True, True]]))
    assert channel.inbox_size == 1
    assert links.senders.tolist() == [[[0], [1], [2]]]
    assert torch.equal(links.mask[..., 0], sent)


def test_listeners_of_one_species_hear_all_others_of_both() -> None:
    """Seats 0 and 1 are another species; what seats 2 and 3 hear is the mean of the three others on the air."""
    posted = torch.tensor([[[1.0], [2.0], [4.0], [8.0]], [[1.0], [2.0], [4.0], [8.0]]])
    present = torch.tensor([[True] * 4, [True, False, True, True]])
    hears = torch.tensor([[True] * 4, [True, True, True, False]])
    inbox = RoutedInbox(posted, present, hears, slice(2, 4))
    heard = inbox.hear(mean_of_others, torch.zeros(1, 4, 1), numbers)
    # Seat 3 of the second world has just been born.
    torch.testing.assert_close(heard.flatten(), torch.tensor([11 / 3, 7 / 3, 9 / 2, 0.0]))


@pytest.mark.parametrize("rounds", [0, 1])
def test_nobody_on_an_empty_seat_listens_in_the_runner_and_in_the_unroll(rounds: int) -> None:
    config = routed_config(rounds=rounds).environment("traffic_junction_v0", env_config={"max_steps": 9})
    runner = runner_of(config)
    players, heard = runner.rollout.players, []
    act = players.act

    def watched() -> Any:
        turn = act()
        heard.append((turn.rounds[-1].mail if rounds else turn.mail).hears)
        return turn

    players.act = watched
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    unroller = Unroller(dict(runner.module.items()), {"car": slice(0, 5)}, config.plan.message_kind, through=False)
    listens: list[Tensor] = []

    def remember(mail: Any, *rest: Any) -> Any:
        listens.append(mail.hears)
        return inbox_of(mail, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        for module in (unroll, species_walk):
            patch.setattr(module, "inbox_of", remember)
        unroller.run(arrays)
    alive = arrays["car"]["alive"]
    lives = alive if rounds else alive & ~arrays["car"]["first"][:, :-1]
    in_runner = torch.stack(heard, 1)
    there = alive.any(2)  # else it is the row for a last value
    assert torch.equal(in_runner[there], lives[there])
    assert torch.equal(torch.stack(listens[rounds :: rounds + 1], 1).view_as(lives), lives)
    assert int((~alive[there]).sum()) > 30


@pytest.mark.parametrize("agent", SMALL)
def test_the_unroll_repeats_what_the_runner_did(agent: str) -> None:
    config = routed_config(agent, gradient="reinforce", dropout=0.2, env_config={"death": 2})
    runner = runner_of(config)
    for fragment in fragments(runner, 3):
        arrays = {name: as_tensors(a) for name, a in fragment.items()}
        networks = {name: runner.module[name] for name in arrays}
        seats = {name: s.seats for name, s in runner.layout.species.items()}
        for name, run in Unroller(networks, seats, config.message_kind, through=True).run(arrays).items():
            rows, mask = Rows(arrays[name], run.places, 1), run.mask
            log_prob = runner.distributions[name].log_prob(run.outputs.action_logits, rows["actions"])
            torch.testing.assert_close(log_prob[mask], rows["action_logp"][mask], atol=1e-5, rtol=1e-5)
            said = config.message_kind.log_prob(run.outputs.message, rows.sent())
            torch.testing.assert_close(said[mask], rows["message_logp"][mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("agent", [SymbolicAgent, TinyAgent])
def test_gradients_reach_those_who_are_on_the_air(agent: type) -> None:
    kind = Symbols(5, 2)
    spec = AgentSpec.of(
        swarm_v0.SwarmWorld(num_agents=4).species["swarm"], messages=kind, inbox_size=1, num_agents=4, latents=3
    )
    network = agent(spec, **SMALL["symbolic" if agent is SymbolicAgent else "tiny"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    params = torch.randn(1, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    soft = kind.soft(params).requires_grad_()
    present = torch.tensor([[True, True, False, True]])
    hears = torch.tensor([[True, False, True, True]])
    inbox = RoutedInbox(kind.sample(params), present, hears, slice(0, 4), soft)
    obs = torch.randn(1, 4, spec.obs_size, generator=torch.Generator().manual_seed(2))
    out = network(obs, inbox, network.initial_state(4))
    # Seat 1 does not hear: nothing of what others say is in what it does.
    (heard_by_one,) = torch.autograd.grad(out.action_logits[:, 1].square().sum(), soft, retain_graph=True)
    assert not heard_by_one.any()
    (heard_by_two,) = torch.autograd.grad(out.action_logits[:, 2].square().sum(), soft)
    assert (heard_by_two.flatten(2).abs().sum(-1) > 0).tolist() == present.tolist()


def test_an_update_reaches_the_words_through_what_listeners_make_of_them() -> None:
    config = routed_config(gradient="straight_through")
    runner, learner = runner_of(config), learner_of(config)
    update(learner, runner)
    before = weights(learner.networks["speaker"])
    update(learner, runner)
    assert "agent.message_head.weight" in changed(learner.networks["speaker"], before)
    assert "agent.hearing.latents" in changed(learner.networks["speaker"], before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.population(members=3), "members of 'speaker' is 3, and with topology routed it must be 1"),
        (lambda c: c.population(agent="mlp", agent_config={}), "MLPAgent, which cannot hear through topology routed"),
        (lambda c: c.communication(topology={"kind": "routed", "latents": 0}), "topology.latents is 0, and must be at"),
    ],
)
def test_what_cannot_be_routed_is_refused_before_work_starts(change: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        change(routed_config()).validate()


def test_with_messages_has_inboxes_to_fill_and_refuses_a_channel_without() -> None:
    with pytest.raises(UserError, match="topology routed has no inboxes"):
        with_messages(swarm_v0.parallel_env(num_agents=3), Symbols(4, 1), Routed(4))
