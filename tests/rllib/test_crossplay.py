"""Cross-play against hand-built languages: who understands whom is known beforehand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.crossplay import CrossPlay, cross_play
from tests.rllib.test_rollout import clock_config, population_of, runner_of
from tests.rllib.test_supervision import game_config

SURE = 50.0  # a logit beside zeros
A, V = 2, 3  # attributes and values of the games here; symbol v + 1 stands for value v


class Codebook(nn.Module):
    """Member m says value v of the first attribute as if it were v + m, and understands it so; the second as it is.

    `rotate` is taken by m: 0 gives all members one language. With `constant` every message is the same. One network
    serves speakers and listeners, and finds in its observation what its role shows it.
    """

    has_auxiliary_losses = False

    def __init__(self, spec: AgentSpec, rotate: int = 1, constant: bool = False, roles: str = "fixed") -> None:
        super().__init__()
        self.spec, self.constant, self.swapping = spec, constant, roles == "swapping"
        # Everything a member owns is a parameter, as the contract wants it.
        turn = torch.arange(spec.members) * rotate
        self.turn = nn.Parameter(torch.stack([turn, torch.zeros_like(turn)], -1).float())  # [P, A]

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        members, rows = obs.shape[:2]
        turn = self.turn.long().unsqueeze(1)
        answers = torch.zeros(members, rows, self.spec.action_params_size)
        message = None
        if self.spec.sends is not None:
            seen = obs[..., 2:] if self.swapping else obs
            values = seen[..., : A * V].unflatten(-1, (A, V)).argmax(-1)
            symbols = torch.zeros_like(values) if self.constant else (values + turn) % V + 1
            message = SURE * nn.functional.one_hot(symbols, V + 1).float()
        if self.spec.receives is not None and inbox is not None:
            guess = (inbox.messages[:, :, 0] - 1 - turn) % V
            answers = self._answer(obs, nn.functional.one_hot(guess, V).float().flatten(-2))
        return AgentOutput(SURE * answers, message, obs.new_zeros(members, rows), {}, {})

    def _answer(self, obs: Tensor, guess: Tensor) -> Tensor:
        """guess [P, R, A V] -> logits: itself, or how much of it each candidate has."""
        if isinstance(self.spec.action_space, spaces.MultiDiscrete):
            return guess
        count = int(self.spec.action_params_size)
        candidates = obs[..., -count * A * V :].unflatten(-1, (count, A * V))
        return (candidates * guess.unsqueeze(-2)).sum(-1)

    def auxiliary_losses(self, batch: Any, outputs: AgentOutput) -> dict[str, Tensor]:
        return {}


def algorithm_of(config: PopulationPPOConfig) -> Any:
    """What cross_play takes of an algorithm, without Ray: its learner has the weights that a runner starts with."""
    weights = runner_of(config).module.get_state()
    return population_of(config, SimpleNamespace(get_weights=lambda: weights))


def codebooks(members: Any, env: dict[str, Any] | None = None, **book: Any) -> Any:
    config = game_config(members, Codebook, env=env or {})
    return algorithm_of(config.population(agent_config=book))


def play(members: Any, split: str | None = None, env: dict[str, Any] | None = None, **book: Any) -> CrossPlay:
    return cross_play(codebooks(members, env, **book), split)


def test_all_understand_all_where_all_have_one_language() -> None:
    found = play({"speaker": 2, "listener": 3}, rotate=0)
    assert found.accuracy.tolist() == found.attribute_accuracy.tolist() == [[1.0] * 3] * 2
    assert found.meanings.tolist() == [[a, b] for a in range(3) for b in range(3)]
    assert (found.messages == found.meanings + 1).all()


def test_rows_are_speakers_and_columns_listeners() -> None:
    """Listener m reads the first attribute as speaker m says it, and no other; the second all understand."""
    found = play({"speaker": 2, "listener": 3})
    assert found.accuracy.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert found.attribute_accuracy.tolist() == [[1, 0.5, 0.5], [0.5, 1, 0.5]]
    assert found.messages.shape == (2, 9, 2)
    assert (found.messages[1, :, 0] == (found.meanings[:, 0] + 1) % 3 + 1).all()


def test_of_a_speaker_that_always_says_the_same_one_meaning_in_nine_is_understood() -> None:
    found = play({"speaker": 1, "listener": 2}, constant=True)
    assert found.accuracy == pytest.approx(np.full((1, 2), 1 / 9))
    assert found.attribute_accuracy == pytest.approx(np.full((1, 2), 1 / 3))


def test_who_picks_finds_the_candidate_that_was_spoken_of() -> None:
    env = {"task": "pick", "distractors": 3}
    assert play(2, env=env, rotate=0).accuracy.tolist() == [[1, 1], [1, 1]]
    apart = play(2, env=env)
    assert apart.accuracy.diagonal().tolist() == [1, 1]
    # The meaning that is understood instead shares the second attribute with the one that was meant, and is among the
    # candidates or not.
    assert apart.accuracy[0, 1] < 1
    assert (apart.accuracy == apart.attribute_accuracy).all()


def test_one_who_says_nothing_new_lets_a_listener_pick_at_chance() -> None:
    """Whatever it takes the message for, the target is no likelier than the others: one of four, over nine meanings."""
    algorithm = codebooks(1, {"task": "pick", "distractors": 3}, constant=True)
    mean = np.mean([cross_play(algorithm, seed=seed).accuracy for seed in range(200)])
    assert abs(mean - 0.25) < 4 * (0.25 * 0.75 / (200 * 9)) ** 0.5


def test_the_seed_decides_the_candidates() -> None:
    algorithm = codebooks(2, {"task": "pick", "distractors": 3, "values": 3})
    one, same, other = (cross_play(algorithm, seed=seed).accuracy[0, 1] for seed in (0, 0, 3))
    assert one == same
    assert one != other


def test_those_who_take_turns_play_both_parts() -> None:
    found = play(3, env={"roles": "swapping", "num_agents": 3}, roles="swapping")
    assert (found.accuracy == np.eye(3)).all()


def test_held_out_meanings_are_played_where_they_are_asked_for() -> None:
    algorithm = codebooks(1, {"held_out": 0.34}, rotate=0)
    parts = {split: cross_play(algorithm, split) for split in ("train", "held_out", "all", None)}
    meanings = {split: {tuple(row) for row in found.meanings.tolist()} for split, found in parts.items()}
    assert meanings[None] == meanings["train"]
    assert len(meanings["held_out"]) == 3
    assert not meanings["held_out"] & meanings["train"]
    assert meanings["held_out"] | meanings["train"] == meanings["all"]
    assert all(found.messages.shape[1] == len(found.meanings) for found in parts.values())
    assert all(found.accuracy == 1 for found in parts.values())


def test_the_learners_weights_are_played_and_chance_has_no_part_in_it() -> None:
    """Symbols are said one by one, the likeliest each time: the same again, whatever was drawn in between."""
    algorithm = algorithm_of(game_config({"speaker": 3, "listener": 2}))
    first = cross_play(algorithm)
    torch.manual_seed(5)
    played = algorithm.rollout()
    played.begin()
    played.step()
    again = cross_play(algorithm)
    assert (first.messages == again.messages).all()
    assert (first.accuracy == again.accuracy).all()
    weights = algorithm.learner_group.get_weights()
    for key in weights["speaker"]:
        weights["speaker"][key] = weights["speaker"][key][::-1].copy()
    turned = cross_play(algorithm)
    assert (turned.messages == first.messages[::-1]).all()
    assert (turned.accuracy == first.accuracy[::-1]).all()


@pytest.mark.parametrize(
    ("config", "split", "sentence"),
    [
        (clock_config(), None, "cross_play needs referential_v0, and the environment is ClockWorld"),
        (game_config(env={"turns": 2}), None, "cross_play needs games of one turn, and env_config.turns is 2"),
        (game_config(communication={"messages": None}), None, "cross_play needs messages, and communication.messages"),
        (game_config(), "held_out", "split is 'held_out', and must be 'train' or 'all' where held_out is 0"),
        (game_config(), "test", "split 'test' does not exist"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_sentence(
    config: PopulationPPOConfig, split: str | None, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        cross_play(algorithm_of(config), split)
    assert "\n" not in str(caught.value)
