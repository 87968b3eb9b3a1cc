"""SymbolicAgent: attention, what each loss is, and that what was heard is remembered and passed on."""

import pytest
import torch
from gymnasium import spaces

from popcomm.agents import AgentOutput, AgentSpec, AuxiliaryBatch, SymbolicAgent
from popcomm.agents.attention import attend
from popcomm.channels import Inbox, Symbols, Vectors, Words

P, R, K, O, S, H = 2, 4, 3, 5, 2, 8
KIND = Symbols(vocab_size=4, length=2)


def agent_of(messages=KIND, **config):
    spec = AgentSpec(O, spaces.Discrete(3), messages, K if messages else 0, P, S, 4, O if messages else 0)
    return SymbolicAgent(spec, hidden_dim=H, num_heads=2, generator=torch.Generator().manual_seed(0), **config)


def inbox_of(mask=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(P, R, K, dtype=torch.bool) if mask is None else mask
    return Inbox(torch.randint(4, (P, R, K, 2), generator=generator), mask.long(), mask)


def obs_of(seed=0):
    return torch.randn(P, R, O, generator=torch.Generator().manual_seed(seed))


def batch_of(**changes):
    real = torch.ones(P, R, dtype=torch.bool)
    sender = torch.zeros(P, R, K, O)
    batch = AuxiliaryBatch(
        obs=obs_of(),
        next_obs=torch.zeros(P, R, O),
        next_mask=real,
        actions=torch.zeros(P, R, dtype=torch.int64),
        inbox=inbox_of(),
        sender_obs=sender,
        sender_obs_mask=torch.ones_like(sender, dtype=torch.bool),
        world_state=torch.zeros(P, R, S),
        mask=real,
    )
    return batch._replace(**changes)


def output_of(message=None):
    aux = {"hidden": torch.zeros(P, R, H), "context": torch.zeros(P, R, H)}
    return AgentOutput(torch.zeros(P, R, 3), message, torch.zeros(P, R), {}, aux)


def answer_(module, bias):
    """Make the last linear layer say `bias` whatever it is given."""
    last = getattr(module, "layers", [getattr(module, "head", None)])[-1]
    last.weight.data.zero_()
    last.bias.data.copy_(bias)


def test_attention_sums_to_one_over_real_messages_and_to_zero_without_any():
    mask = torch.tensor([True, False, True]).expand(P, R, K).clone()
    mask[:, 0] = False
    agent = agent_of()
    output = agent(obs_of(), inbox_of(mask), agent.initial_state(R))
    attention = output.aux["attention"]
    assert attention.shape == (P, R, K)
    torch.testing.assert_close(attention.sum(-1), mask.any(-1).float())
    assert not attention[~mask].any()
    assert not output.aux["context"][:, 0].any()


def test_attention_is_scaled_dot_product_attention_per_head():
    agent = agent_of()
    output = agent(obs_of(), inbox_of(), agent.initial_state(R))
    heard = agent.encoder(inbox_of()).tanh().view(P, R, K, 2, H // 2).transpose(2, 3)
    query = agent.query(output.aux["hidden"]).view(P, R, 2, 1, H // 2)
    context = torch.nn.functional.scaled_dot_product_attention(query, heard, heard).flatten(2)
    torch.testing.assert_close(output.aux["context"], context)


@pytest.mark.parametrize("used", [(0,), (1,), (0, 1)])
def test_the_written_gradient_of_attention_is_that_of_finite_differences(used):
    generator = torch.Generator().manual_seed(0)
    heard, query = (torch.randn(*s, generator=generator).double().requires_grad_() for s in ((2, 3, K, 6), (2, 3, 6)))
    real = torch.ones(2, 3, K, dtype=torch.bool)
    real[0, 0], real[1, 1, 0] = False, False
    assert torch.autograd.gradcheck(lambda h, q: [attend(h, q, real, 2)[i] for i in used], (heard, query))


def test_what_was_heard_is_passed_on_in_the_next_message():
    agent = agent_of()

    def second_message(inbox):
        state = agent(obs_of(), inbox, agent.initial_state(R)).state
        return agent(obs_of(1), inbox_of(seed=9), state).message

    assert not torch.allclose(second_message(inbox_of(seed=1)), second_message(inbox_of(seed=2)))


def test_a_message_follows_the_inbox_of_its_own_step():
    agent = agent_of()
    one, two = (agent(obs_of(), inbox_of(seed=s), agent.initial_state(R)).message for s in (1, 2))
    assert not torch.allclose(one, two)


def test_the_world_estimator_never_sees_the_observation():
    # One message in the inbox leaves attention no choice, so the estimate is a function of the message alone.
    agent = agent_of()
    mask = torch.tensor([True, False, False]).expand(P, R, K)
    contexts = [agent(obs_of(s), inbox_of(mask), agent.initial_state(R)).aux["context"] for s in (0, 1)]
    torch.testing.assert_close(*contexts)


def test_the_value_trains_its_own_layers_only():
    agent, inbox = agent_of(), inbox_of()
    agent(obs_of(), inbox, agent.initial_state(R)).value.sum().backward()
    trained = {name.split(".")[0] for name, p in agent.named_parameters() if p.grad is not None}
    assert trained == {"critic"}


def test_prediction_is_the_mean_squared_error_over_rows_with_a_next_observation():
    agent = agent_of()
    answer_(agent.predictor, torch.full((P, O), 2.0))
    next_obs, next_mask = torch.zeros(P, R, O), torch.ones(P, R, dtype=torch.bool)
    next_obs[:, 0], next_obs[:, 1] = 1.0, 50.0
    next_mask[:, 1] = False
    losses = agent.auxiliary_losses(batch_of(next_obs=next_obs, next_mask=next_mask), output_of())
    # Squared errors 1, 4, 4 over the three rows that count.
    torch.testing.assert_close(losses["prediction"], torch.full((P,), 3.0))


def test_prediction_knows_the_action_taken():
    agent = agent_of()
    actions = torch.arange(R).expand(P, R) % 3
    rows = agent._predict(batch_of(actions=actions), output_of())
    torch.testing.assert_close(rows[:, 0], rows[:, 3])
    assert not torch.allclose(rows[:, 0], rows[:, 1])


def test_world_model_is_the_mean_squared_error_over_lived_rows():
    agent = agent_of()
    answer_(agent.world_estimator, torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    mask = torch.tensor([True, True, False, False]).expand(P, R)
    world = torch.zeros(P, R, S)
    world[:, 3] = torch.nan
    losses = agent.auxiliary_losses(batch_of(mask=mask, world_state=world), output_of())
    torch.testing.assert_close(losses["world_model"], torch.tensor([0.5, 4.5]))


def test_reconstruction_counts_real_slots_and_real_numbers():
    agent = agent_of()
    answer_(agent.decoder, torch.ones(P, O))
    slots = torch.tensor([True, True, False]).expand(P, R, K)
    numbers = torch.ones(P, R, K, O, dtype=torch.bool)
    numbers[..., 2:] = False
    sender = torch.full((P, R, K, O), 77.0)
    sender[:, :, 0, :2], sender[:, :, 1, :2] = 0.0, -2.0
    batch = batch_of(inbox=inbox_of(slots), sender_obs=sender, sender_obs_mask=numbers)
    torch.testing.assert_close(agent.auxiliary_losses(batch, output_of())["reconstruction"], torch.full((P,), 5.0))


def test_reconstruction_leaves_out_rows_that_nobody_lived():
    agent = agent_of()
    answer_(agent.decoder, torch.ones(P, O))
    sender, mask = torch.zeros(P, R, K, O), torch.ones(P, R, dtype=torch.bool)
    sender[:, 2:], mask[:, 2:] = 50.0, False
    losses = agent.auxiliary_losses(batch_of(sender_obs=sender, mask=mask), output_of())
    torch.testing.assert_close(losses["reconstruction"], torch.ones(P))


def test_message_cost_is_the_expected_number_of_symbols_that_are_not_blank():
    message = torch.zeros(P, R, 2, 4)
    message[0, :, 0, 0] = 100.0  # surely blank, while the other position is uniform
    message[1, :, :, 3] = 100.0
    message[:, 0] = 0.0  # a row that nobody lived
    mask = torch.ones(P, R, dtype=torch.bool)
    mask[:, 0] = False
    losses = agent_of().auxiliary_losses(batch_of(mask=mask), output_of(message))
    torch.testing.assert_close(losses["message_cost"], torch.tensor([0.75, 2.0]))


def test_vectors_cost_their_l1_norm():
    message = torch.tensor([1.0, -2.0, 0.5]).expand(P, R, 3)
    cost = agent_of(Vectors(3)).auxiliary_losses(batch_of(inbox=None), output_of(message))["message_cost"]
    torch.testing.assert_close(cost, torch.full((P,), 3.5))


@pytest.mark.parametrize("kind", [Words(6, 2, 3), Words(6, 2, 3, vocab=4)])
def test_words_cost_the_probability_that_one_is_transmitted(kind):
    message = torch.randn(kind.params_shape, generator=torch.Generator().manual_seed(0))
    spoken = 1 - kind.log_prob(message, torch.tensor(0, dtype=torch.int32)).exp()
    params = message.expand(P, R, *kind.params_shape)
    cost = agent_of(kind).auxiliary_losses(batch_of(inbox=None), output_of(params))["message_cost"]
    torch.testing.assert_close(cost, spoken.expand(P))


def test_a_loss_of_weight_zero_is_not_computed():
    agent = agent_of(reconstruction_weight=0, cost_weight=0, world_weight=0)
    assert agent.auxiliary_losses(batch_of(), output_of(torch.zeros(P, R, 2, 4))).keys() == {"prediction"}
    assert agent.auxiliary_weights["prediction"] == 0.1


def test_a_silent_agent_estimates_the_same_world_everywhere():
    agent = agent_of(None)
    state = {
        k: torch.randn(v.shape, generator=torch.Generator().manual_seed(1)) for k, v in agent.initial_state(R).items()
    }
    output = agent(obs_of(), None, state)
    assert "attention" not in output.aux
    assert not output.aux["context"].any()
    losses = agent.auxiliary_losses(batch_of(inbox=None, sender_obs=None, sender_obs_mask=None), output)
    assert losses.keys() == {"prediction", "world_model"}


def test_diagnostics_are_the_r_squared_of_both_estimates():
    agent = agent_of()
    answer_(agent.world_estimator, torch.zeros(P, S))
    answer_(agent.decoder, torch.zeros(P, O))
    # World numbers -1 and 1 guessed as 0, their mean: 0. Senders' numbers 1 and 3 guessed as 0: 1 - 10 / 2.
    world = torch.tensor([-1.0, 1.0]).repeat(2).view(1, R, 1).expand(P, R, S)
    sender = torch.tensor([1.0, 3.0]).repeat(2).view(1, R, 1, 1).expand(P, R, K, O)
    scores = agent.diagnostics(batch_of(world_state=world, sender_obs=sender), output_of())
    assert scores["world_r2"].item() == pytest.approx(0.0)
    assert scores["reconstruction_r2"].item() == pytest.approx(-4.0)
    assert not scores["world_r2"].requires_grad


def test_a_speaker_and_a_listener_learn_to_reconstruct_a_bit():
    # The whole loop: observation -> message -> stored sample -> decoder, gradient through the straight-through form.
    agent = agent_of(reconstruction_weight=1.0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(agent.parameters(), lr=0.02)
    for _ in range(150):
        bit = torch.randint(2, (P, R * 8, 1), generator=generator).float() * 2 - 1
        obs = bit.expand(P, R * 8, O)
        state = agent.initial_state(R * 8)
        spoken = agent(obs, None, state).message
        messages = KIND.sample(spoken.detach(), generator).unsqueeze(2)
        mask = torch.ones(P, R * 8, 1, dtype=torch.bool)
        inbox = Inbox(messages, mask.long(), mask, KIND.soft(spoken).unsqueeze(2))
        batch = batch_of(inbox=inbox, sender_obs=obs.unsqueeze(2), sender_obs_mask=None, mask=mask.squeeze(2))
        prediction, target, real = agent._reconstruct(batch)
        loss = ((prediction - target).square() * real).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # A guess that ignores the message has an error of 1.
    assert loss.item() < 0.2
