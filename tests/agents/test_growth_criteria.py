"""Criteria of growth against gradients that are written out, block by block, and on data whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from popcomm.agents import growth_criteria
from popcomm.agents.block_sparse import Captured
from popcomm.agents.growth_criteria import CHUNKS, CRITERIA, ROWS, Rows, rows_of

G, N, M, C, I, O = 2, 3, 4, 5, 2, 3


def random_rows(seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    inputs, slopes = (torch.randn(G, N, M, C, size, generator=generator) for size in (I, O))
    return Rows(inputs + 1, slopes)


def gradients(rows: Rows) -> Tensor:
    """[M, G, N, N, in, out], of every block in every chunk."""
    return torch.einsum("gjmcx,gimcy->mgjixy", *rows)


def squares(values: Tensor) -> Tensor:
    return values.square().sum((-2, -1))


def score(name: str, rows: Rows) -> Tensor:
    return CRITERIA[name].score(CRITERIA[name].statistics(rows))


def test_raw_is_the_squared_norm_of_the_blocks_gradient() -> None:
    rows = random_rows()
    torch.testing.assert_close(score("raw", rows), squares(gradients(rows).sum(0)))


def test_centred_compares_the_senders_of_each_receiver() -> None:
    rows = random_rows()
    mean = rows.inputs.mean((2, 3), keepdim=True)
    found = squares(gradients(rows._replace(inputs=rows.inputs - mean)).sum(0))
    torch.testing.assert_close(score("centred", rows), found / found.mean(1, keepdim=True))


def test_csnr_is_what_chunks_have_in_common_over_their_size() -> None:
    rows = random_rows()
    mean = rows.inputs.mean((2, 3), keepdim=True)
    each = gradients(rows._replace(inputs=rows.inputs - mean))
    common = (squares(each.sum(0)) - squares(each).sum(0)) / (M * (M - 1))
    torch.testing.assert_close(score("csnr", rows), common / squares(each).mean(0), atol=1e-5, rtol=1e-4)


def test_variance_is_relative_to_what_sender_and_receiver_vary() -> None:
    rows = random_rows()
    scaled = rows._replace(inputs=rows.inputs * 4, slopes=rows.slopes * 0.01)
    torch.testing.assert_close(score("variance", scaled), score("variance", rows), atol=1e-6, rtol=1e-4)
    found = score("variance", Rows(rows.inputs, rows.inputs))
    assert found.le(1 + 1e-6).all()  # of Cauchy and Schwarz


@pytest.mark.parametrize("name", ["centred", "csnr", "variance"])
def test_what_a_bias_could_bring_is_worth_nothing(name: str) -> None:
    """A sender that always sends the same has a large raw gradient, and no score of these."""
    rows = random_rows()
    rows.inputs[:, 1] = 5.0
    rows.slopes.add_(1.0)
    assert (score("raw", rows)[:, 1] > score("raw", rows)[:, 0]).all()
    assert score(name, rows)[:, 1].nan_to_num().abs().max() < 1e-6


def test_rows_that_nobody_lived_change_nothing() -> None:
    rows = random_rows()
    rows.slopes[:, :, :, -1] = 0.0
    before = {name: score(name, rows) for name in CRITERIA}
    rows.inputs[:, :, :, -1] = 99.0
    for name, value in before.items():
        torch.testing.assert_close(score(name, rows), value)


def test_csnr_is_about_zero_for_noise_and_one_for_a_gradient_of_all() -> None:
    """Seat 1 wants what seat 0 sends; seat 0 wants nothing in particular.

    Of n independent normal inputs of p numbers, X^T X has the expectation n I, and n^2 p + n p (p + 1) in the mean as
    its squared norm: csnr is n / (n + p + 1).
    """
    generator, sums = torch.Generator().manual_seed(0), torch.zeros(2, 1, 2, 2)
    for _ in range(40):
        inputs, slopes = torch.randn(2, 1, 2, 8, 16, 4, generator=generator)
        slopes[:, 1] = inputs[:, 0] * 3 + 0.1 * slopes[:, 1]
        sums += CRITERIA["csnr"].statistics(Rows(inputs, slopes))
    found = CRITERIA["csnr"].score(sums)[0]
    assert found[0, 1] == pytest.approx(16 / (16 + 4 + 1), abs=0.02)
    assert found[[0, 1, 1], [0, 0, 1]].abs().max() < 0.05


@pytest.mark.parametrize("name", CRITERIA)
def test_where_there_was_no_gradient_there_is_no_score(name: str) -> None:
    rows = random_rows()
    rows.inputs[:, 1], rows.slopes[:, 2] = 0.0, 0.0
    found = score(name, rows)
    assert found[:, 1].isnan().all()
    assert found[:, :, 2].isnan().all()
    assert found[:, [0, 2]][:, :, :2].isfinite().all()


# ---- which rows ----


def call(*rows: int, nodes: int = 2) -> Captured:
    """Whose every row is told by its first input; slopes are as the inputs."""
    values = torch.tensor(rows, dtype=torch.float32).view(1, -1, 1).expand(nodes, -1, -1)
    return Captured(values, values + 0.5)


def test_chunks_are_of_different_worlds_in_one_call_and_in_a_call_for_each_step() -> None:
    worlds, steps = 16, 3
    whole = rows_of([call(*(w for w in range(worlds) for _ in range(steps)))], 1)
    apart = rows_of([call(*range(worlds)) for _ in range(steps)], 1)
    for found in (whole, apart):
        assert found is not None
        assert found.inputs.shape == (1, 2, CHUNKS, 6, 1)
        assert torch.equal(found.slopes, found.inputs + 0.5)
        for chunk in range(CHUNKS):
            assert set(found.inputs[0, 0, chunk, :, 0].tolist()) == {2 * chunk, 2 * chunk + 1}


def test_batches_are_thinned_out_evenly_and_more_so_where_seats_are_many() -> None:
    few, many = rows_of([call(*range(4000))], 1), rows_of([call(*range(4000), nodes=128)], 1)
    assert few is not None
    assert many is not None
    assert few.inputs[0, 0].numel() == ROWS
    assert many.inputs[0, 0].numel() == ROWS // 4
    first = few.inputs[0, 0, 0].flatten()
    assert (first[0], first[-1]) == (0, 499)
    assert first.diff().min() >= 7


def test_thinned_rows_are_those_of_all_calls_in_their_order() -> None:
    """A step in each of 100 calls and 100 steps in another: of 200 rows of a world 64, the first and the last too."""
    calls = [call(*(1000 * world + step for world in range(8))) for step in range(100)]
    calls.append(call(*(1000 * world + 100 + step for world in range(8) for step in range(100))))
    found = rows_of(calls, 1)
    assert found is not None
    steps = [199 * i // 63 for i in range(64)]
    assert found.inputs[0, 0, :, :, 0].tolist() == [[1000 * world + step for step in steps] for world in range(8)]


def test_of_one_world_chunks_are_of_its_steps_in_one_call_and_in_a_call_for_each_step() -> None:
    whole, apart = rows_of([call(*range(16))], 1), rows_of([call(step) for step in range(16)], 1)
    assert whole is not None
    assert apart is not None
    assert whole.inputs[0, 0, :, :, 0].tolist() == [[2.0 * i, 2.0 * i + 1] for i in range(CHUNKS)]
    assert all(map(torch.equal, whole, apart))


def test_of_one_row_there_is_nothing_to_compare() -> None:
    assert rows_of([call(0)], 1) is None
    assert rows_of([], 1) is None


@pytest.mark.parametrize("blocks", [True, False])
def test_blocks_and_grams_come_to_the_same_norms(blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_criteria, "_blocks_are_less", lambda rows: blocks)
    rows = random_rows()
    made = gradients(rows)
    together, apart = growth_criteria.norms_of_chunks(rows)
    assert torch.allclose(together, made.sum(0).square().sum((-1, -2)), rtol=1e-4)
    assert torch.allclose(apart, made.square().sum((0, -1, -2)), rtol=1e-4)
    assert torch.allclose(growth_criteria.squared_norms(rows), together, rtol=1e-4)
