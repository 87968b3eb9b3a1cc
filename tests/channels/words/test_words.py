"""Words: distributions against sums over all bit strings, gradients, lexicons, and what users may get wrong."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.channels import Symbols, Vectors, Words, message_kind
from popcomm.channels.kinds import voiced
from popcomm.channels.words.codes import passes, popcount
from popcomm.channels.words.gate_sums import gate_sums
from popcomm.errors import UserError

# Small enough to list all bit strings, with and without a speak gate.
SMALL = [
    Words(*gate, speak_gate=speak) for gate in [(5, 2, 3), (6, 1, 6), (7, 3, 3), (1, 1, 1)] for speak in (True, False)
]
LEXICON = Words(8, 2, 4, vocab=6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def params_of(kind: Words, *leading: int, seed: int = 0) -> torch.Tensor:
    return 1.5 * torch.randn(*leading, *kind.params_shape, generator=generator(seed), dtype=torch.float64)


def distribution(kind: Words, params: torch.Tensor) -> dict[int, torch.Tensor]:
    """{message: log-probability} by its definition, for params of one message."""
    share = min((kind.min_on + kind.max_on) / (2 * kind.bits), 1 - 0.5 / kind.bits)
    logits = params[: kind.bits] + math.log(share / (1 - share))
    speaks = F.logsigmoid(params[-1]) if kind.speak_gate else params.new_zeros(())
    result = {}
    for bits in itertools.product((0.0, 1.0), repeat=kind.bits):
        if kind.min_on <= sum(bits) <= kind.max_on:
            on = torch.tensor(bits, dtype=params.dtype)
            word = sum(int(bit) << i for i, bit in enumerate(bits))
            result[word] = speaks + (on * F.logsigmoid(logits) + (1 - on) * F.logsigmoid(-logits)).sum()
    result[0] = torch.log1p(-torch.stack(list(result.values())).exp().sum())
    return result


@pytest.mark.parametrize("kind", SMALL)
def test_log_probabilities_are_those_of_what_is_transmitted(kind: Words) -> None:
    params = params_of(kind)
    expected = distribution(kind, params)
    messages = torch.tensor(list(expected), dtype=torch.int32)
    found = kind.log_prob(params.expand(len(messages), -1), messages)
    torch.testing.assert_close(found, torch.stack(list(expected.values())))
    assert found.exp().sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", SMALL)
def test_entropy_is_that_of_what_is_transmitted(kind: Words) -> None:
    params = params_of(kind, seed=1)
    log_p = torch.stack(list(distribution(kind, params).values()))
    torch.testing.assert_close(kind.entropy(params), -(log_p.exp() * log_p).sum())


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_of_the_distribution_are_those_of_the_sum_over_all_strings(kind: Words) -> None:
    params = params_of(kind, seed=2).requires_grad_()
    log_p = distribution(kind, params)
    for found, expected in (
        (kind.entropy(params), -sum(p.exp() * p for p in log_p.values())),
        (kind.log_prob(params, torch.tensor(0, dtype=torch.int32)), log_p[0]),
        (kind.soft(params)[-1], 1 - log_p[0].exp()),
    ):
        (slope,), (true_slope,) = (
            torch.autograd.grad(found, params),
            torch.autograd.grad(expected, params, retain_graph=True),
        )
        torch.testing.assert_close(slope, true_slope)


def test_sums_over_the_gate_pass_gradcheck_on_more_rows_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("popcomm.channels.words.gate_sums.CHUNK", 2)
    logits = torch.randn(5, 9, generator=generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: tuple(gate_sums(z, 3, 5, information=True)), (logits,))
    assert torch.autograd.gradcheck(lambda z: tuple(gate_sums(z, 3, 5, information=False))[:2], (logits,))


@pytest.mark.parametrize("size", [30.0, 200.0])
@pytest.mark.parametrize(
    "kind", [Words(), Words(speak_gate=False), Words(64, 20, 30), Words(64, 1, 64, speak_gate=False)]
)
def test_distributions_and_gradients_of_sure_networks_are_finite_in_float32(kind: Words, size: float) -> None:
    sign = torch.randint(3, (40, *kind.params_shape), generator=generator()) - 1.0
    sign[:3] = torch.tensor([-1.0, 0.0, 1.0]).unsqueeze(-1)
    params = (size * sign).requires_grad_()
    for message in (0, 2**kind.min_on - 1):
        params.grad = None
        messages = torch.full((40,), message, dtype=kind.dtype)
        each = torch.stack([kind.log_prob(params, messages), kind.entropy(params), kind.soft(params).sum(-1)])
        each.sum().backward()
        assert each.isfinite().all()
        assert (each[1] > -1e-4).all()
        assert params.grad.isfinite().all()


def test_float32_distributions_of_the_default_gate_are_those_of_float64() -> None:
    kind, params = Words(), 3 * torch.randn(200, 33, generator=generator())
    messages = kind.sample(params, generator())
    for function in (kind.entropy, kind.soft, lambda p: kind.log_prob(p, messages)):
        torch.testing.assert_close(function(params).double(), function(params.double()), rtol=2e-5, atol=2e-5)


def test_a_network_that_puts_out_zeros_passes_the_gate_as_often_as_equal_bits_can() -> None:
    spoken = Words(speak_gate=False).soft(torch.zeros(32))[-1]
    assert spoken.item() == pytest.approx(0.459, abs=5e-4)
    # The speak gate is a coin then.
    assert Words().soft(torch.zeros(33))[-1].item() == pytest.approx(spoken.item() / 2)
    assert Words().soft(torch.zeros(33))[:32].tolist() == pytest.approx([0.25] * 32)


def test_the_entropy_bonus_does_not_push_to_silence() -> None:
    kind, params = Words(), torch.zeros(33, requires_grad=True)
    (slope,) = torch.autograd.grad(kind.entropy(params), params)
    assert slope[-1] > 0  # it wants to speak more
    # The entropy of the bits themselves grows with the number of on bits, up to half of them.
    bits = torch.zeros(32, requires_grad=True)
    p = (bits + math.log(1 / 3)).sigmoid()
    (naive,) = torch.autograd.grad(-(p * p.log() + (1 - p) * (1 - p).log()).sum(), bits)
    more_on = torch.full((32,), 0.5)
    assert (naive > 0).all()
    assert Words(speak_gate=False).soft(more_on)[-1] < Words(speak_gate=False).soft(torch.zeros(32))[-1]


@pytest.mark.parametrize("kind", [Words(5, 2, 3), Words(5, 2, 3, speak_gate=False), LEXICON])
def test_samples_are_as_frequent_as_the_distribution_says(kind: Words) -> None:
    params, count = params_of(kind, seed=3).float(), 40_000
    samples = kind.sample(params.expand(count, *params.shape), generator(1))
    assert samples.dtype == torch.int32
    messages, counts = samples.unique(return_counts=True)
    expected = kind.log_prob(params.expand(len(messages), -1), messages).exp()
    # Five standard deviations of a frequency at its widest.
    assert torch.allclose(counts / count, expected, atol=5 * 0.5 / math.sqrt(count))
    assert 0 in messages.tolist()


@pytest.mark.parametrize("kind", [Words(), Words(40, 9, 12), Words(32, 20, 32)])
def test_what_is_sampled_is_silence_or_passes_the_gate(kind: Words) -> None:
    samples = kind.sample(torch.zeros(50, 40, *kind.params_shape), generator())
    assert samples.shape == (50, 40)
    assert samples.dtype == kind.dtype
    spoken = kind.spoken(samples)
    assert 0 < spoken.float().mean() < 1
    assert passes(samples[spoken], kind.min_on, kind.max_on).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SMALL), st.integers(0, 1000), st.floats(0.1, 6))
def test_the_mode_is_the_likeliest_thing_that_is_transmitted(kind: Words, seed: int, scale: float) -> None:
    params = scale * params_of(kind, seed=seed)
    expected = distribution(kind, params)
    assert expected[int(kind.mode(params))].item() == pytest.approx(max(p.item() for p in expected.values()))


def test_a_sure_sender_says_the_word_it_is_sure_of() -> None:
    kind = Words(32, 7, 9)
    word = torch.tensor([0b1000_0000_0000_0000_0000_0000_0111_1111], dtype=torch.int64).to(torch.int32)
    bits = kind.straight_through(word, None)
    assert kind.mode(20 * (2 * bits - 1)).tolist() == word.tolist()
    assert word.item() < 0  # bit 31 is the sign


# ---- the float form ----


@pytest.mark.parametrize("kind", [Words(6, 2, 3), Words(6, 2, 3, speak_gate=False), Words(6, 2, 3, vocab=5)])
def test_the_float_form_is_the_bits_and_whether_anything_was_said(kind: Words) -> None:
    words = torch.tensor([0, 0b000110, 0b100000 + 0b11], dtype=torch.int32)
    expected = [[0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 0, 1, 1]]
    assert kind.straight_through(words, None).tolist() == expected
    assert kind.features_shape == (7,)
    soft = kind.soft(params_of(kind, 3)).requires_grad_()
    found = kind.straight_through(words, soft)
    assert found.tolist() == expected
    factor = torch.randn(3, 7, generator=generator(), dtype=torch.float64)
    (slope,) = torch.autograd.grad((found * factor).sum(), soft)
    assert torch.equal(slope, factor)


def test_the_soft_form_of_a_lexicon_is_the_expectation_of_what_is_sent() -> None:
    params = params_of(LEXICON)
    p = params.softmax(-1)
    expected = sum(p[i] * LEXICON.straight_through(LEXICON.to_word(torch.tensor(i)), None).double() for i in range(7))
    torch.testing.assert_close(LEXICON.soft(params), expected)


def test_a_word_costs_one_and_silence_nothing() -> None:
    words = torch.tensor([[0, 7], [-8, 0]], dtype=torch.int32)
    assert Words().load(words).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert Words().spoken(words).tolist() == [[False, True], [True, False]]


# ---- noise ----


def test_noise_flips_bits_and_what_is_no_word_any_more_is_lost() -> None:
    kind, count, noise = Words(16, 4, 5), 40_000, 0.1
    word = torch.full((count,), 0b1111, dtype=torch.int32)
    noisy = kind.corrupt(word, noise, generator())
    # P(still a word): i of 4 on bits go, j of 12 off bits come, 4 - i + j is 4 or 5.
    flips = {
        (i, j): math.comb(4, i) * math.comb(12, j) * noise ** (i + j) * (1 - noise) ** (16 - i - j)
        for i in range(5)
        for j in range(13)
    }
    kept = sum(p for (i, j), p in flips.items() if 4 <= 4 - i + j <= 5)
    found = (noisy != 0).float().mean().item()
    assert abs(found - kept) < 4 * math.sqrt(kept * (1 - kept) / count)
    same = (noisy == word).float().mean().item()
    assert abs(same - (1 - noise) ** 16) < 4 * 0.5 / math.sqrt(count)
    assert passes(noisy[noisy != 0], 4, 5).all()


def test_noise_makes_no_words_out_of_silence_and_none_that_a_lexicon_lacks() -> None:
    assert not Words(8, 1, 8).corrupt(torch.zeros(1000, dtype=torch.int32), 0.5, generator()).any()
    noisy = LEXICON.corrupt(LEXICON.lexicon.repeat(2000), 0.2, generator())
    assert set(noisy.tolist()) == {0, *LEXICON.lexicon.tolist()}


# ---- lexicons ----


@pytest.mark.parametrize(("gate", "vocab"), [((32, 7, 9), 1), ((32, 7, 9), 1000), ((64, 30, 34), 64), ((5, 2, 3), 20)])
def test_a_lexicon_has_different_words_of_the_gate_in_order(gate: tuple[int, int, int], vocab: int) -> None:
    kind = Words(*gate, vocab=vocab)
    words = kind.lexicon
    assert words.dtype == kind.dtype
    assert passes(words, *gate[1:]).all()
    assert (words.diff() > 0).all()
    assert len(words) == vocab
    assert kind.params_shape == (vocab + 1,)
    assert torch.equal(words, Words(*gate, vocab=vocab).lexicon)


def test_words_of_a_lexicon_are_far_apart() -> None:
    words = Words(vocab=64).lexicon
    apart = popcount(words.unsqueeze(1) ^ words)[~torch.eye(64, dtype=torch.bool)]
    # Two random words of 8 on bits share 2 of them, and differ in 12 on average.
    assert apart.float().mean() > 12
    assert apart.min() >= 4


def test_indices_and_words_of_a_lexicon_are_each_others_inverse() -> None:
    index = torch.arange(7)
    words = LEXICON.to_word(index)
    assert words[0] == 0
    assert torch.equal(LEXICON.to_index(words), index)
    strange = torch.tensor([w for w in range(256) if w not in LEXICON.lexicon.tolist()], dtype=torch.int32)
    assert not LEXICON.to_index(strange).any()
    assert not LEXICON.gated(strange).any()
    assert torch.equal(LEXICON.gated(words), words)


def test_the_distribution_of_a_lexicon_is_categorical() -> None:
    params = params_of(LEXICON)
    log_p = params.log_softmax(-1)
    found = LEXICON.log_prob(params.expand(7, 7), LEXICON.to_word(torch.arange(7)))
    torch.testing.assert_close(found, log_p)
    torch.testing.assert_close(LEXICON.entropy(params), -(log_p.exp() * log_p).sum())
    assert LEXICON.mode(params) == LEXICON.to_word(params.argmax())


def test_words_without_a_lexicon_have_no_indices() -> None:
    for ask in (lambda: Words().lexicon, lambda: Words().to_word(torch.tensor(1))):
        with pytest.raises(UserError, match="without it words have no lexicon"):
            ask()


def test_uniform_words_come_from_the_lexicon_if_there_is_one() -> None:
    drawn = LEXICON.uniform(np.random.default_rng(0), 6000)
    counts = np.unique(drawn, return_counts=True)
    assert counts[0].tolist() == LEXICON.lexicon.tolist()
    assert (abs(counts[1] - 1000) < 4.5 * math.sqrt(1000)).all()
    assert passes(Words().uniform(np.random.default_rng(0), 100), 7, 9).all()


# ---- as symbols and as choices ----


def test_words_are_strings_of_bits_or_single_words_of_a_lexicon() -> None:
    words = torch.tensor([0b110, 0], dtype=torch.int32)
    bits = Words(4, 1, 3)
    assert bits.alphabet == 2
    assert bits.as_symbols(words).tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
    assert voiced(bits, words).tolist() == [True, False]
    said = LEXICON.to_word(torch.tensor([3, 0]))
    assert LEXICON.alphabet == 7
    assert LEXICON.as_symbols(said).tolist() == [[3], [0]]
    assert voiced(LEXICON, said).tolist() == [True, True]
    for kind, sent in ((bits, words), (LEXICON, said)):
        assert kind.as_symbols(sent).dtype == torch.int64
        assert torch.equal(kind.from_symbols(kind.as_symbols(sent)), sent)


def test_symbols_are_themselves_and_vectors_have_none() -> None:
    symbols, messages = Symbols(4, 2), torch.tensor([[0, 0], [3, 1]])
    assert symbols.as_symbols(messages) is messages
    assert (symbols.alphabet, Vectors(3).alphabet) == (4, None)
    assert symbols.spoken(messages).tolist() == [True, True]
    assert Vectors(3).spoken(torch.zeros(2, 3)).tolist() == [True, True]
    assert (symbols.features_shape, Vectors(3).features_shape) == ((2, 4), (3,))
    with pytest.raises(TypeError, match="vectors have no symbols"):
        Vectors(3).as_symbols(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("kind", "choices", "word"),
    [
        (Words(4, 2, 3), [0, 1, 1, 0, 1], 0b0110),
        (Words(4, 2, 3), [0, 1, 1, 0, 0], 0),  # it does not speak
        (Words(4, 2, 3), [0, 1, 0, 0, 1], 0),  # no word
        (Words(4, 2, 3, speak_gate=False), [1, 1, 1, 0], 0b0111),
        (Words(4, 2, 3, speak_gate=False), [1, 1, 1, 1], 0),
        (Words(4, 2, 3, vocab=10), 1, 0b0011),
        (Words(4, 2, 3, vocab=10), 0, 0),
    ],
)
def test_choices_become_packed_words(kind: Words, choices: list[int] | int, word: int) -> None:
    assert kind.space().contains(np.array(choices))
    message = kind.chosen(np.array(choices))
    assert message.shape == ()
    assert message.dtype == np.int32
    assert int(message) == word


def test_the_space_of_words_is_what_is_chosen() -> None:
    assert Words(4, 2, 3).space() == spaces.MultiDiscrete([2] * 5)
    assert Words(4, 2, 3, speak_gate=False).space() == spaces.MultiDiscrete([2] * 4)
    assert Words(4, 2, 3, vocab=10).space() == spaces.Discrete(11)


# ---- what users say ----


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"bits": 65}, "messages.bits is 65, and must be between 1 and 64"),
        ({"min_on": 0}, "messages.min_on is 0, and must be at least 1: a word without on bits is silence"),
        ({"min_on": 10}, "messages.min_on is 10, above messages.max_on = 9"),
        ({"max_on": 33}, "messages.max_on is 33, and must be at most messages.bits = 32"),
        ({"vocab": 0}, "messages.vocab is 0, and must be at least 1"),
        ({"vocab": 2.5}, "messages.vocab is 2.5, and must be a whole number"),
        ({"bits": 4, "min_on": 2, "max_on": 2, "vocab": 7}, "messages.vocab is 7, and must be at most 6, the number"),
        ({"speak_gate": 1}, "messages.speak_gate is 1, and must be true or false"),
        ({"vocabulary": 8}, "'vocabulary' does not exist; did you mean 'vocab'"),
    ],
)
def test_mistakes_are_told_by_key_and_value(config: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        message_kind({"kind": "words", **config})


def test_a_config_mapping_makes_words() -> None:
    assert message_kind({"kind": "words"}) == Words(32, 7, 9)
    assert message_kind({"kind": "words", "bits": 16, "min_on": 3, "max_on": 4, "vocab": 8}) == Words(16, 3, 4, 8)


def test_the_rule_tells_the_gate_and_how_much_a_message_can_tell() -> None:
    assert "a word of 32 bits with 7 to 9 on (41,932,956 words, 25.3 bits at most)" in Words().rule()
    assert "one of 7 words of 9 bits with 3 on (3.0 bits at most)" in Words(9, 3, 3, vocab=7).rule()
