"""Messages of varying length: what follows the end symbol is not sent, not paid, not learned and not counted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from popcomm.agents import AGENTS
from popcomm.agents.message_decoder import MessageDecoder
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.speech import AutoregressiveSpeech
from popcomm.agents.step import agent_step
from popcomm.agents.testing import agent_api_test
from popcomm.agents.trial import seen
from popcomm.channels import Channel, Full, Inbox, Symbols, ending, message_kind
from popcomm.channels.kinds import counted
from popcomm.errors import UserError
from popcomm.language.basics import entropy, position_entropy, specialisation, symbol_counts, transitions
from tests.agents.test_testing import SMALL, place

V, L = 3, 3
KIND = Symbols(V, L, end_symbol=True)
POINTS = Symbols(V, L, relaxed=True, end_symbol=True).on_simplex()
# Every string of three symbols out of three, and the message that it stands for.
STRINGS = torch.tensor(list(itertools.product(range(V), repeat=L)))


def prefix_of(string: list[int]) -> tuple[int, ...]:
    return tuple(string[: string.index(0) + 1] if 0 in string else string)


PREFIXES = [prefix_of(string) for string in STRINGS.tolist()]
PARAMS = torch.randn(L, V, generator=torch.Generator().manual_seed(0))
P = PARAMS.softmax(-1)


def chances() -> dict[tuple[int, ...], float]:
    """{message: its probability}, by adding up all strings that stand for it."""
    result: dict[tuple[int, ...], float] = {}
    for string, prefix in zip(STRINGS.tolist(), PREFIXES, strict=True):
        result[prefix] = result.get(prefix, 0.0) + math.prod(float(P[i, s]) for i, s in enumerate(string))
    return result


def test_there_are_as_many_messages_as_the_kind_counts() -> None:
    assert KIND.count == len(set(PREFIXES)) == 1 + 2 + 4 + 8
    assert Symbols(V, L).count == 27


def test_the_log_probability_of_a_message_is_that_of_its_prefix() -> None:
    found = KIND.log_prob(PARAMS.expand(len(STRINGS), L, V), STRINGS).exp()
    for string, prefix, p in zip(STRINGS.tolist(), PREFIXES, found.tolist(), strict=True):
        expected = math.prod(float(P[i, s]) for i, s in enumerate(prefix))
        assert p == pytest.approx(expected, rel=1e-5), string
        assert p == pytest.approx(chances()[prefix], rel=1e-5), string


def test_the_entropy_is_that_of_whole_messages() -> None:
    assert float(KIND.entropy(PARAMS)) == pytest.approx(-sum(p * math.log(p) for p in chances().values()), rel=1e-5)


def test_the_expense_is_the_expected_number_of_symbols_before_the_end() -> None:
    expected = sum(p * sum(s != 0 for s in prefix) for prefix, p in chances().items())
    assert float(KIND.expense(PARAMS)) == pytest.approx(expected, rel=1e-5)
    assert float(POINTS.expense(PARAMS)) == pytest.approx(expected, rel=1e-5)


def test_how_likely_each_position_is_sent() -> None:
    expected = [sum(p for prefix, p in chances().items() if len(prefix) > i) for i in range(L)]
    assert KIND.share(PARAMS).tolist() == pytest.approx(expected, rel=1e-5)
    assert KIND.share(PARAMS, torch.tensor([1, 0, 0])).tolist() == [1.0, 1.0, 0.0]


def test_where_it_is_known_what_was_said_only_that_counts() -> None:
    """Of distributions given what was said before (symbol by symbol): the entropies of positions that were reached."""
    each = -(P * P.log()).sum(-1)
    assert float(KIND.entropy(PARAMS, torch.tensor([2, 0, 0]))) == pytest.approx(float(each[:2].sum()), rel=1e-5)
    assert float(KIND.expense(PARAMS, torch.tensor([0, 0, 0]))) == pytest.approx(1 - float(P[0, 0]), rel=1e-5)


def test_samples_are_cut_after_the_end_and_as_frequent_as_they_should_be() -> None:
    drawn = KIND.sample(PARAMS.expand(20_000, L, V), torch.Generator().manual_seed(1))
    assert torch.equal(drawn, ending.cut(drawn))
    messages, often = drawn.unique(dim=0, return_counts=True)
    for message, count in zip(messages.tolist(), often.tolist(), strict=True):
        p = chances()[prefix_of(message)]
        assert count / 20_000 == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 20_000))


def test_only_what_was_sent_is_charged_for() -> None:
    assert KIND.load(torch.tensor([[1, 2, 1], [1, 0, 2], [0, 2, 2]])).tolist() == [3.0, 1.0, 0.0]
    said = POINTS.from_symbols(torch.tensor([[1, 2, 1], [1, 0, 2], [0, 2, 2]]))
    assert POINTS.load(said).tolist() == [3.0, 1.0, 0.0]


@pytest.mark.parametrize("kind", [KIND, Symbols(V, L)])
def test_the_rule_says_whether_there_is_an_end(kind: Symbols) -> None:
    assert ("what follows it is not sent" in kind.rule()) == kind.ends
    assert ("no end symbol" in kind.rule()) == (not kind.ends)


# ---- what listeners hear ----

TAILS = [(0, 1, 2), (0, 0, 0), (0, 2, 1)]


def tails() -> list[torch.Tensor]:
    """Messages [2, L] that differ in nothing but what follows their end."""
    return [torch.tensor([[1, *tail[:2]], [*tail]]) for tail in TAILS]


def test_the_float_form_does_not_depend_on_what_follows_the_end() -> None:
    first, *others = (KIND.straight_through(messages, None) for messages in tails())
    assert first.tolist() == [[[0, 1, 0], [1, 0, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]]
    assert all(torch.equal(first, other) for other in others)


def test_no_gradient_goes_to_what_was_not_sent() -> None:
    soft = torch.rand(2, L, V, requires_grad=True)
    KIND.straight_through(tails()[0], soft).sum().backward()
    assert soft.grad is not None
    assert soft.grad.any(-1).tolist() == [[True, True, False], [True, False, False]]


@pytest.mark.parametrize("name", AGENTS)
def test_what_an_agent_makes_of_a_message_does_not_depend_on_what_follows_its_end(name: str) -> None:
    spec = place(KIND)
    agent = AGENTS[name](spec, **SMALL[name], generator=torch.Generator().manual_seed(0))
    given = seen(spec, 4, torch.Generator().manual_seed(1))
    assert given.inbox is not None
    mask, losses = torch.ones_like(given.inbox.mask), []
    outputs = []
    for tail in TAILS:
        messages = torch.tensor([2, *tail[:2]]).expand(3, 4, 3, L)
        inbox = given.inbox._replace(messages=messages, mask=mask)
        outputs.append(agent_step(agent, spec, given.obs, inbox, agent.initial_state(4), greedy=True))
        if hasattr(agent, "decoder"):
            losses.append(agent.decoder(agent.encoder, inbox))
    for other in outputs[1:]:
        torch.testing.assert_close(other.action_logits, outputs[0].action_logits)
        torch.testing.assert_close(other.value, outputs[0].value)
    assert all(torch.allclose(loss, losses[0]) for loss in losses)


@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_their_contract_with_messages_that_end(name: str) -> None:
    agent_api_test(AGENTS[name], SMALL[name], place(KIND))
    if name != "gru":
        agent_api_test(AGENTS[name], SMALL[name], place(POINTS))


def test_the_encoder_is_a_linear_map_of_the_float_form() -> None:
    """With gradients: the tables' and the straight-through one."""
    encoder = MessageEncoder(1, KIND, 4)
    messages, weights = STRINGS.view(1, 1, 27, L), torch.randn(1, 1, 27, 4)
    soft = torch.rand(1, 1, 27, L, V, requires_grad=True)
    inbox = Inbox(messages, torch.zeros(1, 1, 27, dtype=torch.int64), torch.ones(1, 1, 27, dtype=torch.bool), soft)
    (encoder(inbox) * weights).sum().backward()
    found = [encoder.weight.grad.clone(), soft.grad.clone()]
    encoder.weight.grad = soft.grad = None
    real = KIND.straight_through(messages, soft).flatten(-2)
    torch.testing.assert_close(encoder(inbox), real @ encoder.weight[0])
    ((real @ encoder.weight[0]) * weights).sum().backward()
    torch.testing.assert_close(found, [encoder.weight.grad, soft.grad])


def test_the_decoder_starts_as_the_sum_of_what_was_sent() -> None:
    encoder = MessageEncoder(1, KIND, 4)
    decoder = MessageDecoder(1, KIND, 4, 2, 5)
    messages = STRINGS.view(1, 27, L)
    torch.testing.assert_close(decoder.attend(encoder, messages, None), encoder.encode(messages))


def test_symbol_by_symbol_nothing_is_said_after_the_end() -> None:
    speech = AutoregressiveSpeech(1, 4, KIND, hidden=8, embedding=4, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(1, 200, 4)
    logits, said = speech(hidden, generator=torch.Generator().manual_seed(2))
    assert torch.equal(said, ending.cut(said))
    assert (said[..., 0] == 0).any()
    again, _ = speech(hidden, said)
    torch.testing.assert_close(KIND.log_prob(again, said), KIND.log_prob(logits, said))


# ---- on the simplex ----


def test_half_an_end_leaves_half_of_what_follows() -> None:
    points = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    assert ending.faded(points).tolist() == [[0.5, 0.5, 0.0], [0.25, 0.0, 0.25], [0.0, 0.25, 0.0]]
    back, share = ending.whole(ending.faded(points))
    torch.testing.assert_close(back, points)
    assert share.tolist() == [1.0, 0.5, 0.25]


def test_in_play_points_are_what_symbols_are() -> None:
    params = torch.randn(50, L, V, generator=torch.Generator().manual_seed(4))
    said = POINTS.mode(params)
    assert torch.equal(said, KIND.straight_through(KIND.mode(params), None))
    assert torch.equal(POINTS.as_symbols(said), KIND.mode(params))
    assert torch.equal(POINTS.from_symbols(KIND.mode(params)), said)


def test_the_gradient_on_the_simplex_is_that_of_finite_differences() -> None:
    """An end takes what follows with it: the gradient knows that, too."""
    generator = torch.Generator().manual_seed(5)
    params = torch.randn(4, L, V, generator=generator, dtype=torch.float64, requires_grad=True)
    noise = POINTS.draw_noise(params, generator).double()
    assert torch.autograd.gradcheck(lambda p: POINTS.sample_with(p, noise), (params,))


# ---- noise ----


def test_a_garbled_end_is_no_way_to_hear_what_was_not_sent() -> None:
    said = torch.tensor([1, 0, 0]).expand(4000, L)
    heard = KIND.corrupt(said, 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(heard, ending.cut(heard))
    assert not heard[:, 2].any()
    # The end is replaced in half of the messages that still go on, by one of the other two in two thirds of them.
    assert float((heard[:, 1] != 0)[heard[:, 0] != 0].float().mean()) == pytest.approx(1 / 3, abs=0.04)
    points = POINTS.corrupt(POINTS.from_symbols(said), 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(POINTS.as_symbols(points), heard)


def test_what_a_noisy_channel_did_to_a_message_that_ends_is_done_again() -> None:
    generator = torch.Generator().manual_seed(6)
    params = torch.randn(500, L, V, generator=generator)
    noise = POINTS.draw_noise(params, generator)
    sent = POINTS.sample_with(params, noise)
    later = POINTS.sample_with(params + 0.1 * torch.randn(params.shape, generator=generator), noise)
    heard, expected = (POINTS.corrupt(said, 0.3, torch.Generator().manual_seed(7)) for said in (sent, later))
    assert not torch.equal(heard, sent)
    torch.testing.assert_close(POINTS.transmitted_again(later, sent, heard), expected)


def test_a_channel_sends_nothing_that_follows_an_end() -> None:
    channel = Channel(KIND, Full(), 2)
    assert channel.transmit(torch.tensor([[[1, 0, 2], [2, 1, 1]]])).tolist() == [[[1, 0, 0], [2, 1, 1]]]


# ---- what is counted ----


def test_statistics_count_what_was_sent() -> None:
    symbols = counted(KIND, torch.tensor([[1, 2, 1], [1, 0, 2], [0, 2, 2]])).numpy()
    assert symbols.tolist() == [[1, 2, 1], [1, 0, -1], [0, -1, -1]]
    assert symbol_counts(symbols, V).tolist() == [[1, 2, 0], [1, 0, 1], [0, 1, 0]]
    assert position_entropy(symbols, V).tolist()[2] == 0.0
    assert float(entropy(symbol_counts(symbols, V).sum(0))) == pytest.approx(
        -sum(p * math.log2(p) for p in (1 / 3, 1 / 2, 1 / 6))
    )
    assert transitions(symbols, np.zeros(3, int), np.arange(3), V).sum() == 3
    assert specialisation(symbols, np.array([0, 0, 1]), V, 2).probabilities.tolist() == [[0.2, 0.6, 0.2], [1, 0, 0]]


def test_configs_say_whether_symbols_end() -> None:
    assert message_kind({"kind": "symbols", "vocab_size": 4, "length": 2, "end_symbol": True}) == Symbols(
        4, 2, end_symbol=True
    )
    relaxed = message_kind({"kind": "symbols", "vocab_size": 4, "length": 2, "end_symbol": True, "relaxed": True})
    assert relaxed is not None
    assert relaxed.ends  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"messages\.end_symbol is 'yes'"):
        message_kind({"kind": "symbols", "vocab_size": 4, "length": 2, "end_symbol": "yes"})
