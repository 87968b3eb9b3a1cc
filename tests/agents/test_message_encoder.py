"""Messages into vectors against their definition: a Linear on the kind's straight-through form."""

import pytest
import torch
from torch import nn

from popcomm.agents import MessageEncoder, extract
from popcomm.agents.message_decoder import MessageDecoder, attend_symbols
from popcomm.agents.message_encoder import lookup
from popcomm.channels import Inbox, Symbols, Vectors, Words

P, R, K, H = 3, 4, 2, 6
SYMBOLS, VECTORS, WORDS = Symbols(vocab_size=5, length=3), Vectors(size=4), Words(6, 2, 3)
LEXICON = Words(6, 2, 3, vocab=8)


def inbox_of(kind, members=P, soft=True, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (members, R, K)
    params = torch.randn(*shape, *kind.params_shape, generator=generator, dtype=dtype)
    messages = kind.sample(params, generator)
    mask = torch.ones(shape, dtype=torch.bool)
    expectation = kind.soft(params).clone().requires_grad_() if soft else None
    return Inbox(messages, torch.zeros(shape, dtype=torch.int64), mask, expectation)


def dense(weight, kind, inbox, soft):
    real = kind.straight_through(inbox.messages, soft)
    return torch.einsum("prki,pih->prkh", real.flatten(3).to(weight.dtype), weight)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", [SYMBOLS, VECTORS, WORDS, LEXICON])
def test_output_and_gradients_are_those_of_a_linear_on_the_straight_through_form(kind, members):
    encoder, inbox = MessageEncoder(members, kind, H).double(), inbox_of(kind, members)
    weight = encoder.weight.detach().clone().requires_grad_()
    soft = inbox.soft.detach().clone().requires_grad_()
    result, expected = encoder(inbox), dense(weight, kind, inbox, soft)
    factor = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (result * factor).sum().backward()
    (expected * factor).sum().backward()
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(encoder.weight.grad, weight.grad)
    torch.testing.assert_close(inbox.soft.grad, soft.grad)


def test_lookup_passes_gradcheck_in_its_tables():
    inbox = inbox_of(SYMBOLS)
    tables = torch.randn(P, 15, H, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: lookup(t, inbox.messages, inbox.soft.detach()), (tables,))


def test_the_gradient_to_soft_is_the_linear_maps_transpose():
    # The map is linear in the one-hot, so finite differences of the dense form give the exact gradient.
    inbox, tables = inbox_of(SYMBOLS), torch.randn(P, 15, H, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(lookup(tables, inbox.messages, inbox.soft).square().sum(), inbox.soft)
    hard = SYMBOLS.straight_through(inbox.messages, None).double().requires_grad_()

    def dense_loss(one_hot):
        return torch.einsum("prki,pih->prkh", one_hot.flatten(3), tables).square().sum()

    assert torch.autograd.gradcheck(dense_loss, (hard,))
    torch.testing.assert_close(gradient, torch.autograd.grad(dense_loss(hard), hard)[0])


def test_the_values_of_soft_do_not_matter():
    encoder, inbox = MessageEncoder(P, SYMBOLS, H).double(), inbox_of(SYMBOLS)
    garbage = inbox._replace(soft=torch.full_like(inbox.soft, torch.nan))
    assert torch.equal(encoder(garbage), encoder(inbox._replace(soft=None)))


def test_torchs_linear_loads_an_extracted_encoder():
    encoder, inbox = MessageEncoder(P, SYMBOLS, H), inbox_of(SYMBOLS, soft=False)
    alone = nn.Linear(15, H, bias=False)
    alone.load_state_dict(extract(encoder, 1))
    one_hot = SYMBOLS.straight_through(inbox.messages, None).flatten(3)
    torch.testing.assert_close(encoder(inbox)[1], alone(one_hot[1]))


def test_encoded_symbols_start_with_unit_variance():
    kind = Symbols(vocab_size=16, length=8)
    encoder = MessageEncoder(20, kind, 64, generator=torch.Generator().manual_seed(0))
    messages = kind.sample(torch.zeros(20, 30, 2, 8, 16), torch.Generator().manual_seed(1))
    mask = torch.ones(20, 30, 2, dtype=torch.bool)
    assert encoder(Inbox(messages, mask.long(), mask)).var().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("kind", [Words(), Words(48, 20, 24), Words(vocab=100)])
def test_encoded_words_start_with_about_unit_variance(kind):
    encoder = MessageEncoder(20, kind, 64, generator=torch.Generator().manual_seed(0))
    messages = kind.sample(torch.zeros(20, 100, 2, *kind.params_shape), torch.Generator().manual_seed(1))
    spoken = kind.spoken(messages)
    assert encoder(Inbox(messages, spoken.long(), spoken))[spoken].var().item() == pytest.approx(1.0, abs=0.1)


def test_symbol_attention_is_a_softmax_over_positions():
    generator = torch.Generator().manual_seed(2)
    inbox, heads = inbox_of(SYMBOLS), 2
    tables = torch.randn(P, 15, H, generator=generator, dtype=torch.float64)
    scores = torch.randn(P, 15, heads, generator=generator, dtype=torch.float64)
    rows = inbox.messages + torch.arange(3) * 5
    member = torch.arange(P).view(P, 1, 1, 1)
    values, s = tables[member, rows], scores[member, rows]  # [P, R, K, L, H], [P, R, K, L, heads]
    expected = (values.unflatten(-1, (heads, -1)) * s.softmax(-2).unsqueeze(-1)).sum(-3).flatten(-2)
    torch.testing.assert_close(attend_symbols(tables, scores, inbox.messages), expected)


@pytest.mark.parametrize("kind", [SYMBOLS, VECTORS, WORDS, LEXICON])
def test_the_decoder_starts_as_a_reader_of_the_encoding_and_teaches_speaker_and_encoder(kind):
    encoder = MessageEncoder(P, kind, H).double()
    decoder, inbox = MessageDecoder(P, kind, H, 2, 7).double(), inbox_of(kind)
    result = decoder(encoder, inbox)
    torch.testing.assert_close(result, decoder.head(encoder(inbox).tanh()))
    result.square().sum().backward()
    assert inbox.soft.grad.abs().sum() > 0
    assert encoder.weight.grad.abs().sum() > 0
