"""Tensors of another device and arrays, in one transfer; a copy stands for the GPU's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from popcomm.channels import KNearest, Words, trips
from popcomm.channels.mail import LogOf, Mail
from popcomm.channels.mailbox import Channel
from popcomm.channels.session import Session


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPU is far away; how many bytes went in each transfer."""
    packed, sizes = trips._packed, []

    def counted(tensors: Any) -> Tensor:
        sizes.append(len(one := packed(tensors)))
        return one

    monkeypatch.setattr(trips, "same_memory", lambda device: False)
    monkeypatch.setattr(trips, "_packed", counted)
    return sizes


TENSORS = (
    torch.tensor([[True, False, True]]),
    torch.arange(4).view(2, 2),
    torch.empty(0, 3, dtype=torch.float64),
    torch.tensor(2.5),
    torch.arange(6, dtype=torch.int32).view(2, 3).t(),
)


def test_what_is_fetched_is_what_was_there_in_one_transfer(transfers: list[int]) -> None:
    for values, array in zip(TENSORS, trips.fetched(*TENSORS), strict=True):
        assert array.dtype == values.numpy().dtype
        np.testing.assert_array_equal(array, values.numpy())
    assert transfers == [3 + 4 * 8 + 0 + 4 + 6 * 4]


def test_mail_is_placed_in_one_transfer(transfers: list[int]) -> None:
    words, slots, mask = torch.arange(6, dtype=torch.int32).view(1, 6), torch.arange(4).view(1, 2, 2), TENSORS[0]
    mail = Mail(words, slots, mask, log=LogOf(words.long(), words > 2))
    there = mail.to("cpu")
    assert len(transfers) == 1
    assert [there.soft, there.hears, there.gate] == [None] * 3
    for one, other in zip((*mail[:3], *mail.log), (*there[:3], *there.log), strict=True):  # type: ignore[misc]
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()


def test_a_log_hears_the_near_ones_alike_far_from_the_cpu(request: pytest.FixtureRequest) -> None:
    """Four trips of a step there: who begins anew, who hears, what is heard, and what is said (and by whom)."""
    positions = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(1))
    here = heard(positions)
    transfers = request.getfixturevalue("transfers")
    there = heard(positions)
    assert len(transfers) == 3 * 5
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one, other)
    assert any(mask.any() for mask in here[2::3])


def heard(positions: Tensor) -> list[Tensor]:
    """Messages, slots and masks of three steps."""
    channel = Channel(Words(6, 1, 6), KNearest(2), 5, has_positions=True, capacity=8)
    session, found = Session(channel, 2, seed=3), []
    said, all_of_them = torch.arange(1, 11, dtype=torch.int32).view(2, 5), torch.ones(2, 5, dtype=torch.bool)
    for step in range(3):
        session.forget(torch.tensor([step == 2, False]))
        found += session.deliver(all_of_them, all_of_them, positions * (step + 1))[:3]
        session.send(said, all_of_them, all_of_them[:, 0])
    return found
