"""Pictures in networks: convolutions for a population, and agents that see through them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from popcomm.agents import AGENTS, AgentSpec, PictureEncoder, PopulationConv2d, extract, insert
from popcomm.agents.convolution import make_eye
from popcomm.agents.pretrained import spec_from_json, spec_to_json
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Symbols
from popcomm.envs.sight import Picture
from popcomm.errors import UserError
from tests.agents.test_testing import SMALL

PICTURE = spaces.Box(0, 255, (12, 10, 3), np.uint8)
BESIDE = spaces.Dict({"eye": PICTURE, "where": spaces.Box(-1, 1, (2,), np.float32)})
SEEING = ("mlp", "symbolic", "gru", "commnet", "ic3net", "tarmac", "heterogeneous")


def place(space: spaces.Space = PICTURE, members: int = 3) -> AgentSpec:
    spec = AgentSpec(
        spaces.flatdim(space), spaces.Discrete(4), Symbols(5, 3), 3, members, num_agents=5, observation_space=space
    )
    return replace(spec, sender_obs_size=spec.glimpse_size)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (4, 2, 1), (8, 4, 2)])
@pytest.mark.parametrize("members", [1, 3])
def test_a_population_of_convolutions_is_that_many_of_torchs(
    members: int, kernel: int, stride: int, padding: int
) -> None:
    layer = PopulationConv2d(members, 2, 5, kernel, stride, padding)
    x = torch.randn(members, 4, 2, 16, 12, requires_grad=True)
    out = layer(x)
    out.square().sum().backward()
    assert x.grad is not None
    for member in range(members):
        alone = nn.Conv2d(2, 5, kernel, stride, padding)
        alone.load_state_dict(extract(layer, member))
        own = x[member].detach().clone().requires_grad_()
        expected = alone(own)
        torch.testing.assert_close(out[member], expected)
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad[member], own.grad, atol=1e-5, rtol=1e-4)
        assert alone.weight.grad is not None
        torch.testing.assert_close(layer.weight.grad[member], alone.weight.grad, atol=1e-4, rtol=1e-4)


def test_a_member_goes_back_in() -> None:
    one, other = PopulationConv2d(3, 2, 4, 3), PopulationConv2d(1, 2, 4, 3)
    insert(one, 1, extract(other, 0))
    assert torch.equal(one.weight[1], other.weight[0])


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ((84, 84, 3), (5, 5)),
        ((16, 16, 1), (8, 8)),
        ((7, 7, 3), (3, 3)),
        ((3, 5), (3, 5)),
        ((3, 40, 60), (5, 7)),
        ((2, 64, 4), (32, 2)),
    ],
)
def test_a_picture_is_made_small(shape: tuple[int, ...], left: tuple[int, int]) -> None:
    encoder = PictureEncoder(2, Picture(0, shape), 6)
    assert encoder.out.weight.shape[1] == encoder.layers[-1].weight.shape[1] * left[0] * left[1]
    planes = torch.rand(2, 3, *Picture(0, shape).size)
    assert encoder(planes).shape == (2, 3, 6)


@pytest.mark.parametrize("space", [PICTURE, BESIDE], ids=["picture", "beside"])
@pytest.mark.parametrize("encoder", [None, "cnn", "flat"])
@pytest.mark.parametrize("name", SEEING)
def test_agents_keep_their_contract_with_pictures(name: str, encoder: str | None, space: spaces.Space) -> None:
    agent_api_test(AGENTS[name], {**SMALL[name], "encoder": encoder}, place(space))


def test_the_tiny_agent_sees_their_numbers() -> None:
    agent_api_test(AGENTS["tiny"], SMALL["tiny"], place())


@pytest.mark.parametrize("name", SEEING)
def test_it_is_on_by_itself_where_there_is_a_picture(name: str) -> None:
    def shapes(space: spaces.Space, **config: Any) -> set[str]:
        return {key.split(".")[0] for key in AGENTS[name](place(space), **SMALL[name], **config).state_dict()}

    plain = spaces.Box(-1, 1, (6,), np.float32)
    assert "eye" in shapes(PICTURE)
    assert "eye" not in shapes(PICTURE, encoder="flat") | shapes(plain)
    with pytest.raises(UserError, match="encoder is 'cnn', and there is no picture in the observation Box"):
        shapes(plain, encoder="cnn")
    with pytest.raises(UserError, match=r"agent_config.encoder 'cn' does not exist; did you mean 'cnn'"):
        shapes(PICTURE, encoder="cn")


def test_an_eye_gives_features_and_what_is_beside_the_picture() -> None:
    eye = make_eye(place(BESIDE), None, 7)
    assert eye is not None
    obs = torch.rand(3, 4, 362)
    seen = eye(obs)
    assert seen.shape == (3, 4, eye.size) == (3, 4, 9)
    assert torch.equal(seen[..., 7:], obs[..., 360:])


def test_a_spec_with_pictures_survives_json() -> None:
    again = spec_from_json(spec_to_json(place()))
    assert again == place()
    assert again.obs_dtype == torch.uint8
