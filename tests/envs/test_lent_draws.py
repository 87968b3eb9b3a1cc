"""Generators that are lent: what is drawn, and that nobody else notices."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from popcomm.envs.lent_draws import LentDraws

CPU = torch.device("cpu")


def drawn() -> tuple[float, float, float]:
    return torch.rand(1).item(), np.random.random(), random.random()  # noqa: NPY002


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def test_what_is_drawn_is_that_of_the_seed_and_goes_on_where_it_stopped() -> None:
    seeded(5)
    expected = [drawn(), drawn()]
    draws = LentDraws(5, CPU)
    for wanted in expected:
        drawn()  # by somebody else
        with draws.lent():
            assert drawn() == wanted


def test_outside_nothing_has_happened_even_after_an_error() -> None:
    seeded(6)
    expected = drawn()
    seeded(6)
    with pytest.raises(ZeroDivisionError), LentDraws(5, CPU).lent():
        torch.rand(1).item() / int(np.random.random())  # noqa: NPY002
    assert drawn() == expected


def test_a_state_is_gone_back_to() -> None:
    draws = LentDraws(7, CPU)
    state = draws.get_state()
    with draws.lent():
        first = drawn()
    draws.set_state(state)
    with draws.lent():
        assert drawn() == first
