"""Games of several turns: bounds, interference and what messages tell, of hand-made plays; and its page."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import turn_taking as turns
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.turn_taking import EXPERIMENT, GAMES, Instead, Played, in_reverse, most

MEANINGS = np.array(list(product(range(8), range(8))))


def told(said: np.ndarray, meanings: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What hand-made rounds [E, T] tell, of PLAYED = 32 worlds."""
    monkeypatch.setattr(turns, "PLAYED", 32)
    monkeypatch.setattr(turns, "_attributes", lambda population: MEANINGS)
    worlds = np.tile(np.arange(32), len(said) // 32)
    return turns.told(Played(said, said * 0, meanings, worlds, 1.0), SimpleNamespace())  # type: ignore[arg-type]


def drawn(rounds: int = 3200) -> np.ndarray:
    return np.random.default_rng(0).integers(64, size=rounds)


def test_the_best_that_is_possible_without_answers_is_known() -> None:
    assert most(GAMES["one"]) == 1 / 5
    assert most(GAMES["two"]) == most(GAMES["four"]) == 1
    # By trial: 8 cells of 8 meanings, 7 others without replacement, the target guessed among those of its cell.
    rng = np.random.default_rng(0)
    others = np.array([rng.choice(63, 7, replace=False) for _ in range(20_000)])
    assert most(GAMES["pick"]) == pytest.approx((1 / (1 + (others < 7).sum(1))).mean(), abs=0.01)


@pytest.mark.parametrize("arm", GAMES)
def test_every_game_is_a_config_whose_fragments_are_whole_episodes(arm: str) -> None:
    config = turns.settings(arm, 1)
    config.validate()
    game = GAMES[arm]
    assert config.rollout_fragment_length == config.env_config["rounds"] * game.turns + 2
    links = config.plan.channel.topology.connect(torch.ones(1, 2, dtype=torch.bool))
    assert links.mask[0].any(-1).tolist() == [game.talks_back, True]


def test_the_messages_of_a_round_come_in_reverse_and_those_after_the_last_stay() -> None:
    messages = torch.arange(7).view(7, 1, 1)
    assert in_reverse(messages, 3).flatten().tolist() == [2, 1, 0, 5, 4, 3, 6]
    assert in_reverse(messages, 1).flatten().tolist() == list(range(7))


def test_the_speaker_is_heard_to_say_something_else_and_the_listener_is_not() -> None:
    instead = Instead(torch.full((2, 4, 1), 5))
    said = torch.tensor([[[1], [2]]]).repeat(4, 1, 1)
    heard, voice = instead(None, said, torch.ones(4, 2), None)  # type: ignore[arg-type]
    assert heard[:, 0].flatten().tolist() == [5] * 4
    assert heard[:, 1].flatten().tolist() == [2] * 4
    assert said[0, 0, 0] == 1, "what was really said stays"
    assert voice.all()


def test_a_code_of_slots_tells_more_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    meanings = drawn()
    found = told(MEANINGS[meanings], meanings, monkeypatch)
    assert found["sequence"] == pytest.approx(6, abs=0.1)
    # A bag of two of eight symbols: 36 of them, those of different symbols twice as likely.
    bags = -(8 * (1 / 64) * np.log2(1 / 64) + 28 * (2 / 64) * np.log2(2 / 64))
    assert found["bag"] == pytest.approx(bags, abs=0.1)
    assert found["posdis"] == pytest.approx(1, abs=0.02)


def test_who_repeats_itself_has_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    meanings = drawn()
    said = MEANINGS[meanings][:, :1].repeat(2, 1)
    found = told(said, meanings, monkeypatch)
    assert found["same"] == 1
    assert found["sequence"] == pytest.approx(found["bag"])
    assert found["plain"] > 0.5, "persistence passes for order"
    assert found["turn"] == 0, "and not where it is taken out"
    assert found["turn p"] == 1


def test_a_fixed_turn_of_two_words_is_order_and_a_random_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each meaning has two words; whether their turn is fixed decides."""
    meanings = drawn()
    fixed = MEANINGS[meanings]
    found = told(fixed, meanings, monkeypatch)
    assert found["turn"] == pytest.approx(7 / 8, abs=0.02), "a bit, but for the eighth that have one word twice"
    assert found["turn p"] == pytest.approx(1 / (turns.SHUFFLES + 1))
    free = np.random.default_rng(1).permuted(fixed, axis=1)
    found = told(free, meanings, monkeypatch)
    assert abs(found["turn"]) < 0.02
    assert found["turn p"] > 0.05


def record(arm: str, seed: int, accuracy: float, turned: float) -> dict[str, Any]:
    one = GAMES[arm].turns == 1
    order = {"plain": 1.0, "turn": 0.4, "turn p": 0.03, "same": 0.1, "posdis": 0.5}
    return {
        "arm": arm, "seed": seed, "env_steps": 1000, "accuracy": accuracy + 0.001 * seed, "reversed": turned,
        "of others": 0.02, "astray": accuracy - 0.2, "sequence": 5.0 + 0.01 * seed, "bag": 4.0,
        **(dict.fromkeys(order) if one else order), "seconds": 3.0, "curve": [],
    }  # fmt: skip


def test_claims_follow_the_intervals_and_the_page_is_written() -> None:
    records = [
        record(arm, seed, {"one": 0.12, "pick, answered": 0.6}.get(arm, 0.9), 0.3)
        for arm in GAMES
        for seed in (1, 2, 3)
    ]
    groups = turns.grouped(records)
    holds = {claim.text: claim.holds for claim in turns.claims(groups)}
    assert holds["Order matters to who listens (two turns): accuracy in order less that in reverse"]
    assert holds["Two turns say more than one can at best"]
    assert not holds["Who talks back negotiates: more is picked than can be where nobody does"], ".6 is below .683"
    assert holds["What the listener says matters: accuracy less that with its messages gone astray"]
    page = markdown(EXPERIMENT, records, "python -m x")
    assert "nan" not in page
    assert "None" not in page
    assert "| two turns | 3 |" in page
    assert turns.draw(records).axes
    assert markdown(EXPERIMENT, records[:1], "python -m x")


@pytest.mark.parametrize(("accuracy", "told"), [(0.12, "Not learned"), (0.4, "learned in part"), (0.7, None)])
def test_the_page_says_how_far_the_games_of_picking_were_learned(accuracy: float, told: str | None) -> None:
    page = markdown(EXPERIMENT, [record("pick", seed, accuracy, 0.3) for seed in (1, 2)], "python -m x")
    assert [text for text in ("Not learned", "learned in part") if text in page] == ([told] if told else [])


def test_frozen_players_are_asked_in_the_same_rounds_whatever_is_done_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained pair: what it says is recorded, and heard again in its order it is understood as before."""
    from popcomm.analysis.experiments.local_training import LocalTraining

    monkeypatch.setattr(turns, "PLAYED", 8)
    population = LocalTraining(turns.settings("two, answered", 1), 8).population()
    played, messages = turns.play(population, GAMES["two"], 1)
    again, heard = turns.play(population, GAMES["two"], 1, Instead(messages))
    assert played.said.shape == (8 * 15, 2)
    assert np.array_equal(played.meanings, again.meanings)
    assert again.accuracy == played.accuracy
    assert torch.equal(heard, messages)
