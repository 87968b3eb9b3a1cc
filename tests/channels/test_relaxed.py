"""Messages that are real in training: distributions against closed forms and integrals, what play makes of them."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.agents import AgentSpec, TinyAgent
from popcomm.agents.pretrained import spec_from_json, spec_to_json
from popcomm.channels import Full, Inbox, Symbols, Vectors, Words, message_kind
from popcomm.channels.kinds import can_be_balanced
from popcomm.channels.messages import reparameterised
from popcomm.channels.relaxed import Dru, RelaxedSymbols
from popcomm.envs import swarm_v0, with_messages
from popcomm.errors import UserError

KINDS = [RelaxedSymbols(4, 3, 0.7), Dru(5), Vectors(3, std=0.5)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def params_of(kind: Any, *leading: int) -> torch.Tensor:
    return torch.randn(*leading, *kind.params_shape, generator=generator(7))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_message_is_made_again_from_its_noise(kind: Any) -> None:
    params = params_of(kind, 2, 6)
    noise = kind.draw_noise(params, generator(1))
    assert noise.shape == (2, 6, *kind.noise_shape)
    assert torch.equal(kind.sample(params, generator(1)), kind.sample_with(params, noise))
    assert kind.sample_with(params, noise).shape == (2, 6, *kind.shape)
    assert reparameterised(kind)
    assert not reparameterised(Symbols(4, 3))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_bfloat16_params_are_said_in_float32_and_float64_ones_in_float64(kind: Any) -> None:
    params = params_of(kind, 3)
    noise = kind.draw_noise(params, generator())
    for given, said in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert kind.sample_with(params.to(given), noise).dtype == said
    coarse = params.bfloat16()
    assert torch.equal(kind.sample_with(coarse, noise), kind.sample_with(coarse.float(), noise))


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_samples_lie_on_the_simplex_and_their_largest_part_is_as_frequent_as_the_softmax(noise: float) -> None:
    """The argmax of logits plus Gumbel noise is a sample of the softmax, at any temperature (Maddison 2014)."""
    logits, count = torch.tensor([[0.0, 1.0, -1.0, 2.0]]), 40_000
    samples = RelaxedSymbols(4, 1, 0.3, noise).sample(logits.expand(count, 1, 4), generator())
    torch.testing.assert_close(samples.sum(-1), torch.ones(count, 1))
    assert float(samples.min()) >= 0.0
    found = torch.bincount(samples.argmax(-1).flatten(), minlength=4) / count
    # Five standard deviations of a frequency at its widest.
    expected = (logits[0] / noise).softmax(-1)
    torch.testing.assert_close(found, expected, atol=5 * 0.5 / math.sqrt(count), rtol=0.0)


def test_cold_samples_are_one_hot_and_hot_ones_uniform() -> None:
    logits, noise = torch.randn(50, 2, 4, generator=generator()), torch.randn(50, 2, 4, generator=generator(1))
    cold = RelaxedSymbols(4, 2, 1e-4, noise=0.5).sample_with(logits, noise)
    torch.testing.assert_close(cold, RelaxedSymbols(4, 2).mode(logits + 0.5 * noise))
    hot = RelaxedSymbols(4, 2, 1e4).sample_with(logits, noise)
    torch.testing.assert_close(hot, torch.full_like(hot, 0.25), atol=1e-3, rtol=0.0)


def test_play_says_the_likeliest_symbols_and_the_bits() -> None:
    relaxed = RelaxedSymbols(3, 2)
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 1.0]])
    assert relaxed.mode(logits).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert relaxed.as_symbols(relaxed.mode(logits)).tolist() == [1, 0]
    assert torch.equal(relaxed.from_symbols(torch.tensor([1, 0])), relaxed.mode(logits))
    dru = Dru(3)
    assert dru.mode(torch.tensor([0.1, -2.0, 5.0])).tolist() == [1, 0, 1]
    assert dru.as_symbols(torch.tensor([0.6, 0.4, 1.0])).tolist() == [1, 0, 1]
    assert dru.from_symbols(torch.tensor([1, 0, 1])).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(("temperature", "noise"), [(0.5, 1.0), (1.0, 0.5), (2.0, 1.0), (1.0, 2.0)])
def test_the_density_of_two_relaxed_symbols_integrates_to_one(temperature: float, noise: float) -> None:
    """In y = logit(x), so that the tails are far from the ends of the interval; dx = x (1 - x) dy."""
    y = torch.linspace(-40, 40, 20_001, dtype=torch.float64)
    x = torch.stack([y.sigmoid(), (-y).sigmoid()], -1).unsqueeze(-2)
    logits = torch.tensor([[0.3, -1.1]], dtype=torch.float64).expand(len(y), 1, 2)
    log_p = RelaxedSymbols(2, 1, temperature, noise).log_prob(logits, x)
    density = log_p.exp() * x.prod(-1).squeeze(-1)
    assert float(torch.trapezoid(density, y)) == pytest.approx(1.0, abs=1e-6)
    first_is_larger = float(torch.trapezoid(density[10_000:], y[10_000:]))
    assert first_is_larger == pytest.approx(1 / (1 + math.exp(-1.4 / noise)), abs=1e-3)


def test_the_density_of_a_noisy_bit_integrates_to_one_and_its_share_above_one_half_is_the_probability() -> None:
    kind, output = Dru(1, noise=0.8), 0.5
    x = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    density = kind.log_prob(torch.full((len(x), 1), output, dtype=torch.float64), x.unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1.0, abs=1e-4)
    high = kind.probabilities(torch.tensor([output]))[0, 1]
    assert float(torch.trapezoid(density[100_000:], x[100_000:])) == pytest.approx(float(high), abs=1e-4)
    normal = 0.5 * (1 + math.erf(output / 0.8 / math.sqrt(2)))
    assert float(high) == pytest.approx(normal, abs=1e-6)


def test_probabilities_and_entropies_are_those_of_the_symbols() -> None:
    relaxed, logits = RelaxedSymbols(8, 2), torch.zeros(3, 2, 8)
    torch.testing.assert_close(relaxed.probabilities(logits), torch.full((3, 2, 8), 1 / 8))
    torch.testing.assert_close(relaxed.entropy(logits), torch.full((3,), 2 * math.log(8)))
    random = torch.randn(5, 2, 8, generator=generator())
    torch.testing.assert_close(relaxed.entropy(random), Symbols(8, 2).entropy(random))
    torch.testing.assert_close(Dru(4).entropy(torch.zeros(3, 4)), torch.full((3,), 4 * math.log(2)))
    assert Dru(4).probabilities(torch.zeros(3, 4)).tolist() == [[[0.5, 0.5]] * 4] * 3
    assert float(Dru(1).entropy(torch.tensor([[60.0]]))) == pytest.approx(0.0, abs=1e-6)


def test_a_noisy_channel_replaces_symbols_and_flips_bits() -> None:
    relaxed = RelaxedSymbols(4, 1)
    said = relaxed.sample(torch.zeros(20_000, 1, 4), generator())
    heard = relaxed.corrupt(said, 0.3, generator(1))
    replaced = (heard != said).any(-1)
    assert float(replaced.float().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 20_000))
    assert set(heard[replaced].flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(heard[~replaced], said[~replaced])
    dru = Dru(1)
    bits = dru.sample(torch.zeros(20_000, 1), generator())
    flipped = dru.corrupt(bits, 0.3, generator(1))
    changed = flipped != bits
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 20_000))
    torch.testing.assert_close(flipped[changed], 1 - bits[changed])
    for kind, message in ((relaxed, said), (dru, bits)):
        assert torch.equal(kind.corrupt(message, 0.0), message)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_what_the_channel_did_to_a_message_it_does_to_the_next_one(kind: Any) -> None:
    """The same message is heard as it was heard; another one where the channel left it alone is heard as it is."""
    sent = kind.sample(params_of(kind, 200), generator())
    heard = kind.corrupt(sent, 0.4, generator(1))
    torch.testing.assert_close(kind.transmitted_again(sent, sent, heard), heard)
    other = kind.sample(params_of(kind, 200), generator(2))
    assert torch.equal(kind.transmitted_again(other, sent, sent), other)


def test_a_replaced_symbol_carries_no_gradient_and_a_flipped_bit_the_opposite_one() -> None:
    relaxed = RelaxedSymbols(2, 2)
    sent = torch.tensor([[[0.4, 0.6], [0.7, 0.3]]])
    heard = torch.tensor([[[1.0, 0.0], [0.7, 0.3]]])
    said = sent.clone().requires_grad_()
    relaxed.transmitted_again(said, sent, heard).sum().backward()
    assert said.grad is not None
    assert said.grad.tolist() == [[[0, 0], [1, 1]]]
    bits = torch.tensor([[0.25, 0.5]], requires_grad=True)
    Dru(2).transmitted_again(bits, torch.tensor([[0.2, 0.5]]), torch.tensor([[0.8, 0.5]])).sum().backward()
    assert bits.grad is not None
    assert bits.grad.tolist() == [[-1, 1]]


def test_every_relaxed_symbol_that_is_no_blank_is_charged_for() -> None:
    messages = torch.tensor([[[1.0, 0.0], [0.25, 0.75]], [[0.0, 1.0], [0.0, 1.0]]])
    assert RelaxedSymbols(2, 2).load(messages).tolist() == [0.75, 2.0]
    assert RelaxedSymbols(2, 2).spoken(messages).tolist() == [True, True]
    assert Dru(3).load(torch.zeros(4, 3)).tolist() == [1.0] * 4


def test_symbols_are_relaxed_where_a_config_says_so() -> None:
    given = {"kind": "symbols", "vocab_size": 6, "length": 2}
    assert message_kind({**given, "relaxed": True}) == RelaxedSymbols(6, 2)
    assert message_kind({**given, "temperature": 0.5, "relaxed": True}) == RelaxedSymbols(6, 2, 0.5)
    assert message_kind({**given, "noise": 1.0, "relaxed": True}) == RelaxedSymbols(6, 2, 1.0, 1.0)
    assert message_kind({**given, "relaxed": False}) == Symbols(6, 2)
    assert message_kind(Symbols(6, 2, relaxed=True)) == RelaxedSymbols(6, 2)
    assert message_kind({"kind": "dru", "size": 3}) == Dru(3, 2.0)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"kind": "symbols", "vocab_size": 6, "length": 2, "relaxed": 1},
            r"messages.relaxed is 1, and must be true or",
        ),
        ({"kind": "symbols", "relaxed": True}, r"kind 'symbols': missing 2 required .* 'vocab_size' and 'length'"),
        ({"kind": "symbols", "length": 2}, r"kind 'symbols'.*vocab_size"),
        (
            {"kind": "symbols", "vocab_size": 1, "length": 2, "relaxed": True},
            r"messages.vocab_size is 1, and must be at least 2",
        ),
        (
            {"kind": "symbols", "vocab_size": 4, "length": 2, "temperature": 0, "relaxed": True},
            r"messages.temperature is 0, and must be above 0",
        ),
        (
            {"kind": "symbols", "vocab_size": 4, "length": 2, "temperature": "cold", "relaxed": True},
            r"messages.temperature is 'cold', and must be a number",
        ),
        (
            {"kind": "symbols", "vocab_size": 4, "length": 2, "noise": 0, "relaxed": True},
            r"messages.noise is 0, and must be above 0",
        ),
        (
            {"kind": "symbols", "vocab_size": 4, "length": 2, "noise": 0.5},
            r"messages.noise is 0.5, and only relaxed symbols have some",
        ),
        ({"kind": "dru", "size": 0}, r"messages.size is 0, and must be at least 1"),
        ({"kind": "dru", "size": 1, "noise": -1}, r"messages.noise is -1, and must be a number that is not negative"),
        ({"kind": "dru", "size": 1, "noise": math.nan}, r"messages.noise is nan, and must be a number"),
        ({"kind": "dru", "sizes": 1}, r"'sizes' .* did you mean 'size'"),
    ],
)
def test_a_kind_that_cannot_be_is_refused_in_words(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        message_kind(config)


@pytest.mark.parametrize("kind", [Symbols(4, 3, 0.5), *KINDS], ids=lambda kind: kind.kind)
def test_kinds_survive_pickle_copies_and_json(kind: Any) -> None:
    assert pickle.loads(pickle.dumps(kind)) == kind
    assert copy.deepcopy(kind) == kind
    spec = AgentSpec(obs_size=3, action_space=spaces.Discrete(2), messages=kind, inbox_size=1)
    assert spec_from_json(spec_to_json(spec)).messages == kind


def test_the_use_of_symbols_can_be_balanced_where_it_follows_from_an_output() -> None:
    for kind in (Symbols(4, 2), RelaxedSymbols(4, 2), Dru(3), Words(4, 2, 2, vocab=5)):
        assert can_be_balanced(kind)
        params = torch.zeros(2, *kind.params_shape)
        shares = kind.probabilities(params)
        torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]))
    for other in (None, Vectors(3), Vectors(3, 0.5), Dru(3, noise=0.0), Words(4, 2, 2)):
        assert not can_be_balanced(other)


@pytest.mark.parametrize(
    ("kind", "shown"), [(RelaxedSymbols(4, 3), (3, 4)), (Dru(2), (2, 2))], ids=lambda value: getattr(value, "kind", "")
)
def test_an_agent_acts_with_what_is_said_in_play(kind: Any, shown: tuple[int, int]) -> None:
    length, alphabet = shown
    spec = AgentSpec(obs_size=2, action_space=spaces.Discrete(2), messages=kind, inbox_size=2, num_agents=3)
    agent = TinyAgent(spec, 8, 2, 2, 1, generator=generator())
    observation = {
        "observation": np.zeros(2, np.float32),
        "inbox": np.array([[alphabet - 1] * length, [0] * length]),
        "senders": np.array([1, 2]),
        "mask": np.array([1, 1]),
    }
    for greedy in (True, False):
        _, message = agent.act(observation, greedy=greedy, generator=generator())
        assert message is not None
        assert message.shape == (length,)
        assert message.dtype == np.int64
        assert set(message.tolist()) <= set(range(alphabet))
    state = torch.zeros(1, 1, 2)
    senders, mask = torch.tensor([[[1, 2]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    heard = Inbox(kind.from_symbols(torch.tensor(observation["inbox"]))[None, None], senders, mask)
    expected = kind.as_symbols(kind.mode(agent(state, heard, {}).message))[0, 0]
    assert agent.act(observation, greedy=True)[1].tolist() == expected.tolist()


@pytest.mark.parametrize("messages", [RelaxedSymbols(4, 2), {"kind": "dru", "size": 2}])
def test_environments_have_the_messages_of_play_alone(messages: Any) -> None:
    with pytest.raises(UserError, match=r"real numbers in the trainer alone; .* in play: Symbols\(vocab_size="):
        with_messages(swarm_v0.parallel_env(num_agents=3), messages, Full())
