"""Actions that the observation tells of are weighed one by one, by the same weights wherever they stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn import functional as F

from popcomm.agents import AGENTS, AgentSpec
from popcomm.agents.pointing import Pointing, make_pointing
from popcomm.agents.population import extract
from popcomm.agents.quality import QualityHead
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Symbols
from popcomm.envs.candidates import Candidates
from tests.agents.test_agents import SMALL

COUNT, SIZE, SEEN = 4, 3, 2
SPACE = spaces.Dict(before=spaces.Box(-1, 1, (SEEN,)), candidates=spaces.Box(-1, 1, (COUNT, SIZE)))
NUMBERS = SEEN + COUNT * SIZE
PLACE = Candidates(SEEN, COUNT, SIZE)


def place(members: int = 2, space: spaces.Space = SPACE, messages: Any = None, **rest: Any) -> AgentSpec:
    return AgentSpec(
        obs_size=spaces.flatdim(space), observation_space=space, action_space=spaces.Discrete(COUNT), messages=messages,
        inbox_size=0 if messages is None else 3, members=members, num_agents=4, **rest,
    )  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observed(members: int = 2, rows: int = 5) -> torch.Tensor:
    return torch.randn(members, rows, NUMBERS, generator=generator(1))


def moved(obs: torch.Tensor, order: list[int]) -> torch.Tensor:
    """The same, its candidates in another order."""
    rows = obs[..., SEEN:].unflatten(-1, (COUNT, SIZE))
    return torch.cat([obs[..., :SEEN], rows[..., order, :].flatten(-2)], -1)


def test_a_candidate_is_weighed_alike_wherever_it_stands() -> None:
    pointing, features, order = Pointing(PLACE, 2, 7, generator=generator()), torch.randn(2, 5, 7), [2, 0, 3, 1]
    found = pointing(features, observed())
    assert found.shape == (2, 5, COUNT)
    torch.testing.assert_close(pointing(features, moved(observed(), order)), found[..., order])


def test_a_logit_is_the_product_of_what_is_looked_for_and_of_what_is_there() -> None:
    pointing, features, obs = Pointing(PLACE, 2, 7, generator=generator()), torch.randn(2, 5, 7), observed()
    for member in range(2):
        own = extract(pointing, member)
        key = torch.tanh(obs[member, :, SEEN:].view(5, COUNT, SIZE) @ own["key.weight"].T + own["key.bias"])
        query = features[member] @ own["query.weight"].T
        expected = (key @ query.unsqueeze(-1)).squeeze(-1) / len(own["key.bias"]) ** 0.5
        torch.testing.assert_close(pointing(features, obs)[member], expected)


@pytest.mark.parametrize("features", [8, 64, 300])
def test_what_speaks_for_candidates_starts_as_loud_as_the_rest_of_a_policy(features: int) -> None:
    """One-hots, and features of root mean square .5: logits differ, and none is ruled out."""
    pointing = Pointing(Candidates(0, COUNT, 20), 1, features, 0.5, generator())
    obs = F.one_hot(torch.randint(20, (1, 500, COUNT), generator=generator(2)), 20).flatten(2).float()
    logits = pointing(0.5 * torch.randn(1, 500, features, generator=generator(3)), obs)
    assert 0.2 < logits.std() < 1.0


@pytest.mark.parametrize("name", AGENTS)
def test_agents_keep_their_contract_where_actions_are_told_of(name: str) -> None:
    agent_api_test(AGENTS[name], SMALL.get(name, {}), place(messages=Symbols(5, 2), sender_obs_size=NUMBERS))


@pytest.mark.parametrize("name", AGENTS)
def test_agents_weigh_candidates_where_there_are_any_and_only_there(name: str) -> None:
    def made(space: spaces.Space) -> Any:
        torch.manual_seed(0)
        return AGENTS[name](place(1, space), **SMALL.get(name, {}))

    weighs, plain = made(SPACE), made(spaces.Box(-1, 1, (NUMBERS,)))
    assert plain.pointing is None
    own = weighs.state_dict()
    assert {key for key in own if key not in plain.state_dict()} == {
        f"pointing.{key}" for key in weighs.pointing.state_dict()
    }
    # All others' weights start as they do without candidates, so that the difference is what speaks for them.
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(own[key], value, rtol=0, atol=0)
    obs = observed(1, 6)
    with torch.no_grad():
        output = weighs(obs, None, weighs.initial_state(6))
        less = output.action_logits - plain(obs, None, plain.initial_state(6)).action_logits
        torch.testing.assert_close(less, weighs.pointing(output.aux["features"], obs))


@pytest.mark.parametrize("name", ["mlp", "gru"])
def test_candidates_beside_a_picture_are_weighed(name: str) -> None:
    beside = spaces.Dict(candidates=spaces.Box(-1, 1, (COUNT, SIZE)), picture=spaces.Box(0, 255, (6, 6, 1), np.uint8))
    agent_api_test(AGENTS[name], SMALL.get(name, {}), place(1, beside))


def test_where_nothing_is_told_of_actions_nothing_is_weighed() -> None:
    assert make_pointing(place(space=spaces.Box(-1, 1, (NUMBERS,))), 7) is None


def test_what_a_candidate_is_worth_does_not_hang_on_its_place() -> None:
    head = QualityHead(2, 7, spaces.Discrete(COUNT), pointing=Pointing(PLACE, 2, 7, generator=generator()))
    torch.nn.init.zeros_(head.net.layers[-1].weight)  # what an action is worth by its place
    features, actions, order = torch.randn(2, 5, 7), torch.full((2, 5), 1), [2, 0, 3, 1]
    bias = head.net.layers[-1].bias
    found = head(features, actions, observed()) - bias[:, 1:2]
    torch.testing.assert_close(head(features, torch.full((2, 5), 3), moved(observed(), order)) - bias[:, 3:4], found)


def test_a_pointer_finds_the_wanted_candidate_at_a_place_where_it_never_was() -> None:
    """Trained with what is wanted at places 0 to 2, asked with it at place 3: weights for places know nothing of it."""
    pointing = Pointing(PLACE, 1, SIZE, generator=generator())
    optimizer = torch.optim.Adam(pointing.parameters(), lr=0.02)

    def games(places: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        source = generator(seed)
        rows = torch.randn(1, 256, COUNT, SIZE, generator=source).sign()
        answer = torch.randint(places, (1, 256), generator=source) if places else torch.full((1, 256), COUNT - 1)
        wanted = rows.gather(2, answer.view(1, -1, 1, 1).expand(-1, -1, 1, SIZE)).squeeze(2)
        obs = torch.cat([torch.zeros(1, 256, SEEN), rows.flatten(2)], -1)
        return wanted, obs, answer

    for step in range(60):
        wanted, obs, answer = games(COUNT - 1, step)
        loss = F.cross_entropy(pointing(wanted, obs).flatten(0, 1), answer.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    wanted, obs, answer = games(0, 1000)
    logits = pointing(wanted, obs)
    # Others may be like it; then either is right.
    rows = obs[..., SEEN:].unflatten(-1, (COUNT, SIZE))
    picked = rows.gather(2, logits.argmax(-1).view(1, -1, 1, 1).expand(-1, -1, 1, SIZE)).squeeze(2)
    assert (picked == wanted).all(-1).float().mean() > 0.97
