"""Population layers against torch's own: same results, same distribution of the start, independent members."""

import math

import pytest
import torch
from scipy import stats
from torch import nn

from popcomm.agents import (
    PopulationEmbedding,
    PopulationGRUCell,
    PopulationLayerNorm,
    PopulationLinear,
    PopulationLSTMCell,
    PopulationMLP,
    extract,
    insert,
)
from popcomm.agents.activations import tanh
from popcomm.agents.population import orthogonal_
from popcomm.errors import UserError

R, I, H = 5, 6, 8


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def disturbed(layer, seed=1):
    """The layer with random parameters, so that zeros and ones of the start hide nothing."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return layer


def build(name, members):
    generator = torch.Generator().manual_seed(3)
    return disturbed(
        {
            "linear": lambda: PopulationLinear(members, I, H, generator=generator),
            "linear_no_bias": lambda: PopulationLinear(members, I, H, bias=False, generator=generator),
            "norm": lambda: PopulationLayerNorm(members, I),
            "gru": lambda: PopulationGRUCell(members, I, H, generator=generator),
            "lstm": lambda: PopulationLSTMCell(members, I, H, generator=generator),
            "embedding": lambda: PopulationEmbedding(members, 11, H, generator=generator),
        }[name]()
    )


def single(name):
    return {
        "linear": lambda: nn.Linear(I, H),
        "linear_no_bias": lambda: nn.Linear(I, H, bias=False),
        "norm": lambda: nn.LayerNorm(I),
        "gru": lambda: nn.GRUCell(I, H),
        "lstm": lambda: nn.LSTMCell(I, H),
        "embedding": lambda: nn.Embedding(11, H),
    }[name]()


def inputs(name, members):
    x, h, c = random(members, R, I), random(members, R, H, seed=1), random(members, R, H, seed=2)
    if name == "embedding":
        return (torch.randint(11, (members, R, 2), generator=torch.Generator().manual_seed(0)),)
    return {"gru": (x, h), "lstm": (x, (h, c))}.get(name, (x,))


def of_member(value, member):
    return tuple(v[member] for v in value) if isinstance(value, tuple) else value[member]


LAYERS = ["linear", "linear_no_bias", "norm", "gru", "lstm", "embedding"]


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_each_member_computes_what_torchs_layer_computes_with_its_extracted_weights(name, members):
    layer, arguments = build(name, members), inputs(name, members)
    result = layer(*arguments)
    for member in range(members):
        alone = single(name)
        alone.load_state_dict(extract(layer, member))
        torch.testing.assert_close(of_member(result, member), alone(*(of_member(a, member) for a in arguments)))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_torchs_layer(name, members):
    layer, arguments = build(name, members), inputs(name, members)
    result = layer(*arguments)
    loss = sum(r.square().sum() for r in (result if isinstance(result, tuple) else (result,)))
    loss.backward()
    alone = single(name)
    alone.load_state_dict(extract(layer, members - 1))
    expected = alone(*(of_member(a, members - 1) for a in arguments))
    sum(r.square().sum() for r in (expected if isinstance(expected, tuple) else (expected,))).backward()
    for key, parameter in layer.named_parameters():
        gradient = parameter.grad[members - 1]
        gradient = gradient.t() if key in getattr(layer, "transposed", ()) else gradient
        torch.testing.assert_close(gradient, dict(alone.named_parameters())[key].grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("members", [1, 3])
def test_a_cells_input_in_parts_is_the_whole_one_and_a_part_may_go_without_gradient(members):
    cell, (x, state) = build("lstm", members), inputs("lstm", members)
    left, right = (part.contiguous().requires_grad_(i == 1) for i, part in enumerate(x.split([I - 2, 2], -1)))
    whole = x.clone().requires_grad_()
    ways = [cell((left, right), state), cell(whole, state)]
    torch.testing.assert_close(*ways, atol=0, rtol=0)
    for h, c in ways:
        (h.square().sum() + c.sum()).backward()
    torch.testing.assert_close(right.grad, whole.grad[..., I - 2 :])
    assert left.grad is None


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", ["linear", "norm"])
def test_axes_between_rows_and_features_are_further_rows(name, members):
    layer, x = build(name, members), random(members, R, 4, I)
    torch.testing.assert_close(layer(x).flatten(1, 2), layer(x.flatten(1, 2)))


@pytest.mark.parametrize("members", [1, 3])
def test_a_view_into_a_wider_tensor_gives_what_its_copy_gives(members):
    layer, wide = build("linear", members), random(members, R, 2 * I)
    part = wide.chunk(2, -1)[1]
    torch.testing.assert_close(layer(part), layer(part.contiguous()))


@pytest.mark.parametrize("name", ["linear", "gru", "lstm"])
def test_weights_start_with_torchs_distribution(name):
    # 400 members pooled against 400 single layers pooled: two-sample Kolmogorov-Smirnov per parameter.
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    cls = {"linear": PopulationLinear, "gru": PopulationGRUCell, "lstm": PopulationLSTMCell}[name]
    population = cls(400, I, H, generator=generator)
    singles = [dict(single(name).named_parameters()) for _ in range(400)]
    for key, parameter in population.named_parameters():
        reference = torch.cat([s[key].detach().flatten() for s in singles])
        assert stats.ks_2samp(parameter.detach().flatten().numpy(), reference.numpy()).pvalue > 1e-3
        assert parameter.abs().max() <= reference.abs().max() * 1.01


def test_embeddings_start_standard_normal():
    layer = PopulationEmbedding(50, 11, H, generator=torch.Generator().manual_seed(0))
    assert stats.kstest(layer.weight.detach().flatten().numpy(), "norm").pvalue > 1e-3


def test_members_start_independently():
    layer = PopulationLinear(40, 30, 30, generator=torch.Generator().manual_seed(0))
    correlation = torch.corrcoef(layer.weight.detach().flatten(1))
    off_diagonal = correlation[~torch.eye(40, dtype=torch.bool)]
    # 900 independent numbers correlate with standard deviation 1 / 30.
    assert off_diagonal.abs().max() < 5 / 30


def test_the_generator_alone_decides_the_start():
    first = PopulationLSTMCell(2, I, H, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(99)
    again = PopulationLSTMCell(2, I, H, generator=torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(("rows", "columns"), [(6, 4), (4, 6), (5, 5)])
def test_orthogonal_start_has_orthogonal_shorter_sides_and_the_gain(rows, columns):
    weight = orthogonal_(torch.empty(3, rows, columns), gain=2.0, generator=torch.Generator().manual_seed(0))
    gram = weight.mT @ weight if rows >= columns else weight @ weight.mT
    torch.testing.assert_close(gram, 4 * torch.eye(min(rows, columns)).expand(3, -1, -1), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(weight[0], weight[1])


def test_mlp_gain_sets_the_last_layer_and_clears_biases():
    mlp = PopulationMLP(2, I, H, 4, gain=0.01, generator=torch.Generator().manual_seed(0))
    hidden, last = mlp.layers
    torch.testing.assert_close(torch.linalg.matrix_norm(last.weight, 2), torch.full((2,), 0.01))
    torch.testing.assert_close(torch.linalg.matrix_norm(hidden.weight, 2), torch.full((2,), math.sqrt(2)))
    assert not hidden.bias.any()


def test_mlp_equals_torchs_sequential():
    mlp = disturbed(PopulationMLP(2, I, H, H, 3))
    alone = nn.Sequential(nn.Linear(I, H), nn.Tanh(), nn.Linear(H, H), nn.Tanh(), nn.Linear(H, 3))
    weights = extract(mlp, 1)
    alone.load_state_dict({f"{2 * int(k.split('.')[1])}.{k.split('.')[2]}": v for k, v in weights.items()})
    x = random(2, R, I)
    torch.testing.assert_close(mlp(x)[1], alone(x[1]))


@pytest.mark.parametrize("name", LAYERS)
def test_insert_of_extract_moves_a_member_and_touches_no_other(name):
    layer = build(name, 3)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    insert(layer, 2, extract(layer, 0))
    for key, value in layer.state_dict().items():
        assert torch.equal(value[2], before[key][0])
        assert torch.equal(value[:2], before[key][:2])


def test_extract_is_a_copy():
    layer = build("linear", 2)
    extract(layer, 0)["bias"].fill_(7)
    assert not (layer.bias == 7).any()


def test_insert_refuses_wrong_names_shapes_and_members_and_writes_nothing():
    layer = build("linear", 2)
    before, weights = layer.weight.clone(), extract(layer, 0)
    with pytest.raises(UserError, match=r"'wieght'.*did you mean 'weight'"):
        insert(layer, 1, {"wieght": weights["weight"], "bias": weights["bias"]})
    with pytest.raises(UserError, match="'bias' is missing"):
        insert(layer, 1, {"weight": weights["weight"]})
    with pytest.raises(UserError, match=r"shape \(6, 8\), and must have \(8, 6\)"):
        insert(layer, 1, {**weights, "weight": weights["weight"].t()})
    with pytest.raises(UserError, match="members 0 to 1"):
        insert(layer, 2, weights)
    assert torch.equal(layer.weight, before)


def test_tanh_is_torchs_tanh_with_its_gradient():
    x = torch.linspace(-20, 20, 4001, requires_grad=True)
    reference = x.detach().clone().requires_grad_()
    y, expected = tanh(x), reference.tanh()
    torch.testing.assert_close(y, expected, atol=2e-7, rtol=0)
    y.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, reference.grad, atol=5e-7, rtol=0)
    assert torch.equal(tanh(x.detach()), y)


def test_unknown_activation_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'tanh'"):
        PopulationMLP(1, 2, 2, activation="tahn")
