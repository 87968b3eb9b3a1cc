"""Message heads: one symbol after another is a distribution, sampled as written, and its members are apart."""

import itertools

import pytest
import torch
from scipy.stats import chi2

from popcomm.agents.population import extract, insert
from popcomm.agents.speech import AutoregressiveSpeech, ParallelSpeech, message_head
from popcomm.channels import Symbols, Vectors, Words
from popcomm.errors import UserError

KIND, C = Symbols(vocab_size=3, length=3), 5
EVERY = torch.tensor(list(itertools.product(range(3), repeat=3)))  # [27, 3], all messages


def speech_of(members=1, kind=KIND, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    head = AutoregressiveSpeech(members, C, kind, hidden=6, embedding=4, generator=generator)
    for parameter in head.parameters():
        parameter.data = parameter.data + 0.5 * torch.randn(parameter.shape, generator=generator)
    return head.to(dtype)


def hidden_of(members=1, rows=4, seed=1, dtype=torch.float32):
    return torch.randn(members, rows, C, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distribution_of(head, hidden):
    """Probabilities [27] of all messages in one hidden state [C]."""
    logits, _ = head(hidden.expand(1, len(EVERY), C), said=EVERY.unsqueeze(0))
    return KIND.log_prob(logits, EVERY.unsqueeze(0)).exp()[0]


def test_the_probabilities_of_all_messages_sum_to_one_and_are_not_a_product_over_positions():
    distribution = distribution_of(speech_of(dtype=torch.float64), hidden_of(seed=6, dtype=torch.float64)[0, 0])
    assert distribution.sum().item() == pytest.approx(1.0, abs=1e-12)
    table = distribution.view(3, 3, 3)
    independent = torch.einsum("i,j,k->ijk", table.sum((1, 2)), table.sum((0, 2)), table.sum((0, 1)))
    assert (table - independent).abs().max() > 0.01


def test_a_symbols_distribution_depends_on_those_before_it_and_on_none_after():
    head, hidden = speech_of(), hidden_of()[:, :1]
    base = head(hidden, said=torch.tensor([[[0, 1, 2]]]))[0][0, 0]
    for position in range(3):
        said = torch.tensor([[[0, 1, 2]]])
        said[..., position] = (said[..., position] + 1) % 3
        changed = head(hidden, said=said)[0][0, 0]
        same = [torch.allclose(a, b) for a, b in zip(base, changed, strict=True)]
        assert same == [l <= position for l in range(3)]


def test_samples_have_the_frequencies_of_the_distribution():
    head, n = speech_of(), 20_000
    head.out.weight.data *= 0.5  # no message so rare that the statistic is not chi-square
    hidden = hidden_of()[0, 0]
    _, said = head(hidden.expand(1, n, C), generator=torch.Generator().manual_seed(3))
    counts = torch.bincount((said[0] * torch.tensor([9, 3, 1])).sum(-1), minlength=27)
    expected = distribution_of(head, hidden) * n
    assert expected.min() > 5
    statistic = ((counts - expected).square() / expected).sum().item()
    # Two-sided at 0.1 %: too good a fit is as wrong as a bad one.
    assert chi2.ppf(0.0005, 26) < statistic < chi2.ppf(0.9995, 26)


def test_teacher_forcing_gives_the_logits_of_sampling():
    head, hidden = speech_of(3), hidden_of(3)
    logits, said = head(hidden, generator=torch.Generator().manual_seed(0))
    again, same = head(hidden, said=said)
    assert same is said
    assert logits.shape == (3, 4, 3, 3)
    assert said.shape == (3, 4, 3)
    torch.testing.assert_close(again, logits)


def test_greedy_takes_the_likeliest_symbol_after_its_own_prefix():
    head, hidden = speech_of(2), hidden_of(2)
    logits, said = head(hidden, greedy=True)
    assert torch.equal(said, logits.argmax(-1))
    torch.testing.assert_close(head(hidden, said=said)[0], logits)


def test_the_generator_alone_decides_what_is_said():
    head, hidden = speech_of(), hidden_of(rows=50)
    first = head(hidden, generator=torch.Generator().manual_seed(0))[1]
    torch.manual_seed(5)
    assert torch.equal(first, head(hidden, generator=torch.Generator().manual_seed(0))[1])
    assert not torch.equal(first, head(hidden, generator=torch.Generator().manual_seed(1))[1])


def test_the_head_is_torchs_gru_cell_fed_with_what_was_said():
    head, hidden = speech_of(), hidden_of(rows=2)
    weights, said = extract(head, 0), torch.tensor([[2, 0, 1], [1, 1, 2]])
    cell = torch.nn.GRUCell(4, 6)
    cell.load_state_dict({k.removeprefix("cell."): v for k, v in weights.items() if k.startswith("cell.")})
    h = hidden[0] @ weights["first.weight"].T + weights["first.bias"]
    expected = []
    for fed in (
        weights["start"].expand(2, -1),
        weights["symbols.weight"][said[:, 0]],
        weights["symbols.weight"][said[:, 1]],
    ):
        h = cell(fed, h)
        expected.append(h @ weights["out.weight"].T + weights["out.bias"])
    torch.testing.assert_close(head(hidden, said=said.unsqueeze(0))[0][0], torch.stack(expected, 1))


def test_gradients_of_the_log_probability_are_those_of_its_differences():
    head, hidden = speech_of(2, dtype=torch.float64), hidden_of(2, rows=2, dtype=torch.float64)
    said = torch.tensor([[2, 0, 1], [1, 1, 2]]).expand(2, 2, 3)
    names, values = zip(*head.named_parameters(), strict=True)

    def log_prob(hidden, *values):
        logits, _ = torch.func.functional_call(head, dict(zip(names, values, strict=True)), (hidden, said))
        return KIND.log_prob(logits, said)

    assert torch.autograd.gradcheck(log_prob, (hidden.requires_grad_(), *values))


def test_a_member_alone_speaks_as_it_does_in_the_population():
    crowd, alone = speech_of(3), speech_of(1)
    insert(alone, 0, extract(crowd, 2))
    hidden, said = hidden_of(3), torch.randint(3, (3, 4, 3), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(alone(hidden[2:], said=said[2:])[0][0], crowd(hidden, said=said)[0][2])


def test_members_learn_apart():
    head = speech_of(3)
    logits, _ = head(hidden_of(3), generator=torch.Generator().manual_seed(0))
    logits[1].square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad[1].any(), name
        assert not parameter.grad[[0, 2]].any(), name


def test_messages_of_one_symbol_need_no_prefix():
    head = speech_of(kind=Symbols(4, 1))
    logits, said = head(hidden_of(), greedy=True)
    assert logits.shape == (1, 4, 1, 4)
    assert torch.equal(head(hidden_of(), said=said)[0], logits)


@pytest.mark.parametrize("kind", [KIND, Vectors(4), Words(6, 2, 3), Words(6, 2, 3, vocab=4)])
def test_the_parallel_head_gives_the_distribution_and_leaves_sampling_to_the_kind(kind):
    head = ParallelSpeech(2, C, kind, torch.Generator().manual_seed(0))
    params, said = head(hidden_of(2))
    assert said is None
    assert params.shape == (2, 4, *kind.params_shape)
    expected = torch.einsum("prc,pco->pro", hidden_of(2), head.out.weight) + head.out.bias.unsqueeze(1)
    torch.testing.assert_close(params, expected.view_as(params))


def test_reduced_precision_speaks_the_same_language():
    head, hidden = speech_of(), hidden_of(rows=64)
    logits, said = head(hidden, greedy=True)
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = head(hidden, said=said)
        sampled = head(hidden, generator=torch.Generator().manual_seed(0))[1]
    torch.testing.assert_close(rough.float(), logits, atol=0.1, rtol=0.05)
    assert sampled.dtype == torch.int64


def test_wrong_heads_are_refused_in_one_sentence():
    with pytest.raises(
        UserError, match=r"message_head 'autoregresive' does not exist; did you mean 'autoregressive'\?"
    ):
        message_head("autoregresive", 1, C, KIND)
    with pytest.raises(UserError, match="speaks in symbols, and messages are vectors"):
        message_head("autoregressive", 1, C, Vectors(3))
    with pytest.raises(UserError, match="speaks in symbols, and messages are words"):
        message_head("autoregressive", 1, C, Words())
    with pytest.raises(UserError, match="embedding = 0"):
        AutoregressiveSpeech(1, C, KIND, 4, 0)
