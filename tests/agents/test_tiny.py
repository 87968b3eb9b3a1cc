"""TinyAgent: its tokens, its memory, its heads and sizes, and that it learns to repeat what it hears."""

import dataclasses

import pytest
import torch
from gymnasium import spaces

from popcomm.agents import AgentSpec, AuxiliaryBatch
from popcomm.agents.population import extract, insert
from popcomm.agents.tiny import TinyAgent
from popcomm.channels import Inbox, PostedInbox, Symbols, Vectors, Words

R, K, O, S, C, L, V = 4, 3, 6, 2, 16, 3, 5
KINDS = {"symbols": Symbols(V, L), "vectors": Vectors(4), "words": Words(6, 2, 3)}


def agent_of(kind="symbols", members=1, speaks=True, hears=True, **config):
    generator = torch.Generator().manual_seed(0)
    messages = KINDS.get(kind)
    spec = AgentSpec(
        O, spaces.Discrete(4), messages, K if messages else 0, members, S, 5, O if messages else 0, speaks, hears
    )
    sizes = {"hidden_dim": C, "num_heads": 4, "latent_tokens": 3, "depth": 2, **config}
    agent = TinyAgent(spec, **sizes, generator=generator)
    for parameter in agent.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape, generator=generator)
    return agent


def inbox_of(kind="symbols", members=1, rows=R, seed=0, soft=False):
    generator = torch.Generator().manual_seed(seed)
    params = torch.randn(members, rows, K, *KINDS[kind].params_shape, generator=generator)
    mask = torch.rand(members, rows, K, generator=generator) < 0.6
    mask[:, 0], mask[:, 1] = False, True
    senders = torch.randint(5, mask.shape, generator=generator)
    messages = KINDS[kind].sample(params, generator)
    return Inbox(messages, senders, mask, KINDS[kind].soft(params).requires_grad_() if soft else None)


def obs_of(members=1, seed=0):
    return torch.randn(members, R, O, generator=torch.Generator().manual_seed(seed))


def numbers(output):
    named = {"logits": output.action_logits, "value": output.value, **output.state, **output.aux}
    return named if output.message is None else {**named, "message": output.message}


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], **tolerance)


# ---- tokens ----


def test_a_symbols_token_is_the_symbol_plus_its_position_plus_the_sender():
    agent, inbox = agent_of(members=2), inbox_of(members=2)
    tokens, mask = agent.encoder(inbox)
    assert tokens.shape == (2, R, K * L, C)
    encoder, p, r, k, l = agent.encoder, 1, 2, 1, 2
    expected = (
        encoder.symbols.weight[p, inbox.messages[p, r, k, l]]
        + encoder.positions.weight[p, l]
        + encoder.senders.weight[p, inbox.senders[p, r, k]]
    )
    torch.testing.assert_close(tokens[p, r, k * L + l], expected)
    assert torch.equal(mask.view(2, R, K, L), inbox.mask.unsqueeze(-1).expand(2, R, K, L))


def test_a_vectors_token_is_a_linear_map_plus_the_sender():
    agent, inbox = agent_of("vectors"), inbox_of("vectors")
    tokens, mask = agent.encoder(inbox)
    expected = inbox.messages[0, 1, 2] @ agent.encoder.numbers.weight[0]
    torch.testing.assert_close(tokens[0, 1, 2], expected + agent.encoder.senders.weight[0, inbox.senders[0, 1, 2]])
    assert torch.equal(mask, inbox.mask)


def test_a_words_token_is_a_linear_map_of_its_bits_plus_the_sender():
    agent, inbox = agent_of("words"), inbox_of("words")
    tokens, mask = agent.encoder(inbox)
    bits = KINDS["words"].straight_through(inbox.messages, None)
    expected = bits[0, 1, 2] @ agent.encoder.numbers.weight[0]
    torch.testing.assert_close(tokens[0, 1, 2], expected + agent.encoder.senders.weight[0, inbox.senders[0, 1, 2]])
    assert torch.equal(mask, inbox.mask)


def test_symbols_pass_gradients_to_their_senders_as_one_hots_would():
    agent, inbox = agent_of(members=2), inbox_of(members=2, soft=True)
    weight = torch.randn(2, R, K * L, C, generator=torch.Generator().manual_seed(4))
    tokens, _ = agent.encoder(inbox)
    (tokens * weight).sum().backward()
    one_hot = KINDS["symbols"].straight_through(inbox.messages, inbox.soft.detach()).requires_grad_()
    symbols = torch.einsum("prklv,pvc->prklc", one_hot, agent.encoder.symbols.weight.detach())
    (symbols.flatten(2, 3) * weight).sum().backward()
    torch.testing.assert_close(inbox.soft.grad, one_hot.grad)
    torch.testing.assert_close(tokens, agent.encoder(inbox._replace(soft=None))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_posted_inbox_is_read_as_any_other(kind):
    agent, generator = agent_of(kind), torch.Generator().manual_seed(3)
    posted = KINDS[kind].sample(torch.randn(7, *KINDS[kind].params_shape, generator=generator))
    index, plain = torch.randint(7, (1, R, K), generator=generator), inbox_of(kind)
    soft = torch.rand(7, *KINDS[kind].features_shape, generator=generator).requires_grad_()
    shared = PostedInbox(posted, index, plain.senders, plain.mask, soft)
    copied = Inbox(posted[index], plain.senders, plain.mask, soft.detach()[index].requires_grad_())
    one, two = (agent(obs_of(), inbox, {}) for inbox in (shared, copied))
    assert_same(numbers(one), numbers(two))
    for output in (one, two):
        output.action_logits.square().sum().backward()
    gathered = torch.zeros_like(soft).index_add(0, index.flatten(), copied.soft.grad.flatten(0, 2))
    assert gathered.any()
    torch.testing.assert_close(soft.grad, gathered)


def test_the_inbox_is_a_set_of_messages_with_senders():
    agent, inbox, order = agent_of(members=3), inbox_of(members=3), torch.tensor([1, 2, 0])
    turned = Inbox(*(part[:, :, order] for part in inbox[:3]))
    with torch.no_grad():
        before, after = (numbers(agent(obs_of(3), box, {})) for box in (inbox, turned))
    after["attention"] = after["attention"][..., order.argsort()]
    assert_same(before, after)
    others = agent(obs_of(3), inbox._replace(senders=inbox.senders[:, :, order]), {})
    assert not torch.allclose(others.action_logits[:, 1], before["logits"][:, 1])


@pytest.mark.parametrize("memory", ["none", "flare"])
def test_what_lies_in_masked_slots_changes_nothing(memory):
    agent, inbox, other = agent_of(members=3, memory=memory), inbox_of(members=3), inbox_of(members=3, seed=7)
    real = inbox.mask.unsqueeze(-1)
    changed = Inbox(
        torch.where(real, inbox.messages, other.messages),
        torch.where(inbox.mask, inbox.senders, other.senders),
        inbox.mask,
    )
    assert not torch.equal(changed.messages, inbox.messages)
    state = agent.initial_state(R)
    with torch.no_grad():
        assert_same(*(numbers(agent(obs_of(3), box, state)) for box in (inbox, changed)), rtol=0, atol=0)


def test_a_larger_inbox_than_at_construction_is_read_too():
    agent, inbox = agent_of(), inbox_of()
    padded = Inbox(*(torch.cat([part, torch.zeros_like(part)], 2) for part in inbox[:3]))
    assert_same(numbers(agent(obs_of(), inbox, {})), numbers(agent(obs_of(), padded, {})))


def test_attention_is_the_first_blocks_routing_matrix_from_messages_to_the_observation():
    agent, inbox = agent_of(members=2), inbox_of(members=2)
    with torch.no_grad():
        attention = agent(obs_of(2), inbox, {}).aux["attention"]
        tokens, mask = agent._tokens(obs_of(2), inbox, {})
        block, p, r = agent.blocks[0], 1, 1
        x = block.attention_norm(tokens)
        k = block.attention.key(x)[p, r].view(-1, 4, C // 4)
        q = block.attention.latent_q[p].view(4, 3, C // 4)
        s = torch.einsum("nhd,hmd->hnm", k, q) * block.attention.scale
    assert mask[p, r].all()
    routing = torch.einsum("hnm,hkm->hnk", s.softmax(-1), s.softmax(-2)).mean(0)
    slots = routing[0, 1:].view(K, L).sum(-1)
    torch.testing.assert_close(attention[p, r], slots / slots.sum())
    torch.testing.assert_close(attention.sum(-1), inbox.mask.any(-1).float())
    assert not attention[~inbox.mask].any()
    assert "attention" not in agent(obs_of(2), inbox, {}).aux


def test_the_read_out_is_the_first_token_of_the_whole_stack():
    agent, inbox = agent_of(members=2, depth=3), inbox_of(members=2)
    tokens, mask = agent._tokens(obs_of(2), inbox, {})
    for block in agent.blocks:
        tokens = block(tokens, mask)
    torch.testing.assert_close(agent(obs_of(2), inbox, {}).aux["hidden"], agent.norm(tokens[:, :, 0]))


# ---- members, memory, heads ----


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_alone_acts_as_it_does_in_the_population(kind):
    head = "autoregressive" if kind == "symbols" else "parallel"
    crowd, alone = (agent_of(kind, p, memory="flare", message_head=head) for p in (3, 1))
    insert(alone, 0, extract(crowd, 2))
    inbox, said = inbox_of(kind, 3), torch.zeros(3, R, L, dtype=torch.int64)
    one, all_ = alone.initial_state(R), crowd.initial_state(R)
    for step in range(2):
        apart = alone(obs_of(3, step)[2:], Inbox(*(part[2:] for part in inbox[:3])), one, said=said[2:])
        together = crowd(obs_of(3, step), inbox, all_, said=said)
        one, all_ = apart.state, together.state
        assert_same({k: v[0] for k, v in numbers(apart).items()}, {k: v[2] for k, v in numbers(together).items()})


def test_every_parameter_has_the_members_first_and_gets_a_gradient_of_its_own_member():
    agent, inbox = agent_of(members=3, memory="flare", message_head="autoregressive"), inbox_of(members=3, soft=True)
    assert all(parameter.shape[0] == 3 for parameter in agent.parameters())
    assert not list(agent.buffers())
    state = agent(obs_of(3), inbox, agent.initial_state(R)).state
    output = agent(obs_of(3, 1), inbox, state, said=inbox.messages[:, :, 0])
    losses = agent.auxiliary_losses(batch_of(3, inbox), output)
    assert losses.keys() == {"prediction", "world_model", "reconstruction", "message_cost"}
    (sum(loss[1] for loss in losses.values()) + sum(t[1].sum() for t in numbers(output).values())).backward()
    for name, parameter in agent.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad[1].any(), name
        assert not parameter.grad[[0, 2]].any(), name


def test_without_a_memory_there_is_no_state_and_steps_are_apart():
    agent = agent_of()
    assert agent.initial_state(R) == {}
    assert agent(obs_of(), inbox_of(), {}).state == {}


def test_the_memory_holds_what_was_heard_for_the_rest_of_the_episode():
    agent = agent_of(memory="flare")

    def third_step(inbox):
        state = agent.initial_state(R)
        for step, heard in enumerate((inbox, None, None)):
            output = agent(obs_of(seed=step), heard, state)
            assert output.state.keys() == state.keys()
            assert all(output.state[key].shape == state[key].shape for key in state)
            # Without the token of the last reading, only the stored latents are left to remember.
            state = {**output.state, "read": torch.zeros_like(output.state["read"])}
        return output.action_logits

    assert not torch.allclose(third_step(inbox_of(seed=1))[:, 1], third_step(inbox_of(seed=2))[:, 1], atol=1e-4)


def test_what_was_read_one_step_before_is_a_token():
    agent, state = agent_of(memory="flare"), agent_of(memory="flare").initial_state(R)
    other = {**state, "read": torch.ones_like(state["read"])}
    assert not torch.allclose(*(agent(obs_of(), None, s).action_logits for s in (state, other)), atol=1e-4)


def test_a_row_that_was_reset_is_a_fresh_one():
    agent = agent_of(members=3, memory="flare")
    used = agent(obs_of(3), inbox_of(members=3), agent.initial_state(R)).state
    assert all(value.isfinite().all() for value in [*used.values(), *agent.initial_state(R).values()])
    first = torch.tensor([True, False, True, False]).expand(3, R)
    start = agent.initial_state(R)
    mixed = {k: torch.where(first.view(3, R, *[1] * (v.ndim - 2)), start[k].to(v.dtype), v) for k, v in used.items()}
    after, fresh, kept = (numbers(agent(obs_of(3, 1), None, state)) for state in (mixed, start, used))
    for key, value in after.items():
        torch.testing.assert_close(value[:, ::2], fresh[key][:, ::2])
        torch.testing.assert_close(value[:, 1::2], kept[key][:, 1::2])


def test_the_autoregressive_head_says_and_recites_the_same_distribution():
    agent = agent_of(members=3, message_head="autoregressive")
    assert agent.autoregressive
    output = agent(obs_of(3), inbox_of(members=3), {}, generator=torch.Generator().manual_seed(0))
    again = agent(obs_of(3), inbox_of(members=3), {}, said=output.said)
    assert output.said.shape == (3, R, L)
    assert torch.equal(again.said, output.said)
    torch.testing.assert_close(again.message, output.message)
    likeliest = agent(obs_of(3), None, {}, greedy=True)
    assert torch.equal(likeliest.said, likeliest.message.argmax(-1))


def test_the_parallel_head_leaves_speaking_to_the_kind():
    agent = agent_of()
    assert not agent.autoregressive
    assert agent(obs_of(), None, {}).said is None


@pytest.mark.parametrize("head", ["parallel", "autoregressive"])
def test_who_never_speaks_or_never_hears_has_no_parts_for_it(head):
    def parts(**config):
        return {name.split(".")[0] for name, _ in agent_of(message_head=head, **config).named_parameters()}

    everything = parts()
    assert everything - parts(speaks=False) == {"message_head"}
    assert everything - parts(hears=False) == {"encoder", "decoder"}
    assert everything - parts(kind="silent") == {"encoder", "decoder", "message_head"}
    mute = agent_of(message_head=head, speaks=False)
    output = mute(obs_of(), inbox_of(), {})
    assert not mute.autoregressive
    assert output.message is output.said is None
    deaf = agent_of(message_head=head, hears=False)
    said = torch.zeros(1, R, L, dtype=torch.int64)
    assert_same(*(numbers(deaf(obs_of(), inbox, {}, said=said)) for inbox in (None, inbox_of())))


def test_the_value_trains_the_critic_only():
    agent = agent_of()
    agent(obs_of(), inbox_of(), {}).value.sum().backward()
    assert {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None} == {"critic"}


# ---- grounding ----


def batch_of(members, inbox):
    real = torch.ones(members, R, dtype=torch.bool)
    sender = torch.randn(members, R, K, O, generator=torch.Generator().manual_seed(8))
    actions, world = torch.ones(members, R, dtype=torch.int64), torch.randn(members, R, S)
    numbers_seen = torch.ones_like(sender, dtype=torch.bool)
    return AuxiliaryBatch(obs_of(members), obs_of(members, 1), real, actions, inbox, sender, numbers_seen, world, real)


def test_the_world_is_estimated_from_messages_alone():
    agent, inbox = agent_of(), inbox_of()
    estimates = [
        agent._estimate_world(batch_of(1, box), agent(obs_of(seed=seed), box, {}))
        for seed, box in ((0, inbox), (1, inbox), (0, inbox_of(seed=5)))
    ]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.allclose(estimates[0][:, 1], estimates[2][:, 1])
    nothing = agent._estimate_world(batch_of(1, None), agent(obs_of(), None, {}))
    torch.testing.assert_close(nothing[:, 0], estimates[0][:, 0])  # row 0 hears nothing


def test_the_decoder_knows_from_the_start_which_symbol_stood_where():
    spec = AgentSpec(O, spaces.Discrete(4), KINDS["symbols"], K, 1, S, 5, O)
    agent = TinyAgent(spec, hidden_dim=C, num_heads=4, latent_tokens=3, depth=1)
    one, two = (agent._reading(torch.tensor([[[[m]]]]).view(1, 1, 1, 3), None) for m in ([0, 1, 2], [2, 1, 0]))
    assert not torch.allclose(one, two, atol=1e-2)


# ---- computing ----


def gradients(agent):
    agent.zero_grad()
    output = agent(obs_of(), inbox_of(), agent.initial_state(R))
    sum(value.square().sum() for value in (output.action_logits, output.message, output.value)).backward()
    return {name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None}


def test_checkpointing_changes_memory_and_no_gradient(monkeypatch):
    agent = agent_of(memory="flare")
    runs = []
    layer = type(agent.blocks[0].attention)
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda *a: runs.append(1) or forward(*a))
    plain = gradients(agent)
    assert len(runs) == 2
    agent.size = dataclasses.replace(agent.size, checkpoint_activations=True)
    again = gradients(agent)
    assert len(runs) == 2 + 4  # every block once more
    assert_same(plain, again, rtol=0, atol=0)


def test_bf16_computes_the_blocks_in_bf16_and_gives_float32():
    agent = agent_of(memory="flare", dtype="bf16")
    seen = []
    agent.blocks[1].attention.out.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    rough = agent(obs_of(), inbox_of(), agent.initial_state(R))
    assert seen == [torch.bfloat16]
    assert all(value.dtype == torch.float32 for value in numbers(rough).values())
    agent.size = dataclasses.replace(agent.size, dtype="float32")
    exact = agent(obs_of(), inbox_of(), agent.initial_state(R))
    torch.testing.assert_close(rough.action_logits, exact.action_logits, atol=0.15, rtol=0.05)
    assert not torch.equal(rough.action_logits, exact.action_logits)


def test_an_agent_learns_to_repeat_the_one_message_that_is_real():
    spec = AgentSpec(1, spaces.Discrete(4), Symbols(4, 2), 2, num_agents=3)
    agent = TinyAgent(spec, C, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    optimizer, generator = torch.optim.Adam(agent.parameters(), lr=0.02), torch.Generator().manual_seed(0)
    for _ in range(60):
        messages, slot = (torch.randint(n, (1, 64, 2, n // 2), generator=generator) for n in (4, 2))
        mask = torch.cat([slot[..., 0, :], 1 - slot[..., 0, :]], -1).bool()
        logits = agent(torch.zeros(1, 64, 1), Inbox(messages, mask.long(), mask), {}).action_logits
        loss = torch.nn.functional.cross_entropy(logits[0], messages[mask][:, 1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1  # a guess costs log 4 = 1.39


# ---- the start ----


@pytest.mark.parametrize(("width", "heads", "depth"), [(16, 2, 1), (64, 8, 2)])
def test_an_untrained_agent_hears_what_is_said_and_in_which_order(width, heads, depth):
    length, vocab = 2, 10
    spec = AgentSpec(1, spaces.Discrete(4), Symbols(vocab, length), 1, 1, 0, 2, 0, False, True)
    agent = TinyAgent(spec, width, heads, 4, depth, generator=torch.Generator().manual_seed(0))
    messages = torch.cartesian_prod(torch.arange(vocab), torch.arange(vocab)).view(1, -1, 1, length)
    there = torch.ones(messages.shape[:3], dtype=torch.bool)
    with torch.no_grad():
        inbox = Inbox(messages, torch.zeros_like(there, dtype=torch.int64), there)
        hidden = agent(torch.ones(1, vocab**2, 1), inbox, {}).aux["hidden"].view(vocab, vocab, width)
    apart = (hidden - hidden.mean((0, 1))).square().mean()
    # Of a normalised state, which has a mean square of 1; FLARE's own start gave 0.001 to 0.005.
    assert apart > 0.05
    # 1 where the two places of a message say independent things, 0 where only the set of symbols counts (0.04).
    assert (hidden - hidden.transpose(0, 1)).square().mean() / 2 / apart > 0.4
