"""A learner's share of the fragments, when some are lost with the runners that sampled them."""

from __future__ import annotations

from typing import Any

import pytest
import ray
import torch
from ray.exceptions import OwnerDiedError
from torch import Tensor

from popcomm.rllib.shares import FragmentsLostError, LostFragments, agreed_share, load_share

REFERENCES = [ray.ObjectRef(bytes([number]) * 28) for number in (1, 2, 3)]
ROWS = [2, 2, 2]
CPU = torch.device("cpu")


@pytest.fixture
def second_and_third_are_gone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the batches that were asked for."""
    asked: list[int] = []

    def get(reference: Any) -> Any:
        asked.append(REFERENCES.index(reference) + 1)
        if asked[-1] > 1:
            raise OwnerDiedError(reference.hex(), None, "")
        return "a batch"

    monkeypatch.setattr(ray, "get", get)
    return asked


def test_all_lost_batches_of_a_share_are_named_and_others_are_not_asked_for(
    second_and_third_are_gone: list[int],
) -> None:
    with pytest.raises(FragmentsLostError) as told:
        load_share(REFERENCES, ROWS, 0, 1, 1, CPU)
    assert told.value.places == [1, 2]
    with pytest.raises(FragmentsLostError) as told:
        load_share(REFERENCES, ROWS, 1, 3, 1, CPU)
    assert told.value.places == [1]
    assert second_and_third_are_gone == [1, 2, 3, 2]


def test_a_learner_that_has_all_of_its_own_does_not_go_on_where_another_has_not(
    monkeypatch: pytest.MonkeyPatch, second_and_third_are_gone: list[int]
) -> None:
    monkeypatch.setattr("popcomm.rllib.shares.load_share", lambda *args: {"swarm": {}})

    def with_the_other(own: Tensor) -> Tensor:
        assert own.tolist() == [0, 0, 0]
        return own + torch.tensor([0, 0, 1])

    assert agreed_share(REFERENCES, ROWS, 0, 2, 1, CPU, with_the_other) == LostFragments([2])
    assert agreed_share(REFERENCES, ROWS, 0, 2, 1, CPU, lambda own: own) == {"swarm": {}}
