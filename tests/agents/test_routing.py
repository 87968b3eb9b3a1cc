"""Routing through latents against the routing matrix written out, and attention over all against a loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.agents.routing import (
    LATENT_STD,
    ExactHearing,
    RoutedHearing,
    attend_all,
    default_scale,
    heard_weights,
    route,
)
from popcomm.errors import UserError

P, W, N, H, D, M = 2, 3, 6, 2, 4, 3
SCALE = 0.7


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def problem(members=P, worlds=W, agents=N, latents=M, seed=0, dtype=torch.float64):
    """queries, keys, values, latents."""
    rows = [random(members, worlds, agents, H, D, seed=10 * seed + i, dtype=dtype) for i in range(3)]
    return *rows, random(members, H, latents, D, seed=10 * seed + 3, dtype=dtype)


def everyone(like):
    return torch.ones(like.shape[1:3], dtype=torch.bool)


def some(worlds=W, agents=N, seed=0):
    """In every world at least two speak and one does not."""
    present = random(worlds, agents, seed=seed) > 0
    present[:, :2], present[:, -1] = True, False
    return present


def routing_matrix(queries, keys, latents, present, scale=SCALE):
    """R [P, W, H, N, N], formed; `present` must hold somebody in every world."""
    scores = torch.einsum("phmd,pwnhd->pwhmn", latents, keys) * scale
    gather = scores.masked_fill(~present[..., None, None, :], -math.inf).softmax(-1)
    read = (torch.einsum("pwnhd,phmd->pwhnm", queries, latents) * scale).softmax(-1)
    return read @ gather


def without_own(matrix):
    off = matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))
    return off / off.sum(-1, keepdim=True)


def formed(queries, keys, values, latents, present, scale=SCALE):
    matrix = without_own(routing_matrix(queries, keys, latents, present, scale))
    return torch.einsum("pwhij,pwjhd->pwihd", matrix, values)


def looped(queries, keys, values, present, scale=SCALE):
    """Softmax attention of every listener over the others that speak, one after the other."""
    out = torch.zeros_like(values)
    members, worlds, agents, heads, _ = keys.shape
    for p, w, i, h in torch.cartesian_prod(*(torch.arange(n) for n in (members, worlds, agents, heads))).tolist():
        others = [j for j in range(agents) if j != i and present[w, j]]
        if others:
            weights = (keys[p, w, others, h] @ queries[p, w, i, h] * scale).softmax(0)
            out[p, w, i, h] = weights @ values[p, w, others, h]
    return out


HEAR = {
    "routed": route,
    "exact": lambda queries, keys, values, latents, present, scale: attend_all(queries, keys, values, present, scale),
}
both = pytest.mark.parametrize("hear", HEAR.values(), ids=HEAR)


@given(st.integers(1, 2), st.integers(1, 3), st.integers(3, 7), st.integers(1, 5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_routing_is_the_routing_matrix_without_its_diagonal_normalised_again(members, worlds, agents, latents, all_):
    tensors = problem(members, worlds, agents, latents)
    present = everyone(tensors[0]) if all_ else some(worlds, agents)
    torch.testing.assert_close(route(*tensors, present, SCALE), formed(*tensors, present))


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 7), st.booleans())
@settings(max_examples=15, deadline=None)
def test_exact_attention_is_the_softmax_over_the_others(members, worlds, agents, all_):
    *rows, _ = problem(members, worlds, agents)
    present = everyone(rows[0]) if all_ else some(worlds, agents)
    torch.testing.assert_close(attend_all(*rows, present, SCALE), looped(*rows, present))


@both
def test_members_may_have_speakers_of_their_own(hear):
    tensors = problem()
    present = torch.stack([some(seed=1), some(seed=2)])
    present[0, 1] = False
    both_members = hear(*tensors, present, SCALE)
    for p in range(P):
        alone = hear(*(x[p : p + 1] for x in tensors), present[p], SCALE)
        torch.testing.assert_close(both_members[p : p + 1], alone)


@both
def test_worlds_do_not_hear_each_other(hear):
    *rows, latents = problem()
    together = hear(*rows, latents, some(), SCALE)
    for w in range(W):
        alone = hear(*(x[:, w : w + 1] for x in rows), latents, some()[w : w + 1], SCALE)
        torch.testing.assert_close(together[:, w : w + 1], alone)


@both
def test_of_two_agents_each_hears_exactly_the_other_whatever_the_scores(hear):
    queries, keys, values, latents = problem(agents=2)
    heard = hear(queries, 3 * keys, values, latents, everyone(keys), SCALE)
    torch.testing.assert_close(heard, values.flip(2), rtol=1e-7, atol=1e-7)


def test_through_one_latent_each_hears_the_softmax_of_the_others_and_the_own_key_has_no_part():
    queries, keys, values, latents = problem(1, 1, latents=1)
    heard = route(queries, keys, values, latents, everyone(keys), SCALE)
    for i in range(N):
        rest = [j for j in range(N) if j != i]
        weights = torch.einsum("hd,nhd->nh", latents[0, :, 0], keys[0, 0, rest] * SCALE).softmax(0)
        torch.testing.assert_close(heard[0, 0, i], torch.einsum("nh,nhd->hd", weights, values[0, 0, rest]))


@both
def test_the_own_value_changes_nothing_of_what_an_agent_hears(hear):
    queries, keys, values, latents = problem()
    before = hear(queries, keys, values, latents, some(), SCALE)
    for i in range(N):
        other = values.clone()
        other[:, :, i] += 5.0
        after = hear(queries, keys, other, latents, some(), SCALE)
        torch.testing.assert_close(after[:, :, i], before[:, :, i])
        assert after.ne(before).any() == some()[:, i].any()


@both
def test_the_gradient_of_what_an_agent_hears_to_its_own_value_is_zero(hear):
    queries, keys, values, latents = problem()
    values.requires_grad_()
    for i in range(N):
        heard = hear(queries, keys, values, latents, everyone(keys), SCALE)[:, :, i]
        (grad,) = torch.autograd.grad(heard.sum(), values)
        torch.testing.assert_close(grad[:, :, i], torch.zeros_like(grad[:, :, i]))
        others = [j for j in range(N) if j != i]
        # What is heard is an average of the others' values, so the weights of each listener and head sum to one.
        torch.testing.assert_close(grad[:, :, others].sum(2), torch.ones_like(grad[:, :, 0]))
        assert (grad[:, :, others] > 0).all()


@both
def test_messages_of_the_absent_change_nothing_and_the_absent_hear_the_present(hear):
    queries, keys, values, latents = problem()
    present = some()
    absent = ~present[None, :, :, None, None]
    before = hear(queries, keys, values, latents, present, SCALE)
    after = hear(queries, keys + 50 * absent, values + 50 * absent, latents, present, SCALE)
    torch.testing.assert_close(after, before)
    assert before[:, ~present].abs().sum((-2, -1)).min() > 0


@both
def test_what_is_heard_follows_a_permutation_of_the_agents(hear):
    *rows, latents = problem()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    heard = hear(*rows, latents, some(), SCALE)
    permuted = hear(*(x[:, :, order] for x in rows), latents, some()[:, order], SCALE)
    torch.testing.assert_close(permuted, heard[:, :, order])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("agents", "speakers"), [(1, [0]), (1, []), (4, []), (4, [2])])
def test_where_nobody_else_speaks_nothing_is_heard_and_gradients_are_zero(hear, agents, speakers, dtype):
    tensors = [x.requires_grad_() for x in problem(agents=agents, dtype=dtype)]
    present = torch.zeros(W, agents, dtype=torch.bool)
    present[:, speakers] = True
    deaf = speakers or list(range(agents))
    heard = hear(*tensors, present, SCALE)[:, :, deaf]
    assert not heard.any()
    for grad in torch.autograd.grad(heard.sum(), tensors, allow_unused=True):
        assert grad is None or not grad.any()


@both
def test_gradients_are_those_of_finite_differences(hear):
    *rows, latents = (x.requires_grad_() for x in problem(2, 2, 4, 2))
    present = torch.tensor([[True, True, False, True], [False, True, False, False]])
    inputs = [*rows, latents] if hear is route else rows
    torch.autograd.gradcheck(lambda *x: hear(*x[:3], latents, present, SCALE), inputs)


def test_gradients_through_heard_weights_are_those_of_finite_differences():
    queries, keys, _, latents = (x.requires_grad_() for x in problem(1, 2, 4, 2))
    present = torch.tensor([[True, True, False, True], [False, True, False, False]])
    torch.autograd.gradcheck(lambda q, k, lat: heard_weights(q, k, lat, present, SCALE), [queries, keys, latents])


def test_a_second_backward_pass_gives_the_same_gradient():
    tensors = [x.requires_grad_() for x in problem()]
    loss = route(*tensors, some(), SCALE).square().sum()
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(loss, tensors), strict=True):
        assert torch.equal(a, b)


def test_with_its_diagonal_the_map_from_values_to_what_is_heard_has_the_rank_of_the_latents():
    queries, keys, values, latents = problem(1, 1, agents=12)
    present = everyone(keys)

    def heard(numbers):  # [N], the first number of the first head
        other = values.clone()
        other[0, 0, :, 0, 0] = numbers
        return route(queries, keys, other, latents, present, SCALE)[0, 0, :, 0, 0]

    weights = torch.autograd.functional.jacobian(heard, values[0, 0, :, 0, 0])
    own = routing_matrix(queries, keys, latents, present)[0, 0, 0].diagonal()
    assert torch.linalg.matrix_rank((1 - own[:, None]) * weights + own.diag()) == M
    assert torch.linalg.matrix_rank(weights) == 12


def test_an_agent_that_drowns_out_all_others_hears_something_finite_and_bounded():
    """All latents listen to agent 0 alone (scores 80 above the others', in float32), so R_00 rounds to one."""
    queries, keys, values, latents = problem(1, 1, dtype=torch.float32)
    latents = latents.abs()
    keys[:, :, 0] = 80 / (SCALE * latents.sum(-1).min())
    tensors = [x.requires_grad_() for x in (queries, keys, values, latents)]
    heard = route(*tensors, everyone(keys), SCALE)
    assert heard.abs().max() <= values.abs().max()
    torch.testing.assert_close(heard[0, 0, 1:], values[0, 0, :1].expand(N - 1, H, D))
    for grad in torch.autograd.grad(heard.sum(), tensors):
        assert grad.isfinite().all()


def test_below_the_least_rest_what_is_heard_fades_to_zero_with_the_gradient_of_that():
    """One latent, two agents, the first louder by log(2e6): 1 - R_00 is 5e-7, half of the bound."""
    queries, keys, values = (torch.zeros(1, 1, 2, 1, 1, dtype=torch.float64) for _ in range(3))
    latents = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    keys[0, 0, 0], values[0, 0, :, 0, 0] = math.log(2e6), torch.tensor([3.0, 7.0])
    present = everyone(keys)
    torch.testing.assert_close(
        route(queries, keys, values, latents, present, 1.0)[0, 0, 0].item(), 3.5, rtol=1e-5, atol=0
    )
    keys.requires_grad_()
    torch.autograd.gradcheck(lambda k: route(queries, k, values, latents, present, 1.0)[0, 0, 0], [keys], eps=1e-3)


def test_single_precision_agrees_with_double():
    tensors = problem()
    exact = route(*tensors, some(), SCALE)
    torch.testing.assert_close(
        route(*(x.float() for x in tensors), some(), SCALE).double(), exact, rtol=1e-4, atol=1e-5
    )


def test_heard_weights_are_the_column_means_over_those_who_hear():
    queries, keys, _, latents = problem()
    present = some()
    expected = without_own(routing_matrix(queries, keys, latents, present)).mean((2, 3))
    weights = heard_weights(queries, keys, latents, present, SCALE)
    torch.testing.assert_close(weights, expected)
    assert not weights[:, ~present].any()


def test_heard_weights_of_a_lone_speaker_count_only_its_listeners():
    queries, keys, _, latents = problem(1, 2, 4)
    present = torch.tensor([[False, False, True, False], [False] * 4])
    expected = torch.tensor([[[0, 0, 1, 0], [0, 0, 0, 0]]], dtype=keys.dtype)
    torch.testing.assert_close(heard_weights(queries, keys, latents, present, SCALE), expected)


def test_a_hub_has_the_largest_weight():
    queries, keys, _, latents = problem(1, 1)
    keys[:, :, 4] = 3 * latents.mean(2)[:, None]
    keys[:, :, :4] *= 0.1
    keys[:, :, 5] *= 0.1
    weights = heard_weights(queries, keys, latents, everyone(keys), SCALE)[0, 0]
    assert weights.argmax() == 4
    assert weights[4] > 1.5 / N


def test_the_scale_follows_the_width():
    assert [default_scale(width) for width in (1, 8, 16)] == [1.0, 1.0, 0.25]


MODULES = {
    "routed": lambda members, generator=None: RoutedHearing(members, H * D, H, M, generator=generator).double(),
    "exact": lambda members, generator=None: ExactHearing(members, H * D, H, generator=generator).double(),
}
modules = pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)


@modules
def test_hearing_gives_each_member_what_its_own_weights_would(build):
    generator = torch.Generator().manual_seed(5)
    hearing, hidden, said = build(P, generator), random(P, W, N, H * D), random(P, W, N, H * D, seed=1)
    together = hearing(hidden, said, some())
    assert together.shape == hidden.shape
    for p in range(P):
        single = build(1)
        single.load_state_dict({name: value[p : p + 1] for name, value in hearing.state_dict().items()})
        torch.testing.assert_close(together[p : p + 1], single(hidden[p : p + 1], said[p : p + 1], some()))


def test_routed_hearing_asks_with_the_state_and_reads_keys_and_values_from_messages():
    hearing = MODULES["routed"](1)
    hidden, said = random(1, W, N, H * D), random(1, W, N, H * D, seed=1)
    (query, query_bias), (key, key_bias) = ((x.weight[0], x.bias[0]) for x in (hearing.query, hearing.key))
    split = (1, W, N, H, D)
    queries, keys = (hidden @ query + query_bias).view(split), (said + said @ key + key_bias).view(split)
    expected = formed(queries, keys, said.view(split), hearing.latents, some(), 1.0)
    torch.testing.assert_close(hearing(hidden, said, some()), expected.flatten(-2))
    weights = heard_weights(queries, keys, hearing.latents, some(), 1.0)
    torch.testing.assert_close(hearing.heard_weights(hidden, said, some()), weights)


@modules
def test_all_parameters_and_both_inputs_get_gradients(build):
    hearing = build(P)
    inputs = [random(P, W, N, H * D, seed=i).requires_grad_() for i in range(2)]
    hearing(*inputs, some()).square().sum().backward()
    for x in [*hearing.parameters(), *inputs]:
        assert x.grad is not None
        assert x.grad.flatten(1).any(1).all()


@modules
def test_the_same_generator_gives_the_same_start(build):
    first, second = (build(P, torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_latents_start_small():
    latents = RoutedHearing(8, 64, 4, 32, generator=torch.Generator().manual_seed(0)).latents
    assert latents.shape == (8, 4, 32, 16)
    assert latents.std().item() == pytest.approx(LATENT_STD, rel=0.02)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: RoutedHearing(1, 8, 3, 4), "num_heads is 3, and must divide dim = 8"),
        (lambda: ExactHearing(1, 8, 0), "num_heads is 0, and must divide dim = 8"),
        (lambda: ExactHearing(1, 0, 1), "num_heads is 1, and must divide dim = 0"),
        (lambda: RoutedHearing(1, 8, 2, 0), "num_latents is 0, and must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_sentence(build, sentence):
    with pytest.raises(UserError) as error:
        build()
    assert str(error.value) == sentence


def test_a_mask_of_numbers_is_refused():
    tensors = problem()
    with pytest.raises(UserError, match=r"present has dtype torch\.float64, and must be torch\.bool"):
        route(*tensors, some().double(), SCALE)


def test_shapes_that_do_not_fit_are_refused():
    queries, keys, values, latents = problem()
    with pytest.raises(UserError, match=r"values have shape \[2, 3, 5, 2, 4\]"):
        attend_all(queries, keys, values[:, :, 1:], some(), SCALE)
    with pytest.raises(UserError, match=r"present has shape \[3, 5\], and must have \[W, N\] = \[3, 6\]"):
        route(queries, keys, values, latents, some()[:, 1:], SCALE)
    with pytest.raises(UserError, match=r"latents have shape .* and must have \[P, H, M, D\] = \[2, 2, M, 4\]"):
        heard_weights(queries, keys, latents[:, :1], some(), SCALE)
