"""What every agent promises: members apart, inboxes as sets, silence, gradients from listeners to speakers."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from popcomm.agents import (
    AGENTS,
    Agent,
    AgentOutput,
    AgentSpec,
    AuxiliaryBatch,
    MLPAgent,
    PopulationLinear,
    SymbolicAgent,
    extract,
    insert,
)
from popcomm.agents.contract import decides_later, sees_first
from popcomm.channels import Inbox, Symbols, Vectors, Words
from popcomm.errors import UserError

P, R, K, O, S = 3, 4, 3, 6, 2
KINDS = {"symbols": Symbols(5, 3), "vectors": Vectors(4), "words": Words(6, 2, 3), "silent": None}
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "multi": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(-1, 1, (2,), np.float32),
}


# Of a collective members are seats of one network, or the network: tests/agents/test_bottom_up.py.
APART = [name for name, agent in AGENTS.items() if not getattr(agent, "collective", False)]
# Sizes that keep these tests quick, and kinds of messages that an agent does not speak.
SMALL = {"tiny": {"hidden_dim": 16, "num_heads": 4, "latent_tokens": 4, "depth": 2}, "gru": {"hidden": 16}}
UNSPOKEN = {("gru", "vectors"), ("gru", "words")}


def spoken(kinds):
    """(agent, kind) pairs that go together."""
    return pytest.mark.parametrize(("name", "kind"), [(n, k) for n in APART for k in kinds if (n, k) not in UNSPOKEN])


def spec_of(kind="symbols", members=P, actions="discrete"):
    messages = KINDS[kind]
    return AgentSpec(O, ACTIONS[actions], messages, K if messages else 0, members, S, 5, O if messages else 0)


def agent_of(name, kind="symbols", members=P, **config):
    generator = torch.Generator().manual_seed(0)
    spec = spec_of(kind, members, config.pop("actions", "discrete"))
    agent = AGENTS[name](spec, **SMALL.get(name, {}), **config, generator=generator)
    # Heads of small gain would hide differences behind tolerances.
    for parameter in agent.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=generator)
    return agent


def inbox_of(kind="symbols", members=P, rows=R, seed=0):
    messages = KINDS[kind]
    if messages is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(members, rows, K, *messages.params_shape, generator=generator)
    mask = torch.rand(members, rows, K, generator=generator) < 0.6
    mask[:, 0], mask[:, 1] = False, True
    soft = messages.soft(params).clone().requires_grad_()
    return Inbox(messages.sample(params, generator), torch.zeros_like(mask).long(), mask, soft)


def obs_of(members=P, seed=0):
    return torch.randn(members, R, O, generator=torch.Generator().manual_seed(seed))


def state_of(agent, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(v.shape, generator=generator) * 0.5 for k, v in agent.initial_state(R).items()}


def speak(agent, *inputs):
    """A step without chance: agents that speak symbol by symbol take the likeliest one each time."""
    return agent(*inputs, greedy=True) if getattr(agent, "autoregressive", False) else agent(*inputs)


def tensors(output: AgentOutput):
    named = {"logits": output.action_logits, "value": output.value, **output.state, **output.aux}
    return named if output.message is None else {**named, "message": output.message}


def batch_of(agent, kind="symbols", members=P):
    shapes = {"discrete": (R,), "multi": (R, 2), "box": (R, 2)}
    name = next(n for n, s in ACTIONS.items() if s == agent.spec.action_space)
    actions = torch.ones(members, *shapes[name], dtype=torch.float32 if name == "box" else torch.int64)
    inbox, real = inbox_of(kind, members), torch.ones(members, R, dtype=torch.bool)
    sender = None if inbox is None else torch.randn(members, R, K, O, generator=torch.Generator().manual_seed(8))
    return AuxiliaryBatch(
        obs=obs_of(members),
        next_obs=obs_of(members, 1),
        next_mask=real.clone(),
        actions=actions,
        inbox=inbox,
        sender_obs=sender,
        sender_obs_mask=None if sender is None else torch.ones_like(sender, dtype=torch.bool),
        world_state=torch.randn(members, R, S, generator=torch.Generator().manual_seed(9)),
        mask=real,
    )


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("members", [1, P])
@spoken(KINDS)
def test_agents_meet_the_contract(name, members, kind, actions):
    agent = agent_of(name, kind, members, actions=actions)
    assert isinstance(agent, Agent)
    output = agent(obs_of(members), inbox_of(kind, members), agent.initial_state(R))
    assert output.action_logits.shape == (members, R, agent.spec.action_params_size)
    assert output.value.shape == (members, R)
    assert output.state.keys() == agent.initial_state(R).keys()
    if kind == "silent":
        assert output.message is None
    else:
        assert output.message.shape == (members, R, *KINDS[kind].params_shape)
    for value in [*output.state.values(), *output.aux.values()]:
        assert value.shape[:2] == (members, R)
    for loss in agent.auxiliary_losses(batch_of(agent, kind, members), output).values():
        assert loss.shape == (members,)
        assert loss.isfinite().all()
    assert all(parameter.shape[0] == members for parameter in agent.parameters())
    assert not list(agent.buffers())


@spoken(KINDS)
def test_a_member_alone_acts_as_it_does_in_the_population(name, kind):
    crowd, alone = agent_of(name, kind), agent_of(name, kind, members=1)
    insert(alone, 0, extract(crowd, 2))
    inbox, state = inbox_of(kind), state_of(crowd)
    own = None if inbox is None else Inbox(*(None if part is None else part[2:3] for part in inbox))
    together = tensors(speak(crowd, obs_of(), inbox, state))
    apart = tensors(speak(alone, obs_of()[2:3], own, {k: v[2:3] for k, v in state.items()}))
    for key, value in apart.items():
        torch.testing.assert_close(value[0], together[key][2])


@pytest.mark.parametrize("name", APART)
def test_permuting_members_permutes_outputs(name):
    agent, order = agent_of(name), torch.tensor([2, 0, 1])
    inbox, state = inbox_of(), state_of(agent)
    before = tensors(speak(agent, obs_of(), inbox, state))
    for parameter in agent.parameters():
        parameter.data = parameter.data[order]
    shuffled = Inbox(*(None if part is None else part[order] for part in inbox))
    after = tensors(speak(agent, obs_of()[order], shuffled, {k: v[order] for k, v in state.items()}))
    for key, value in after.items():
        torch.testing.assert_close(value, before[key][order])


@spoken(["symbols", "vectors"])
def test_what_lies_in_a_masked_slot_changes_nothing(name, kind):
    agent, inbox = agent_of(name, kind), inbox_of(kind)
    state, other = state_of(agent), inbox_of(kind, seed=7)
    real = inbox.mask.view(*inbox.mask.shape, *[1] * len(KINDS[kind].shape))
    changed = inbox._replace(messages=torch.where(real, inbox.messages, other.messages))
    assert not torch.equal(changed.messages, inbox.messages)
    before, after = (tensors(speak(agent, obs_of(), box, state)) for box in (inbox, changed))
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", APART)
def test_what_is_heard_changes_what_is_done(name):
    agent, state = agent_of(name), None
    state = state_of(agent)
    heard, other = inbox_of(), inbox_of(seed=7)
    one = agent(obs_of(), heard, state)
    two = agent(obs_of(), heard._replace(messages=other.messages), state)
    assert not torch.allclose(one.action_logits[:, 1], two.action_logits[:, 1])
    # Row 0 has an empty inbox.
    assert torch.equal(one.action_logits[:, 0], two.action_logits[:, 0])


@pytest.mark.parametrize("name", APART)
def test_the_order_of_the_inbox_does_not_matter(name):
    agent, inbox, order = agent_of(name), inbox_of(), torch.tensor([1, 2, 0])
    state = state_of(agent)
    before = tensors(speak(agent, obs_of(), inbox, state))
    after = tensors(
        speak(agent, obs_of(), Inbox(*(None if part is None else part[:, :, order] for part in inbox)), state)
    )
    for key, value in after.items():
        torch.testing.assert_close(value, before[key][..., order] if key == "attention" else before[key])


@spoken(["symbols", "vectors"])
def test_an_empty_inbox_gives_numbers_and_gradients_without_nan(name, kind):
    agent, inbox = agent_of(name, kind), inbox_of(kind)
    empty = inbox._replace(mask=torch.zeros_like(inbox.mask))
    output = agent(obs_of(), empty, agent.initial_state(R))
    batch = batch_of(agent, kind)._replace(inbox=empty)
    losses = agent.auxiliary_losses(batch, output).values()
    sum([t.sum() for t in tensors(output).values()] + [loss.sum() for loss in losses]).backward()
    assert all(t.isfinite().all() for t in tensors(output).values())
    assert all(p.grad.isfinite().all() for p in agent.parameters() if p.grad is not None)
    same = agent(obs_of(), None, agent.initial_state(R))
    torch.testing.assert_close(same.action_logits, output.action_logits)


@pytest.mark.parametrize("name", APART)
def test_a_members_loss_leaves_every_other_member_alone(name):
    agent, inbox = agent_of(name), inbox_of()
    output = agent(obs_of(), inbox, state_of(agent))
    losses = agent.auxiliary_losses(batch_of(agent)._replace(inbox=inbox), output).values()
    loss = sum(loss[1] for loss in losses) + sum(t[1].sum() for t in tensors(output).values())
    loss.backward()
    for key, parameter in agent.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad[1].any(), key
        assert not parameter.grad[[0, 2]].any(), key


@spoken(["symbols", "vectors"])
def test_the_listeners_policy_loss_reaches_the_speaker_through_real_slots_only(name, kind):
    agent, inbox = agent_of(name, kind), inbox_of(kind)
    agent(obs_of(), inbox, state_of(agent)).action_logits.square().sum().backward()
    reached = inbox.soft.grad.flatten(3).abs().sum(-1) > 0
    assert torch.equal(reached, inbox.mask)


@pytest.mark.parametrize("kind", ["symbols", "silent"])
@pytest.mark.parametrize("name", ["symbolic", "mlp", "commnet", "ic3net", "tarmac", "heterogeneous"])
def test_what_is_decided_later_is_what_is_decided_at_once(name, kind):
    agent = agent_of(name, kind)
    arguments = obs_of(), inbox_of(kind), state_of(agent)
    output, undecided = agent(*arguments), agent(*arguments, undecided=True)
    assert decides_later(agent)
    assert not undecided.action_logits.numel() + undecided.value.numel()
    logits, value = agent.decide(arguments[0], undecided.aux)
    for got, expected in zip((logits, value), (output.action_logits, output.value), strict=True):
        torch.testing.assert_close(got, expected, atol=0, rtol=0)


def test_an_agent_with_a_forward_of_its_own_decides_in_every_step():
    class Own(MLPAgent):
        def forward(self, obs, inbox, state):
            return super().forward(obs, inbox, state)

    assert not decides_later(Own(spec_of()))
    assert not sees_first(Own(spec_of()))


@pytest.mark.parametrize("kind", ["symbols", "silent"])
@pytest.mark.parametrize("name", ["symbolic", "mlp"])
def test_what_was_seen_before_is_not_looked_at_again(name, kind):
    agent = agent_of(name, kind)
    obs, inbox, state = obs_of(), inbox_of(kind), state_of(agent)
    later = agent(torch.full_like(obs, torch.nan), inbox, state, undecided=True, seen=agent.see(obs))
    torch.testing.assert_close(later.message, agent(obs, inbox, state).message, atol=0, rtol=0)
    logits, value = agent.decide(obs, later.aux)
    output = agent(obs, inbox, state)
    torch.testing.assert_close((logits, value), (output.action_logits, output.value), atol=0, rtol=0)


@pytest.mark.parametrize("name", APART)
def test_silence_takes_away_the_message_modules_and_nothing_else(name):
    def shapes(kind):
        return {k: v.shape for k, v in agent_of(name, kind).named_parameters()}

    speaking, silent = shapes("symbols"), shapes("silent")
    assert silent.items() <= speaking.items()
    gone = {key.split(".")[0] for key in speaking.keys() - silent.keys()}
    assert (
        gone
        == {
            "gru": {"reader", "see", "speech"},
            "mlp": {"encoder", "heard", "message_head"},
            "symbolic": {"encoder", "query", "decoder", "message_head"},
            "commnet": {"encoder", "message_head"},
            "ic3net": {"encoder", "message_head"},
            "tarmac": {"encoder", "query", "message_head"},
            "heterogeneous": {"codec"},
            "tiny": {"encoder", "decoder", "message_head"},
        }[name]
    )


@pytest.mark.parametrize("name", APART)
def test_the_generator_alone_decides_the_initial_weights(name):
    first = AGENTS[name](spec_of(), **SMALL.get(name, {}), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    again = AGENTS[name](spec_of(), **SMALL.get(name, {}), generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(*next(iter(first.parameters()))[:2])


@pytest.mark.parametrize("name", APART)
def test_policies_start_undecided_but_not_blind(name):
    """Nine tenths of the largest entropy, and different probabilities in different situations."""
    agent = AGENTS[name](spec_of(), **SMALL.get(name, {}), generator=torch.Generator().manual_seed(1))
    p = agent(obs_of(), inbox_of(), agent.initial_state(R)).action_logits.softmax(-1).detach()
    assert -(p * p.log()).sum(-1).mean() > 0.9 * math.log(4)
    assert (p.std(1).mean(-1) > 0.02).all()


def test_the_mlp_agents_actor_and_critic_are_separate_networks():
    agent = agent_of("mlp", "silent")
    agent(obs_of(), None, {}).action_logits.sum().backward()
    assert agent.critic.weight.grad is None
    assert not agent.first.weight.grad[..., agent.hidden :].any()
    assert agent.first.weight.grad[..., : agent.hidden].any()


def test_the_mlp_agent_is_torchs_two_networks():
    agent = agent_of("mlp", "silent", members=1)
    weights = extract(agent, 0)

    def network(half, body, head, outputs):
        layers = nn.Sequential(nn.Linear(O, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))
        first = {f"0.{k}": weights[f"first.{k}"][half] for k in ("weight", "bias")}
        rest = {f"{i}.{k}": weights[f"{n}.{k}"] for i, n in ((2, body), (4, head)) for k in ("weight", "bias")}
        layers.load_state_dict({**first, **rest})
        return layers(obs_of(1)[0])

    output = agent(obs_of(1), None, {})
    torch.testing.assert_close(output.action_logits[0], network(slice(0, 64), "actor", "policy_head", 4))
    torch.testing.assert_close(output.value[0], network(slice(64, 128), "critic", "value_head", 1).squeeze(-1))


def test_wrong_agent_configs_are_refused_in_the_users_words():
    with pytest.raises(UserError, match="num_heads is 5, and must divide hidden_dim = 64"):
        SymbolicAgent(spec_of(), num_heads=5)
    with pytest.raises(UserError, match="world_weight is -1"):
        SymbolicAgent(spec_of(), world_weight=-1)
    with pytest.raises(UserError, match="hidden is 0"):
        MLPAgent(spec_of(), hidden=0)
    with pytest.raises(UserError, match="did you mean 'relu'"):
        MLPAgent(spec_of(), activation="rellu")


class Toy(nn.Module):
    """The least agent that a user can bring."""

    def __init__(self, spec):
        super().__init__()
        self.head = PopulationLinear(spec.members, spec.obs_size, spec.action_params_size + 1)

    def initial_state(self, rows):
        return {}

    def forward(self, obs, inbox, state):
        *_, last = out = self.head(obs).split([4, 1], -1)
        return AgentOutput(out[0], None, last.squeeze(-1), {}, {})

    def auxiliary_losses(self, batch, outputs):
        return {}


def test_a_users_agent_satisfies_the_contract_and_one_without_losses_does_not():
    toy = Toy(spec_of("silent"))
    assert isinstance(toy, Agent)
    assert toy(obs_of(), None, {}).action_logits.shape == (P, R, 4)
    assert not isinstance(nn.Linear(1, 1), Agent)
