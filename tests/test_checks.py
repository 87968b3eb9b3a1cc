"""Numbers and choices of users: what is let through, and what is said of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from popcomm import checks
from popcomm.errors import UserError


@pytest.mark.parametrize(
    ("checked", "value"),
    [
        (checks.whole("k", np.int64(3), 3), 3),
        (checks.count("k", 2, 1), 2),
        (checks.number("k", np.float32(0.5)), 0.5),
        (checks.number("k", Fraction(1, 4), least=0.25, most=0.25), 0.25),
        (checks.number("k", math.inf), math.inf),
        (checks.finite("k", -3), -3.0),
        (checks.not_negative("k", 0), 0.0),
        (checks.share("k", 1), 1.0),
        (checks.true_or_false("k", False), False),
        (checks.one_of("k", "b", ("a", "b")), "b"),
    ],
)
def test_what_is_allowed_is_returned(checked: Any, value: Any) -> None:
    assert checked == value
    assert type(checked) is type(value)


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (lambda: checks.whole("k", 2.0, 1), "k is 2.0, and must be a whole number"),
        (lambda: checks.whole("k", True, 1), "k is True, and must be a whole number"),
        (lambda: checks.whole("k", 0, 1), "k is 0, and must be at least 1"),
        (lambda: checks.count("k", "3", 1), "k is '3', and must be a whole number of at least 1"),
        (lambda: checks.count("k", 0, 1), "k is 0, and must be a whole number of at least 1"),
        (lambda: checks.number("k", True), "k is True, and must be a number"),
        (lambda: checks.number("k", None), "k is None, and must be a number"),
        (lambda: checks.number("k", math.nan), "k is nan, and must be a number"),
        (lambda: checks.number("k", 1, "be below 1", below=1), "k is 1, and must be below 1"),
        (lambda: checks.number("k", 0.0, "be above 0", above=0), "k is 0.0, and must be above 0"),
        (lambda: checks.finite("k", -math.inf), "k is -inf, and must be a finite number"),
        (lambda: checks.not_negative("k", -1), "k is -1, and must be a number that is not negative"),
        (lambda: checks.at_least_zero("k", math.inf), "k is inf, and must be a number of at least 0"),
        (lambda: checks.positive("k", 0), "k is 0, and must be above 0"),
        (lambda: checks.positive("k", "x"), "k is 'x', and must be a number that is not negative"),
        (lambda: checks.between("k", 7, 0, 0.5), "k is 7, and must be between 0 and 0.5"),
        (lambda: checks.share("k", -0.1), "k is -0.1, and must lie in [0, 1]"),
        (lambda: checks.true_or_false("k", 1), "k is 1, and must be true or false"),
        (lambda: checks.one_of("k", "chian", ("chain", "ring")), "k is 'chian'; did you mean 'chain'?"),
        (lambda: checks.one_of("k", None, ("a", "b")), "k is None; allowed: a, b"),
    ],
)
def test_what_is_not_is_refused_with_the_key_the_value_and_what_is_allowed(
    check: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(UserError) as told:
        check()
    assert str(told.value) == sentence


def test_a_whole_number_that_no_float_can_hold_is_not_finite() -> None:
    with pytest.raises(UserError, match="must be a finite number"):
        checks.finite("k", 10**400)
    with pytest.raises(UserError, match="must lie in"):
        checks.share("k", -(10**400))
