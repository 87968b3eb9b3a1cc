"""Candidates: the entry of an observation that tells of every action, and where it lies in the flat vector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.agents import AgentSpec, TinyAgent
from popcomm.agents.acting import spec_for
from popcomm.envs import ParallelEnvWorld, referential_v0, with_messages
from popcomm.envs.candidates import Candidates, candidates_of
from popcomm.envs.checking import EnvCheck, check_env
from popcomm.envs.foreign import structure_behind
from popcomm.envs.referential_v0 import ReferentialWorld
from popcomm.envs.species import with_species
from tests.envs.scripted_env import SpaceEnv

THREE = spaces.Discrete(3)


def box(*shape: int, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(0, 1, shape, dtype)


@pytest.mark.parametrize(
    ("space", "found"),
    [
        (spaces.Dict(candidates=box(3, 2)), Candidates(0, 3, 2)),
        (spaces.Dict(before=box(5), candidates=box(3, 2), zone=THREE), Candidates(5, 3, 2)),
        (spaces.Dict(candidates=box(3, 2, 2)), Candidates(0, 3, 4)),  # rows of any shape
        (spaces.Dict(a=THREE, own=spaces.Dict(candidates=box(3, 1))), Candidates(3, 3, 1)),
        (spaces.Dict(candidates=box(4, 2)), None),  # another number than there are actions
        (spaces.Dict(candidates=box(3)), None),
        (spaces.Dict(candidates=box(3, 2, dtype=np.int64)), Candidates(0, 3, 2)),
        (spaces.Dict(candidates=spaces.Box(0, 255, (3, 2), np.uint8)), None),  # a picture
        (spaces.Dict(candidates=spaces.Box(0, 255, (3, 8, 8, 3), np.uint8)), None),  # far from one in size
        (spaces.Dict(candidates=THREE), None),
        (spaces.Dict(others=box(3, 2)), None),
        (box(3, 2), None),
        (None, None),
    ],
)  # fmt: skip
def test_candidates_are_rows_as_many_as_there_are_actions(space: spaces.Space | None, found: Any) -> None:
    assert candidates_of(space, THREE) == found


@pytest.mark.parametrize("action_space", [spaces.MultiDiscrete([3]), box(3)])
def test_only_one_choice_has_candidates(action_space: spaces.Space) -> None:
    assert candidates_of(spaces.Dict(candidates=box(3, 2)), action_space) is None


def test_rows_are_those_that_were_flattened() -> None:
    space = spaces.Dict(after=box(2), candidates=box(3, 2, 2), zone=spaces.Discrete(4))
    sample = space.sample()
    found = candidates_of(space, THREE)
    assert found is not None
    flat = torch.from_numpy(spaces.flatten(space, sample)).float()
    np.testing.assert_array_equal(found.rows(flat.expand(5, 1, -1))[4, 0], sample["candidates"].reshape(3, 4))


@pytest.mark.parametrize("options", [{}, {"roles": "swapping", "num_agents": 3}])
@pytest.mark.parametrize("agent_id", [False, True])
def test_a_listener_that_picks_is_told_of_every_answer(options: dict[str, Any], agent_id: bool) -> None:
    world = ReferentialWorld(num_worlds=4, task="pick", distractors=2, attributes=2, values=3, **options)
    told = with_species(world, agent_id=agent_id)
    told.reset(seed=1)
    quiet = {name: torch.zeros(4, s.num_seats, dtype=torch.int64) for name, s in told.species.items()}
    seen = told.step(quiet)  # the first round is heard of
    name = list(told.species)[-1]
    spec = AgentSpec.of(told.species[name], messages=None, inbox_size=0)
    assert spec.candidates is not None
    rows = spec.candidates.rows(seen.observations[name])
    assert rows.shape == (4, told.species[name].num_seats, 3, 6)
    assert seen.answers is not None
    answers = seen.answers[name]
    listens = answers >= 0
    right = rows[listens].gather(1, answers[listens].view(-1, 1, 1).expand(-1, 1, 6)).squeeze(1)
    # The state is what is spoken of now; a speaker saw what is answered now one step before.
    targets = world.meanings[world._episode.targets[0]]
    expected = torch.nn.functional.one_hot(targets, 3).flatten(1).float()
    world_of = listens.nonzero()[:, 0]
    torch.testing.assert_close(right, expected[world_of])
    assert (rows[~listens] == 0).all()


def test_listeners_that_reconstruct_have_no_candidates() -> None:
    for species in ReferentialWorld(values=3).species.values():
        assert AgentSpec.of(species, messages=None, inbox_size=0).candidates is None


def checked(rows: int, nested: bool = False) -> EnvCheck:
    space: spaces.Space = spaces.Dict(candidates=box(rows, 2), own=box(3))
    space = spaces.Dict(observation=space) if nested else space
    return check_env(lambda _: SpaceEnv({"a_0": (space, space.sample(), THREE)}), num_steps=4)


def test_a_check_tells_of_candidates() -> None:
    check = checked(3)
    assert check.facts["candidates"] == ["'a' is told of 3 actions in 2 numbers each"]
    assert not [note for note in check.notes if "candidates" in note]


@pytest.mark.parametrize("nested", [False, True])
def test_a_check_tells_of_candidates_that_do_not_fit(nested: bool) -> None:
    check = checked(4, nested)
    assert "candidates" not in check.facts
    assert len([note for note in check.notes if "candidates Box" in note and "row for each action" in note]) == 1


# ---- the face of a world shows numbers, and what they are is known behind it ----

GAME: dict[str, Any] = {"task": "pick", "distractors": 3, "values": 4}


def talking_face() -> Any:
    symbols = {"kind": "symbols", "vocab_size": 4, "length": 2}
    return with_messages(referential_v0.parallel_env(**GAME), topology={"kind": "full"}, messages=symbols)


def test_an_agent_for_the_face_of_a_world_is_told_of_candidates_too() -> None:
    env = talking_face()
    own = AgentSpec.of(ReferentialWorld(**GAME).species["listener"], messages=None, inbox_size=0)
    assert spec_for(env, "listener_0").candidates == own.candidates == Candidates(1, 4, 8)
    assert spec_for(env, "speaker_0").candidates is None


def test_a_world_of_faces_is_told_of_candidates_too() -> None:
    world = ParallelEnvWorld(referential_v0.parallel_env, 2, **GAME)
    listener = next(s for s in world.species.values() if "listener_0" in s.agents)
    assert AgentSpec.of(listener, messages=None, inbox_size=0).candidates == Candidates(1, 4, 8)


def test_what_a_wrapper_shows_is_not_taken_for_what_is_behind_it() -> None:
    env = referential_v0.parallel_env(**GAME)
    bounded = spaces.Box(0, 1, env.observation_space("listener_0").shape)
    assert structure_behind(env, "listener_0", env.observation_space("listener_0")) is not None
    assert structure_behind(env, "listener_0", bounded) is None


@pytest.mark.parametrize("weighs", [True, False])
def test_a_saved_agent_weighs_candidates_as_it_was_made_to_wherever_it_acts(weighs: bool, tmp_path: Any) -> None:
    env = talking_face()
    spec = spec_for(env, "listener_0")
    made = replace(spec, observation_space=spec.observation_space if weighs else box(spec.obs_size))
    agent = TinyAgent(made, hidden_dim=16, num_heads=4, latent_tokens=4, depth=1)
    agent.save_pretrained(tmp_path)
    loaded = TinyAgent.from_pretrained(tmp_path, spec)
    obs = torch.randn(1, 5, spec.obs_size)
    with torch.no_grad():
        logits = [one(obs, None, one.initial_state(5)).action_logits for one in (agent, loaded)]
    torch.testing.assert_close(*logits)
    assert (loaded.pointing is not None) == weighs
