"""Loads of sparse matrices: the same as those that are filled, whatever the graph."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from popcomm.errors import UserError
from popcomm.theory import load_by_type, load_variance, mean_load, radius_bound

RNG = np.random.default_rng(5)
GRAPHS = {
    "dense": RNG.random((9, 9)) * 0.1,
    "sparse": RNG.random((30, 30)) * (RNG.random((30, 30)) < 0.1) * 0.3,
    "periodic": np.array([[0.0, 0.9], [0.3, 0.0]]),  # nobody hears itself: what is said goes to and fro
    "two apart": np.kron(np.diag([0.95, 0.1]), np.full((2, 2), 0.5)),  # which fade at their own pace
    "one way": np.triu(np.full((6, 6), 0.15), 1),  # ends by itself
    "nobody repeats": np.zeros((3, 3)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_sparse_load_is_the_filled_one(name: str) -> None:
    M = GRAPHS[name]
    rate = np.linspace(0.5, 2.0, len(M))
    exact, sparse = load_by_type(rate, M), csr_array(M)
    np.testing.assert_allclose(mean_load(rate, sparse), exact.mean, rtol=1e-10)
    for heard in (np.ones(len(M)), np.arange(len(M)) % 2, np.zeros(len(M))):
        wanted = heard @ exact.covariance @ heard
        assert load_variance(rate, sparse, heard) == pytest.approx(wanted, rel=1e-10)


def test_a_source_that_nobody_repeats_as_does_not_count_for_the_bound() -> None:
    # All hear the last one, who repeats nothing: without it the sums are 0.6.
    M = csr_array([[0.3, 0.3, 0.0], [0.3, 0.3, 0.0], [0.9, 0.9, 0.0]])
    assert radius_bound(M) == pytest.approx(0.6, rel=1e-15)
    assert mean_load([1.0, 1.0, 1.0], M) == pytest.approx([4.75, 4.75, 1.0], rel=1e-12)  # (1 + 0.9) / (1 - 0.6)


@pytest.mark.parametrize(
    ("rate", "M", "message"),
    [
        ([1.0, 1.0], [[0.5, 0.5], [0.5, 0.5]], "the sums of M are up to 1, and must stay below 1"),
        ([1.0], [[0.5, 0.0], [0.0, 0.5]], r"rate has shape \(1,\), and must be \[2\]"),
    ],
)
def test_a_load_that_may_have_no_end_is_refused(rate: list[float], M: list[list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mean_load(rate, csr_array(np.array(M)))
