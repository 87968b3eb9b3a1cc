"""The evolution of vocabularies: diaries and conversations made by hand, whose drift is known."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd
import pytest
from popcomm.analysis.experiments import vocabulary_evolution
from popcomm.analysis.experiments.evolution_games import Diary, spaced
from popcomm.analysis.experiments.evolution_measures import (
    ON_MEANING,
    OVERALL,
    RENAMED,
    Curve,
    of_games,
    of_swarm,
    said_at,
    settled_by,
)
from popcomm.analysis.experiments.frame import markdown, write
from popcomm.analysis.experiments.vocabulary_evolution import EXPERIMENT
from popcomm.analysis.history import History

from popcomm.errors import UserError
from popcomm.language.recording import conversation_path, write_conversations

GAMES = np.array([100, 200, 400, 800, 20_000])
MEANINGS, COPIES = 10, 32


def diary(shifts: list[int], accuracy: list[float], speakers: int = 2) -> Diary:
    """Speakers who say (meaning + shift) mod 10 and a 7, always."""
    names = (np.arange(MEANINGS)[None] + np.array(shifts)[:, None]) % MEANINGS  # [C, M]
    said = np.stack([names, np.full_like(names, 7)], -1)[:, None].repeat(speakers, 1)
    drawn = said[:, :, :, None].repeat(COPIES, 3)
    return Diary(GAMES, np.array(accuracy)[:, None, None] * np.ones((1, speakers, 3)), said, drawn)


def test_words_that_swap_meanings_are_seen_by_meaning_only_and_settle_when_they_rest():
    """All meanings are renamed twice, last between 200 and 400 games; the set of words is always the same."""
    curve = of_games(diary([0, 1, 3, 3, 3], [0.1, 0.5, 0.96, 0.9, 1.0]), seed=1)
    assert curve.measures[RENAMED].consecutive.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert curve.measures[ON_MEANING].consecutive == pytest.approx([1.0, 1.0, 0.0, 0.0])
    assert curve.measures[OVERALL].consecutive == pytest.approx(np.zeros(4))
    assert curve.settled(RENAMED) == curve.settled(ON_MEANING) == 400
    assert curve.settled(OVERALL) == 100
    assert curve.won == 20_000  # after the relapse at 800
    assert np.isnan(curve.kept())  # nothing comes after the last checkpoint
    assert settled_by([curve], RENAMED, 399) == 0
    assert settled_by([curve], RENAMED, 400) == 1


def test_names_kept_are_those_of_the_first_checkpoint_after_the_win():
    won = diary([0, 0, 0, 0, 0], [0.1, 1.0, 1.0, 1.0, 1.0])
    won.said[4, 0, :4, 1] = 3  # one of two speakers renames four of ten meanings
    curve = of_games(won, seed=1)
    assert curve.won == 200
    assert curve.kept() == pytest.approx(1 - 0.4 / 2)
    assert curve.settled(RENAMED) is None


def test_checkpoints_are_a_factor_of_1_4_apart_and_end_with_the_last():
    assert spaced(16) == [1, 2, 3, 4, 6, 8, 11, 16]
    assert spaced(9) == [1, 2, 3, 4, 6, 8, 9]
    assert spaced(1) == [1]


def test_a_diary_comes_back_from_its_file(tmp_path):
    before = diary([0, 1, 2, 3, 4], [0.0] * 5)
    before.save(tmp_path / "games" / "pair.npz")
    after = Diary.load(tmp_path / "games" / "pair.npz")
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert [p.name for p in (tmp_path / "games").iterdir()] == ["pair.npz"]


# ---- the swarm ----


def test_messages_are_dated_by_the_episodes_of_their_world_before_them():
    """World 0 starts in the middle of an episode (2 steps), then 4; world 1 has episodes of 4. One step between."""
    table = pd.DataFrame(
        {"world": [0, 0, 0, 0, 1, 1, 1], "episode": [0, 0, 1, 2, 0, 0, 1], "step": [0, 1, 3, 0, 0, 3, 2]}
    )
    assert said_at(table).tolist() == [0, 1, 3 + 3, 3 + 5, 0, 3, 5 + 2]


def swarm(folder, turn: int, episodes: int = 8, steps: int = 9, agents: int = 40) -> History:
    """One world and one label. All say 1, and from episode `turn` on 2. A part for each two episodes, overlapping."""
    for last in range(0, episodes, 2):
        kept = [e for e in (last - 1, last, last + 1) if e >= 0]
        grid = [a.ravel() for a in np.meshgrid(kept, np.arange(steps), np.arange(agents), indexing="ij")]
        rows = {"episode": grid[0], "step": grid[1], "sender": grid[2], "symbols": 1 + (grid[0] >= turn)[:, None]}
        same = {name: np.zeros(len(grid[0]), int) for name in ("world", "member", "label")}
        when = {name: np.full(len(grid[0]), last + 2) for name in ("iteration", "env_steps")}
        species = {"species": ["swarm"] * len(grid[0])}
        write_conversations(conversation_path(folder, last + 2), rows | same | when | species)
    return History.read(folder, most_parts=None)


def test_a_swarm_that_changes_its_word_once_settles_there(tmp_path):
    """Windows are the episodes (with the step between them); checkpoints are windows 1, 2, 3, 4, 6 and 8."""
    curve = of_swarm(swarm(tmp_path, turn=3), seed=1, worlds=20, steps=9, window=10, vocab_size=4)
    assert curve.episodes == pytest.approx((np.array([1, 2, 3, 4, 6, 8]) - 0.5) * 20)
    for name in (ON_MEANING, OVERALL):
        assert curve.measures[name].consecutive == pytest.approx([0, 0, 1, 0, 0])
        assert curve.measures[name].to_last == pytest.approx([1, 1, 1, 0, 0])
        assert curve.settled(name) == pytest.approx(3.5 * 20)
    assert curve.won is None


def test_episodes_that_several_parts_hold_count_once(tmp_path):
    history = swarm(tmp_path, turn=99)
    assert len(history.table) == len(history.symbols) == 8 * 9 * 40
    assert history.env_steps.tolist() == [2, 4, 6, 8]
    # A part holds two new episodes; the first has episodes 0 and 1.
    assert np.bincount(history.checkpoint).tolist() == [2 * 9 * 40] * 4


def test_many_parts_are_thinned_and_joined_to_even_checkpoints(tmp_path):
    swarm(tmp_path, turn=99)
    history = History.read(tmp_path, most_parts=3, checkpoints=2)
    assert len(history.env_steps) == 2
    assert history.env_steps[-1] == 8


def test_rows_of_the_mute_are_no_messages_and_no_folder_has_none(tmp_path):
    rows = {
        **{
            name: np.zeros(4, int) for name in ("iteration", "env_steps", "world", "episode", "step", "member", "label")
        },
        "sender": np.arange(4),
        "species": ["speaker", "speaker", "listener", "listener"],
        "symbols": [[1, 2], [3, 4], None, None],
    }
    write_conversations(conversation_path(tmp_path, 1), rows)
    assert History.read(tmp_path).symbols.tolist() == [[1, 2], [3, 4]]
    assert len(History.read(tmp_path / "nowhere").symbols) == 0
    conversation_path(tmp_path, 1).write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no whole Parquet file"):
        History.read(tmp_path)


# ---- the page ----


def arms(tmp_path) -> dict[str, list[Curve]]:
    won = [0.1, 1.0, 1.0, 1.0, 1.0]
    return {
        "pair, bonus": [of_games(diary([0, 1, 2, 3, 4], won), seed) for seed in (1, 2)],
        "pair, no bonus": [of_games(diary([0, 1, 1, 1, 1], won), seed) for seed in (1, 2)],
        "swarm": [of_swarm(swarm(tmp_path, turn=3), 1, 20, 9, 10, 4)],
    }


def test_the_page_answers_from_the_numbers(tmp_path):
    page = markdown(EXPERIMENT, arms(tmp_path), "python -m it")
    assert "*renamed* settles in 0 of 2 (last step: 100%)" in page
    assert "*renamed* settles in 2 of 2, from 200 on (last step: 0%)" in page
    assert "| names kept since the game was won (share) | 2 | -1.00 | [-1.00, -1.00] |" in page
    assert "*on the same meaning* settles in 1 of 1, from 70 on" in page
    assert "Of 4 runs of the games, 2 had settled by 10,000 games" in page
    assert "Nothing is known of 10,000 episodes" in page


def test_page_figure_and_numbers_are_written_without_nan(tmp_path):
    files = write(EXPERIMENT, arms(tmp_path), tmp_path / "out", "python -m it")
    assert [file.suffix for file in files] == [".md", ".png", ".json"]
    stored = json.loads(files[2].read_text())
    assert stored["runs"]["pair, no bonus"][0]["settled"][RENAMED] == {"to_next": 200, "to_last": 200}
    assert stored["runs"]["pair, bonus"][1]["settled"][RENAMED]["to_next"] is None


def test_every_kind_has_its_seeds_and_the_dear_ones_one_fewer(tmp_path):
    options = argparse.Namespace(out=tmp_path, seeds=3, quick=False, parts=["games", "swarm"])
    names = [made.name for made in vocabulary_evolution.planned(options)]
    assert names[:3] == ["pair-bonus-seed1", "pair-no-bonus-seed1", "five-and-five-bonus-seed1"]
    assert names[3:] == [
        "pair-bonus-seed2", "pair-no-bonus-seed2", "five-and-five-bonus-seed2",
        "pair-bonus-seed3", "pair-no-bonus-seed3", "swarm-seed1", "swarm-seed2",
    ]  # fmt: skip


def test_what_is_complete_is_measured_under_the_name_of_its_kind(tmp_path):
    options = argparse.Namespace(out=tmp_path, seeds=2, quick=True, parts=["games"])
    plays = vocabulary_evolution.planned(options)
    quick = Diary(*(field[:4] for field in diary([0, 1, 2, 3, 4], [0.1] * 5)))  # as many checkpoints as they have
    for play in plays:
        if play.name in ("pair-no-bonus-seed2", "five-and-five-bonus-seed1"):
            quick.save(play.path)
    found = vocabulary_evolution.results(options, plays)
    assert {arm: [curve.seed for curve in curves] for arm, curves in found.items()} == {
        "pair, no bonus": [2],
        "five and five, bonus": [1],
    }


def test_nothing_complete_is_a_users_mistake(tmp_path, capsys):
    assert vocabulary_evolution.main(["--out", str(tmp_path), "--measure"]) == 2
    assert "no run in" in capsys.readouterr().err
