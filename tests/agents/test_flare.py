"""FLARE against its written equations, masks, members, the spectrum, and the causal memory."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from popcomm.agents.flare import FlareAttention, FlareBlock, ResidualMLP
from popcomm.agents.flare_memory import FlareMemory
from popcomm.agents.flare_mixing import effective_rank, spectral_gap
from popcomm.agents.population import PopulationLinear, extract, insert
from popcomm.errors import UserError

C, H, M, R, N = 12, 3, 4, 2, 7
D = C // H
VARIANTS = ["flare", "flare++"]
PATHS = ["shared", "fused"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def disturbed(module, seed=1):
    """float64 parameters, large and random, so that no zero or one of the start hides a mistake."""
    generator = seeded(seed)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * 0.6
    return module


def layer(variant="flare", members=1, path="auto", **rest):
    made = disturbed(FlareAttention(C, H, M, variant=variant, members=members, **rest))
    made.path = path
    return made


def some_mask(*shape):
    mask = torch.rand(*shape, generator=seeded(5)) < 0.6
    mask[..., 0] = True
    return mask


def naive_mlp(weights, name, x):
    """The residual MLP from a member's extracted weights (torch's layout), one Linear after another."""
    linears = len([key for key in weights if key.startswith(f"{name}.layers.") and key.endswith("weight")])
    for i in range(linears):
        y = x @ weights[f"{name}.layers.{i}.weight"].T + weights[f"{name}.layers.{i}.bias"]
        x = x + (y if i == linears - 1 else nn.functional.gelu(y, approximate="tanh"))
    return x


def naive_heads(x):
    """[R, N, C] -> [R, H, N, D], channel c being head c // D."""
    return torch.stack([x[..., h * D : (h + 1) * D] for h in range(H)], 1)


def naive_latents(latent_q):
    """[C, M] read in memory order as [H, M, D]."""
    return torch.tensor(latent_q.flatten().tolist(), dtype=torch.float64).reshape(H, M, D)


def naive_norm(x, weight=1.0, bias=0.0):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def naive_encode(q, k, v, scale, mask):
    """Weights over real tokens by exp and division: q [R, H, M, D], k, v [R, H, N, D], mask [R, N] -> [R, H, M, D]."""
    e = torch.einsum("rhmd,rhnd->rhmn", q, k).mul(scale).exp() * mask[:, None, None]
    return torch.einsum("rhmn,rhnd->rhmd", e / e.sum(-1, keepdim=True), v)


def naive_routing(weights, x, variant, scale, mask):
    """(q, k, v) as the papers write them, for one member."""
    q = naive_latents(weights["latent_q"]).expand(len(x), -1, -1, -1)
    if variant == "flare":
        return q, naive_heads(naive_mlp(weights, "key", x)), naive_heads(naive_mlp(weights, "value", x))
    k, v, k0 = (
        naive_heads(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
        for name in ("key", "value", "refine.key")
    )
    q0 = naive_norm(
        naive_latents(weights["refine.latent_q"]), weights["refine.norm.weight"], weights["refine.norm.bias"]
    )
    read = naive_encode(q0.expand(len(x), -1, -1, -1), naive_norm(k0), naive_norm(k0), scale, mask)
    gate = 1 / (1 + (-weights["refine.gate"]).exp())
    k = naive_norm(k, weights["key_norm.weight"], weights["key_norm.bias"])
    return naive_norm(q) + gate[:, None, None] * read, k, v


def naive_flare(weights, x, variant="flare", scale=1.0, mask=None):
    """The whole layer for one member's weights and x [R, N, C]."""
    mask = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
    q, k, v = naive_routing(weights, x, variant, scale, mask)
    z = naive_encode(q, k, v, scale, mask)
    e = torch.einsum("rhnd,rhmd->rhnm", k, q).mul(scale).exp()
    y = torch.einsum("rhnm,rhmd->rhnd", e / e.sum(-1, keepdim=True), z)
    return torch.cat(list(y.unbind(1)), -1) @ weights["out.weight"].T + weights["out.bias"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("variant", "kv_layers", "scale"), [("flare", -1, 1.0), ("flare", 0, 0.3), ("flare", 3, 1.0), ("flare++", -1, 0.5)]
)
def test_every_member_computes_the_papers_equations_with_its_own_weights(variant, kv_layers, scale, masked, path):
    module = layer(variant, members=3, path=path, kv_layers=kv_layers, scale=scale)
    x, mask = random(3, R, N, C), some_mask(3, R, N) if masked else None
    result = module(x, mask)
    for member in range(3):
        expected = naive_flare(extract(module, member), x[member], variant, scale, mask[member] if masked else None)
        torch.testing.assert_close(result[member], expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_member_moved_to_a_module_of_its_own_computes_and_learns_the_same(variant):
    many, alone = layer(variant, members=3), layer(variant)
    insert(alone, 0, extract(many, 1))
    x, mask = random(3, R, N, C), some_mask(3, R, N)
    torch.testing.assert_close(many(x, mask)[1:2], alone(x[1:2], mask[1:2]))
    many(x, mask).square().sum().backward()
    alone(x[1:2], mask[1:2]).square().sum().backward()
    for (name, parameter), other in zip(many.named_parameters(), alone.parameters(), strict=True):
        assert parameter.shape[0] == 3, name
        torch.testing.assert_close(parameter.grad[1:2], other.grad)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_paths_have_the_same_results_and_gradients(variant, masked, members):
    x, mask, gradients = random(members, R, N, C), some_mask(members, R, N) if masked else None, []
    for path in PATHS:
        module, entry = layer(variant, members, path), x.clone().requires_grad_()
        y = module(entry, mask)
        (y * random(members, R, N, C, seed=2)).sum().backward()
        gradients.append([y.detach(), entry.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_finite_differences(variant, path):
    torch.manual_seed(0)
    module = disturbed(FlareAttention(4, 2, 2, variant=variant, members=2))
    module.path = path
    mask = torch.tensor([[[True, True, False]], [[True, True, True]]])
    names, values = zip(*module.named_parameters(), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x, mask))

    assert torch.autograd.gradcheck(run, (random(2, 1, 3, 4).requires_grad_(), *values), fast_mode=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=15, deadline=None)
@given(real=st.integers(1, N), seed=st.integers(0, 9))
def test_padding_changes_nothing_for_real_tokens(variant, path, real, seed):
    module, x = layer(variant, path=path), random(1, R, N, C, seed=seed)
    mask = (torch.arange(N) < real).expand(1, R, N)
    padded = x.clone()
    padded[:, :, real:] = 50.0
    torch.testing.assert_close(module(padded, mask)[:, :, :real], module(x[:, :, :real]), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_of_padding_gives_the_last_bias_and_finite_gradients_and_leaves_other_rows_alone(variant, path):
    module, x = layer(variant, path=path), random(1, R, N, C).requires_grad_()
    mask = torch.stack([torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)]).unsqueeze(0)
    y = module(x, mask)
    torch.testing.assert_close(y[0, 0], module.out.bias.expand(N, -1))
    torch.testing.assert_close(y[:, 1:], module(x[:, 1:]))
    y.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *module.parameters()))
    assert not x.grad[0, 0].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuted_tokens_give_permuted_results(variant):
    module, x, order = layer(variant), random(1, R, N, C), torch.randperm(N, generator=seeded())
    torch.testing.assert_close(module(x[:, :, order]), module(x)[:, :, order])
    block = disturbed(FlareBlock(C, H, M, variant=variant))
    torch.testing.assert_close(block(x[:, :, order]), block(x)[:, :, order])


def test_a_single_token_reads_its_own_value():
    # Both softmaxes are over weights that sum to one, so Y is V whatever the scores.
    module, x = layer(), random(1, R, 1, C)
    weights = extract(module, 0)
    expected = naive_mlp(weights, "value", x[0]) @ weights["out.weight"].T + weights["out.bias"]
    torch.testing.assert_close(module(x)[0], expected)


def test_a_plain_sequence_needs_no_members_axis():
    module, x, mask = layer(), random(R, N, C), some_mask(R, N)
    assert torch.equal(module(x, mask), module(x.unsqueeze(0), mask.unsqueeze(0))[0])
    assert torch.equal(module.spectrum(x, mask), module.spectrum(x.unsqueeze(0), mask.unsqueeze(0))[0])
    block = FlareBlock(C, H, M).double()
    assert torch.equal(block(x, mask), block(x.unsqueeze(0), mask.unsqueeze(0))[0])


def explicit_routing(module, x, mask):
    """W [P, R, H, N, N] formed from both attention matrices; padded tokens have zero columns."""
    q, k, _ = module.queries_keys_values(x, mask)
    s = torch.einsum("prnhd,prhmd->prhnm", k, q.expand(-1, x.shape[1], -1, -1, -1)) * module.scale
    encode = s.masked_fill(~mask[:, :, None, :, None], -math.inf).softmax(-2)
    return s.softmax(-1) @ encode.mT


@pytest.mark.parametrize("tokens", [N, M - 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_spectrum_is_that_of_the_explicit_routing_matrix(variant, tokens):
    module, x = layer(variant, members=2), random(2, R, tokens, C)
    mask = some_mask(2, R, tokens)
    eigenvalues = module.spectrum(x, mask)
    assert eigenvalues.shape == (2, R, H, M)
    explicit = torch.linalg.eigvals(explicit_routing(module, x, mask))
    assert explicit.imag.abs().max() < 1e-7
    explicit = nn.functional.pad(explicit.real.sort(descending=True).values, (0, M))[..., :M]
    torch.testing.assert_close(eigenvalues, explicit, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(eigenvalues[..., 0], torch.ones(2, R, H, dtype=torch.float64))


def test_the_rank_of_routing_is_the_number_of_latents_at_most():
    module, x = disturbed(FlareAttention(C, H, 2)), random(1, R, N, C)
    w = explicit_routing(module, x, torch.ones(1, R, N, dtype=torch.bool))
    assert torch.linalg.matrix_rank(w, rtol=1e-10).eq(2).all()
    torch.testing.assert_close(w.sum(-1), torch.ones(1, R, H, N, dtype=torch.float64))


def test_a_row_of_padding_has_no_spectrum():
    mask = torch.stack([torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)]).unsqueeze(0)
    eigenvalues = layer().spectrum(random(1, R, N, C), mask)
    assert not eigenvalues[0, 0].any()
    assert torch.equal(effective_rank(eigenvalues) > 0, mask.any(-1)[..., None].expand(1, R, H))


def test_a_fresh_layer_routes_almost_nothing():
    fresh = FlareAttention(64, 8, 16, generator=seeded())
    eigenvalues = fresh.spectrum(torch.randn(4, 100, 64, generator=seeded()))
    # Latents that all read the same mean are a matrix of rank one.
    assert effective_rank(eigenvalues).max() < 2
    assert spectral_gap(eigenvalues).min() > 0.8


def test_effective_rank_and_gap_of_known_spectra():
    eigenvalues = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 0.5, 0.5, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(effective_rank(eigenvalues), torch.tensor([4.0, 1, math.exp(1.5 * math.log(2)), 0]))
    torch.testing.assert_close(spectral_gap(eigenvalues), torch.tensor([0.0, 1, 0.5, 0]))
    assert spectral_gap(torch.ones(3, 1)).eq(1).all()


def linears(module):
    return [part for part in module.modules() if isinstance(part, PopulationLinear)]


def test_published_start():
    module = FlareAttention(128, 8, 32, kv_layers=3, members=2, generator=seeded())
    assert [len(linears(part)) for part in (module.key, module.value)] == [5, 5]
    assert module.latent_q.shape == (2, 128, 32)
    assert module.latent_q.std().item() == pytest.approx(0.1, rel=0.05)
    for part in linears(module):
        assert part.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(part.weight.mean().item()) < 5 * 0.02 / math.sqrt(part.weight.numel())
        assert not part.bias.any()


def test_published_start_of_the_variant():
    module = FlareAttention(128, 8, 32, variant="flare++", members=2, generator=seeded())
    for part in (module.key, module.value, module.refine.key):
        noise = part.weight - torch.eye(128)
        assert noise.std().item() == pytest.approx(0.02, rel=0.05)
        assert not part.bias.any()
    for latents in (module.latent_q, module.refine.latent_q):
        assert latents.std().item() == pytest.approx(0.02, rel=0.05)
    assert module.refine.gate.eq(0.25).all()


def test_the_generator_alone_decides_the_start():
    first = FlareBlock(C, H, M, variant="flare++", generator=seeded())
    torch.manual_seed(99)
    again = FlareBlock(C, H, M, variant="flare++", generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("dim", "scale", "variant", "expected"),
    [
        (128, None, "flare", 1.0),
        (128, None, "flare++", 0.25),
        (64, "auto", "flare", 1.0),
        (128, "auto", "flare", 0.25),
        (128, 0.7, "flare", 0.7),
    ],
)
def test_scale_by_the_published_rules(dim, scale, variant, expected):
    assert FlareAttention(dim, 8, 4, scale=scale, variant=variant).scale == expected


def test_a_residual_mlp_drops_residuals_between_different_widths():
    mlp, x = disturbed(ResidualMLP(1, 3, 5, 3, 1)), random(1, R, 3)
    first, middle, last = mlp.layers
    h = nn.functional.gelu(first(x), approximate="tanh")
    h = h + nn.functional.gelu(middle(h), approximate="tanh")
    torch.testing.assert_close(mlp(x), last(h))
    assert len(linears(ResidualMLP(1, 3, 3, 3, -1))) == 1


def test_a_block_adds_attention_then_mlp_to_normalised_inputs():
    block, x, mask = disturbed(FlareBlock(C, H, M, members=2)), random(2, R, N, C), some_mask(2, R, N)
    middle = x + block.attention(block.attention_norm(x), mask)
    expected = middle + block.mlp(block.mlp_norm(middle))
    torch.testing.assert_close(block(x, mask), expected)
    member = extract(block, 1)
    normed = naive_norm(x[1], member["attention_norm.weight"], member["attention_norm.bias"])
    attention = {key.removeprefix("attention."): value for key, value in member.items()}
    torch.testing.assert_close(middle[1], x[1] + naive_flare(attention, normed, mask=mask[1]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("members", [1, 2])
def test_bfloat16_autocast_stays_near_float32(variant, path, members):
    block = FlareBlock(16, 2, M, variant=variant, members=members, generator=seeded())
    block.attention.path = path
    x, mask = torch.randn(members, R, N, 16, generator=seeded()), some_mask(members, R, N)
    exact = block(x, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = block(x, mask)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    rough.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("path", PATHS)
def test_float32_scores_of_thousands_do_not_overflow(path):
    module = FlareAttention(C, H, M, scale=1e4, generator=seeded())
    module.path = path
    x = 10 * torch.randn(1, R, N, C, generator=seeded())
    y = module(x.requires_grad_())
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_layer_can_be_captured_as_one_graph(variant):
    module, x, mask = layer(variant), random(1, R, N, C), some_mask(1, R, N)
    captured = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(captured(x, mask), module(x, mask))


@pytest.mark.parametrize(("tokens", "latents", "fused"), [(16, 8, 0), (128, 32, 0), (1024, 8, 0), (1024, 32, 2)])
def test_fused_attention_is_called_for_long_sequences_with_many_latents_only(tokens, latents, fused, monkeypatch):
    calls, original = [], nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(a) or original(*a, **k)
    )
    FlareAttention(C, H, latents)(torch.randn(1, tokens, C))
    assert len(calls) == fused


def test_the_layers_can_be_built_without_memory_for_their_weights():
    with torch.device("meta"):
        parts = [FlareBlock(C, H, M, variant=variant, members=2) for variant in VARIANTS] + [FlareMemory(C, H, M)]
    assert all(p.is_meta for part in parts for p in part.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 5}, "num_heads is 5, and must divide dim, which is 12"),
        ({"num_latents": 0}, "num_latents is 0, and must be at least 1"),
        ({"num_heads": 0}, "num_heads is 0, and must be at least 1"),
        ({"kv_layers": -2}, "kv_layers is -2, and must be at least -1"),
        ({"variant": "flare+"}, "variant 'flare\\+' does not exist; did you mean 'flare"),
        ({"variant": "flare++", "kv_layers": 3}, "kv_layers is 3, and must be -1"),
        ({"scale": 0.0}, "scale is 0.0, and must be"),
        ({"scale": "atuo"}, "scale is 'atuo', and must be"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        FlareAttention(**{"dim": C, "num_heads": H, "num_latents": M, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mlp_layers": -2}, "number of layers is -2, and must be at least -1"),
        ({"mlp_ratio": 0.01}, "hidden width is 0, and must be at least 1"),
    ],
)
def test_wrong_arguments_of_a_block_are_named_in_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        FlareBlock(C, H, M, **arguments)


def test_inputs_that_do_not_fit_are_refused():
    module, x = layer(members=2), random(2, R, N, C)
    with pytest.raises(UserError, match=r"mask has dtype torch\.float64, and must be torch\.bool"):
        module(x, torch.ones(2, R, N).double())
    with pytest.raises(UserError, match=r"mask has shape \(2, 7\), and must have \(2, 2, 7\)"):
        module(x, torch.ones(2, N, dtype=torch.bool))
    with pytest.raises(UserError, match=r"x has shape \(1, 2, 7, 12\), and must have \[2, rows, tokens, 12\]"):
        module(x[:1])
    with pytest.raises(UserError, match=r"x has shape \(2, 7, 12\)"):
        module(x[0])
    module.path = "fusd"
    with pytest.raises(UserError, match="the path 'fusd' does not exist; did you mean 'fused'"):
        module(x)


def memory(members=1, **rest):
    return disturbed(FlareMemory(C, H, M, members=members, **rest))


def feed(module, x, mask=None):
    """Token by token: the readings [P, R, N, C] and the states after each."""
    state, readings, states = module.initial_state(x.shape[1]), [], []
    for t in range(x.shape[2]):
        y, state = module(x[:, :, t], state, None if mask is None else mask[:, :, t])
        readings.append(y)
        states.append(state)
    return torch.stack(readings, 2), states


@pytest.mark.parametrize("kv_layers", [-1, 1])
@pytest.mark.parametrize("members", [1, 3])
def test_at_every_step_the_memory_reads_what_attention_over_the_prefix_gives(members, kv_layers):
    module, x = memory(members, kv_layers=kv_layers), random(members, R, N, C)
    readings, _ = feed(module, x)
    for t in range(N):
        expected = module.attention(x[:, :, : t + 1])[:, :, -1]
        torch.testing.assert_close(readings[:, :, t], expected, atol=1e-10, rtol=1e-10)


def test_tokens_fed_together_read_one_another_and_leave_the_same_memory():
    module, x = memory(2), random(2, R, N, C)
    _, states = feed(module, x)
    y, state = module(x[:, :, :3], module.initial_state(R))
    torch.testing.assert_close(y, module.attention(x[:, :, :3]), atol=1e-10, rtol=1e-10)
    y, state = module(x[:, :, 3:], state)
    torch.testing.assert_close(y, module.attention(x)[:, :, 3:], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(state, states[-1], atol=1e-10, rtol=1e-10)


def test_padding_is_not_stored():
    module, x, mask = memory(2), random(2, R, N, C), some_mask(2, R, N)
    mask[..., 0], mask[1] = False, False
    together, state = module(x, module.initial_state(R), mask)
    _, states = feed(module, x, mask)
    torch.testing.assert_close(state, states[-1], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(together, module.attention(x, mask), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(
        {k: v[1] for k, v in state.items()}, {k: v[1] for k, v in module.initial_state(R).items()}
    )


def test_gradients_through_time_are_those_of_attention_over_the_sequence():
    gradients = []
    for by_token in (True, False):
        module, x = memory(), random(1, R, 4, C).requires_grad_()
        y = feed(module, x)[0][:, :, -1] if by_token else module.attention(x)[:, :, -1]
        y.square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_scores_of_any_size_and_order_stay_exact():
    # Growing, shrinking and tiny scores: 1e5 apart, where exp alone would overflow or vanish.
    module = memory(scale=1e4)
    x = random(1, R, 6, C) * torch.tensor([1e-3, 10, 1, 1e-2, 20, 1]).double()[:, None]
    readings, states = feed(module, x)
    assert states[-1]["max"].abs().max() > 1e5
    for t in range(6):
        torch.testing.assert_close(readings[:, :, t], module.attention(x[:, :, : t + 1])[:, :, -1])


def test_after_one_token_every_latent_holds_its_value_however_low_the_score():
    module, x = memory(scale=1e4), random(1, R, C)
    _, state = module(x, module.initial_state(R))
    assert state["max"].min() < -1e4
    values = naive_mlp(extract(module.attention, 0), "value", x[0])
    torch.testing.assert_close(module.latents(state)[0], values.unsqueeze(1).expand(R, M, C))


def test_an_empty_memory_is_finite_and_reads_as_the_last_bias():
    module = FlareMemory(C, H, M, members=2, generator=seeded())
    state, nothing = module.initial_state(R), torch.zeros(2, R, dtype=torch.bool)
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        "max": (2, R, H, M),
        "denominator": (2, R, H, M),
        "numerator": (2, R, H, M, D),
    }
    assert all(v.isfinite().all() and v.dtype == torch.float32 for v in state.values())
    assert not module.latents(state).any()
    x = torch.randn(2, R, C, generator=seeded()).requires_grad_()
    y, after = module(x, state, nothing)
    torch.testing.assert_close(y, module.attention.out.bias.unsqueeze(1).expand_as(y))
    (y.sum() + module.latents(after).sum()).backward()
    assert all(t.grad is None or t.grad.isfinite().all() for t in (x, *module.parameters()))


def test_a_row_that_was_reset_is_a_fresh_one():
    module, x = memory(), random(1, R, 4, C)
    state, fresh = feed(module, x)[1][1], module.initial_state(R)
    done = torch.tensor([True, False])
    state = {k: torch.where(done.view(1, R, *[1] * (v.dim() - 2)), fresh[k], v) for k, v in state.items()}
    y, after = module(x[:, :, 2], state)
    alone, _ = module(x[:, :1, 2], module.initial_state(1))
    assert torch.equal(y[:, :1], alone)
    torch.testing.assert_close(y[:, 1:], feed(module, x[:, 1:])[0][:, :, 2])
    assert all(v.isfinite().all() for v in after.values())


def test_latents_are_the_encoders_with_heads_side_by_side():
    module, x = memory(2), random(2, R, N, C)
    latents = module.latents(feed(module, x)[1][-1])
    assert latents.shape == (2, R, M, C)
    for member in range(2):
        weights = {k.removeprefix("attention."): v for k, v in extract(module, member).items()}
        q, k, v = naive_routing(weights, x[member], "flare", 1.0, None)
        z = naive_encode(q, k, v, 1.0, torch.ones(R, N, dtype=torch.bool))
        torch.testing.assert_close(latents[member], torch.cat(list(z.unbind(1)), -1), atol=1e-10, rtol=1e-10)


def test_a_memory_refuses_what_does_not_fit():
    module = memory(2)
    with pytest.raises(UserError, match=r"must have \[2, rows, tokens, 12\]"):
        module(random(1, R, C), module.initial_state(R))
    with pytest.raises(UserError, match=r"must be torch\.bool"):
        module(random(2, R, C), module.initial_state(R), torch.ones(2, R))
