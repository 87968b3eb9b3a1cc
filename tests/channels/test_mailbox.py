"""Delivery and what goes wrong on the way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.channels import Channel, Custom, Full, KNearest, Ring, Symbols, Vectors, deliver
from popcomm.channels.mailbox import gather_seats
from popcomm.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def everyone(worlds: int, n: int) -> torch.Tensor:
    return torch.ones(worlds, n, dtype=torch.bool)


@settings(max_examples=40, deadline=None)
@given(worlds=st.integers(1, 4), n=st.integers(1, 5), k=st.integers(0, 4), seed=st.integers(0, 1000))
def test_every_slot_holds_what_its_sender_said_in_the_same_world(worlds: int, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    messages = torch.as_tensor(rng.integers(0, 9, (worlds, n, 2)))
    senders = torch.as_tensor(rng.integers(0, n, (worlds, n, k)))
    inbox = deliver(messages, senders, torch.ones(worlds, n, k, dtype=torch.bool))
    assert inbox.messages.shape == (worlds, n, k, 2)
    for b, i, j in np.ndindex(worlds, n, k):
        assert torch.equal(inbox.messages[b, i, j], messages[b, senders[b, i, j]])


def test_gradients_flow_back_to_each_sender_once_for_every_listener() -> None:
    soft = torch.zeros(1, 3, 2, requires_grad=True)
    senders = torch.tensor([[[1], [0], [0]]])
    inbox = deliver(torch.zeros(1, 3, 1, dtype=torch.int64), senders, torch.ones(1, 3, 1, dtype=torch.bool), soft)
    assert inbox.soft is not None
    weights = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    (gradient,) = torch.autograd.grad((inbox.soft * weights).sum(), soft)
    assert gradient[0].tolist() == [[110.0, 110.0], [1.0, 1.0], [0.0, 0.0]]


def test_receivers_may_be_fewer_than_senders() -> None:
    values = torch.arange(6.0).view(2, 3, 1)
    assert gather_seats(values, torch.tensor([[[2, 0]], [[1, 1]]])).flatten().tolist() == [2.0, 0.0, 4.0, 4.0]


def test_the_dead_neither_send_nor_hear() -> None:
    channel = Channel(Symbols(4, 1), Full(), num_agents=3)
    links = channel.connect(
        sent=torch.tensor([[True, False, True]]),
        hears=torch.tensor([[True, True, False]]),
    )
    # Slots: seat 0 hears (1, 2), seat 1 hears (0, 2), seat 2 hears (0, 1).
    assert links.mask.tolist() == [[[False, True], [True, True], [False, False]]]


def test_nothing_is_heard_when_an_episode_has_just_begun() -> None:
    channel = Channel(Symbols(4, 1), Full(), num_agents=3)
    sent = torch.tensor([[True] * 3, [False] * 3])
    links = channel.connect(sent, everyone(2, 3))
    assert links.mask[0].all()
    assert not links.mask[1].any()


def test_channel_hands_positions_and_torus_to_the_topology() -> None:
    channel = Channel(Vectors(1), KNearest(1), num_agents=3, torus=(10.0,), has_positions=True)
    positions = torch.tensor([[[0.5], [9.5], [3.0]]])
    assert channel.connect(everyone(1, 3), everyone(1, 3), positions).senders.flatten().tolist() == [1, 0, 0]


def test_dropout_loses_messages_at_its_rate_and_independently_for_each_listener() -> None:
    channel = Channel(Symbols(4, 1), Full(), num_agents=5, dropout=0.3)
    everybody = everyone(3000, 5)
    mask = channel.connect(everybody, everybody, generator=generator()).mask.float()
    count = mask.numel()
    assert abs(float(mask.mean()) - 0.7) < 5 * math.sqrt(0.21 / count)
    both = (mask[:, 0, 1] * mask[:, 1, 1]).mean()
    assert abs(float(both) - 0.49) < 5 * math.sqrt(0.25 / 3000)


def test_dropout_never_makes_a_message_out_of_nothing() -> None:
    channel = Channel(Symbols(4, 1), Ring(2), num_agents=4, dropout=0.5)
    nobody = torch.zeros(100, 4, dtype=torch.bool)
    assert not channel.connect(nobody, everyone(100, 4), generator=generator()).mask.any()


def test_same_generator_seed_loses_the_same_messages() -> None:
    channel = Channel(Symbols(4, 1), Full(), num_agents=5, dropout=0.5)
    everybody = everyone(20, 5)
    first, again, other = (channel.connect(everybody, everybody, generator=generator(s)).mask for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_noiseless_channel_transmits_what_was_sent() -> None:
    messages = torch.randint(8, (4, 3, 2), generator=generator())
    assert torch.equal(Channel(Symbols(8, 2), Full(), num_agents=3).transmit(messages), messages)


def test_noise_corrupts_a_message_once_for_all_who_hear_it() -> None:
    channel = Channel(Symbols(1000, 1), Full(), num_agents=3, noise=1.0)
    sent = torch.zeros(50, 3, 1, dtype=torch.int64)
    transmitted = channel.transmit(sent, generator())
    assert (transmitted != 0).float().mean() > 0.9
    links = channel.connect(everyone(50, 3), everyone(50, 3))
    inbox = deliver(transmitted, links.senders, links.mask)
    # Seat 0 is heard by seat 1 and seat 2, in the first slot of both.
    assert torch.equal(inbox.messages[:, 1, 0], inbox.messages[:, 2, 0])
    assert torch.equal(inbox.messages[:, 1, 0], transmitted[:, 0])


def test_inbox_size_is_the_topologys() -> None:
    assert Channel(Symbols(4, 1), Full(), num_agents=6).inbox_size == 5
    assert Channel(Symbols(4, 1), Ring(2), num_agents=6).inbox_size == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topology": KNearest(2)}, "KNearest needs positions, and this environment has none"),
        ({"topology": Ring(4)}, "topology.k is 4, and an agent has only 3 others"),
        ({"topology": Custom([[0, 1], [1, 0]])}, "is for 2 agents, and the environment has 4"),
        ({"dropout": 1.5}, "communication.dropout is 1.5, and must lie in"),
        ({"dropout": -0.1}, "communication.dropout is -0.1, and must lie in"),
        ({"noise": 1.5}, "communication.noise is 1.5, and must lie in"),
    ],
)
def test_what_does_not_fit_is_refused_before_work_starts(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Channel(**{"messages": Symbols(4, 1), "topology": Full(), "num_agents": 4, **arguments})


def test_noise_on_vectors_may_exceed_one() -> None:
    assert Channel(Vectors(2), Full(), num_agents=2, noise=1.5).noise == 1.5
