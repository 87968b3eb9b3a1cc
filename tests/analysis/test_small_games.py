"""Small games: what they pay, that all that are drawn can be won, and that the benchmark counts what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.benchmarks import small_game_protocol, small_games, small_games_page
from popcomm.analysis.benchmarks.small_game import FUNCTIONS, Game, draw_game, references
from popcomm.analysis.benchmarks.small_game_protocol import play
from popcomm.analysis.benchmarks.small_game_training import train
from popcomm.analysis.benchmarks.small_game_world import NAME, SmallGameWorld
from popcomm.analysis.experiments.runs import TrainingError

from popcomm.cli import schema
from popcomm.envs.scripted import episode_returns
from popcomm.envs.testing import world_api_test
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig


def game(function: str = "sum", speakers: int = 2, kinds: int = 3, **rest: Any) -> Game:
    return Game(function, speakers, kinds=kinds, **{"listeners": 1, "delay": 1, "forwarding": False, **rest})


@cache
def drawn(count: int = 200, seed: int = 0) -> list[Game]:
    rng = np.random.default_rng(seed)
    return [draw_game(rng) for _ in range(count)]


def always(number: int) -> Callable[[SmallGameWorld], dict[str, torch.Tensor]]:
    return lambda world: {NAME: torch.full((world.num_worlds, world.num_agents), number)}


class TestGames:
    @pytest.mark.parametrize(
        ("function", "speakers", "kinds", "answers", "deaf"),
        [
            ("copy", 1, 4, 4, 1 / 4),
            ("copy", 3, 3, 3, 1 / 3),
            ("sum", 2, 3, 5, 1 / 3),  # 0 + 2, 1 + 1, 2 + 0, of nine
            ("sum", 2, 4, 7, 1 / 4),
            ("sum", 3, 2, 4, 3 / 8),
            ("parity", 2, 3, 2, 5 / 9),  # both even in four, both odd in one
            ("parity", 3, 2, 2, 1 / 2),
            ("maximum", 2, 3, 3, 5 / 9),
            ("maximum", 3, 4, 4, 37 / 64),
            ("which", 2, 4, 2, 1 / 2),
            ("which", 3, 3, 2, 1 / 2),
        ],
    )
    def test_references_by_hand(self, function: str, speakers: int, kinds: int, answers: int, deaf: float) -> None:
        held = references(game(function, speakers, kinds))
        assert held == pytest.approx((1 / answers, deaf, 1.0))

    def test_of_which_of_two_parts_is_larger_there_are_no_draws(self) -> None:
        two = game("which", 2, 3)
        assert two.cases.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
        assert two.right.tolist() == [1, 1, 0, 1, 0, 0]

    def test_listeners_hear_the_relay_alone(self) -> None:
        hears = game(listeners=2, forwarding=True).adjacency
        assert hears[:, 3:].T.tolist() == [[False, False, True, False, False]] * 2
        assert hears[:, :3].T.tolist() == [[seat != own for seat in range(5)] for own in range(3)]

    @pytest.mark.parametrize(
        ("options", "symbols"),
        [
            ({}, 3),
            ({"function": "parity", "kinds": 4}, 2),
            ({"forwarding": True}, 5),  # the relay says the sum
            ({"delay": 3}, 5),  # the listener has it said to itself
            ({"delay": 2}, 3),  # two speakers swap their parts
            ({"delay": 2, "speakers": 3, "listeners": 2}, 7),
            ({"function": "parity", "kinds": 4, "delay": 3, "forwarding": True}, 2),
        ],
    )
    def test_the_alphabet_that_is_needed(self, options: dict[str, Any], symbols: int) -> None:
        assert game(**options).vocab_size == symbols

    def test_what_cannot_be_kept_without_memory(self) -> None:
        """A single other agent brings an answer back every second step."""
        one = [game("copy", 1, delay=delay) for delay in (1, 2, 3)]
        assert [g.plain_without_memory for g in one] == [True, False, True]
        assert game("copy", 1, delay=2, listeners=2).plain_without_memory
        assert not game("copy", 1, delay=2, listeners=2, forwarding=True).plain_without_memory
        assert game("sum", 2, delay=2, forwarding=True).plain_without_memory
        assert not game("sum", 3, delay=2).plain_without_memory

    def test_draws_cover_the_family(self) -> None:
        for key, values in {
            "function": set(FUNCTIONS),
            "speakers": {1, 2, 3},
            "listeners": {1, 2},
            "kinds": {2, 3, 4},
            "delay": {1, 2, 3},
            "forwarding": {True, False},
        }.items():
            assert {getattr(g, key) for g in drawn()} == values
        above = np.mean([g.vocab_size > g.symbols_needed for g in drawn()])
        assert 0.35 < above < 0.65
        assert all(g.symbols_needed <= g.vocab_size <= 2 * g.symbols_needed for g in drawn())
        assert all(references(g).silent <= 0.75 for g in drawn())

    def test_draws_follow_the_seed(self) -> None:
        assert [draw_game(np.random.default_rng(0)) for _ in range(2)] == drawn()[:1] * 2
        assert drawn(5, seed=1) != drawn()[:5]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"function": "summ"}, "function.*'summ'"),
            ({"function": "sum", "speakers": 1}, "speakers is 1, and must be at least 2"),
            ({"speakers": 4}, "speakers is 4, and must be at most 3"),
            ({"delay": 0}, "delay is 0, and must be at least 1"),
            ({"kinds": 1}, "kinds is 1, and must be at least 2"),
            ({"forwarding": 1}, "forwarding is 1, and must be true or false"),
            ({"vocab_size": 1}, "vocab_size is 1, and must be at least 2"),
        ],
    )
    def test_mistakes_are_told(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            game(**options)


class TestTheProtocol:
    def test_every_game_that_is_drawn_is_won_without_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By agents that see and hear what the world and the topology give them, with the game's symbols."""
        spoken: list[int] = []
        say = small_game_protocol.said

        def watched(played: Game, *rest: Any) -> torch.Tensor:
            symbols = say(played, *rest)
            spoken.append(played.vocab_size - 1 - int(symbols.max()))
            assert symbols.min() >= 0
            return symbols

        monkeypatch.setattr(small_game_protocol, "said", watched)
        for each in {g: None for g in drawn()}:
            assert (play(each, 48) == 1.0).all(), each
        assert min(spoken) == 0  # alphabets that are just enough

    def test_without_messages_it_is_not_won(self) -> None:
        for each in drawn()[:20]:
            deaf = play(each, 400, hears=False).mean().item()
            assert deaf <= references(each).silent + 4 * (0.25 / 400) ** 0.5, each

    def test_one_repetition_too_few_is_not_enough(self) -> None:
        """The game that is never drawn: one speaker, one listener, a delay of 2."""
        assert play(game("copy", 1, delay=2), 400).mean().item() < 0.6


class TestTheWorld:
    @pytest.mark.parametrize(
        "options", [{}, {"function": "which", "speakers": 3, "listeners": 2, "delay": 3, "forwarding": True}]
    )
    def test_it_keeps_the_contract_of_worlds(self, options: dict[str, Any]) -> None:
        world_api_test(SmallGameWorld(3, **options), num_steps=20)

    def test_parts_are_seen_by_speakers_in_the_first_step_alone(self) -> None:
        world = SmallGameWorld(64, function="sum", speakers=2, kinds=3, delay=2)
        first = world.reset(0).observations[NAME]
        assert (first[:, :2, :3].sum(-1) == 1).all()
        assert not first[:, 2, :3].any()
        assert (first[:, :, 3:6] == torch.eye(3)).all()
        later = world.step(always(0)(world)).observations[NAME]
        assert not later[:, :, :3].any()
        assert (later[:, :, 6:] == torch.tensor([0.0, 1, 0, 0])).all()

    def test_everyone_gets_the_share_of_listeners_that_are_right_in_the_last_step(self) -> None:
        world = SmallGameWorld(128, function="copy", speakers=1, listeners=2, kinds=2, delay=2)
        part = world.reset(0).observations[NAME][:, 0, :2].argmax(-1)
        right = torch.stack([1 - part, part, part], 1)
        early = world.step({NAME: right})
        assert not early.rewards.any()
        assert early.alive.all()
        assert not world.step({NAME: right}).terminated.any()
        end = world.step({NAME: torch.stack([part, part, torch.zeros_like(part)], 1)})
        assert end.terminated.all()
        assert torch.equal(end.rewards, (0.5 + 0.5 * (part == 0)).unsqueeze(1).expand(-1, 3))

    def test_a_constant_answer_earns_what_is_expected(self) -> None:
        returns = episode_returns(SmallGameWorld(4000, function="sum", kinds=3), always(2)).mean(-1)
        assert returns.mean().item() == pytest.approx(1 / 3, abs=4 * (2 / 9 / 4000) ** 0.5)

    def test_cases_are_even(self) -> None:
        world = SmallGameWorld(6000, function="which", kinds=3)
        seen = world.reset(0).observations[NAME][:, :2, :3].argmax(-1)
        shares = torch.bincount(seen[:, 0] * 3 + seen[:, 1], minlength=9) / 6000
        assert shares.view(3, 3).diagonal().tolist() == [0, 0, 0]
        assert shares[shares > 0].tolist() == pytest.approx([1 / 6] * 6, abs=4 * (5 / 36 / 6000) ** 0.5)


RESULT = {"greedy": 0.95, "sampled": 0.85, "best": 1.0, "episodes": 1000, "cpu_s": 40.0, "curve": [[1000, 40.0, 1, 1]]}


def results_of(trials: list[small_games.Trial], **change: Any) -> list[dict[str, Any]]:
    return [small_games.row_of(trial, {**RESULT, **change}) for trial in trials]


class TestTheBenchmark:
    @pytest.mark.parametrize("agent", ["symbolic", "mlp"])
    def test_a_trial_changes_nothing_but_the_game_the_agent_and_the_seed(self, agent: str) -> None:
        trial = small_games.draw_trials(1, [agent], 5, 40)[0]
        config, plain = schema.apply(trial.document, PopulationPPOConfig()), PopulationPPOConfig()
        config.validate()
        plain.environment(SmallGameWorld).population(agent=agent)
        plain.communication(messages={"kind": "symbols", "vocab_size": trial.game.vocab_size, "length": 1}).validate()
        chosen = ("env_config", "world", "messages", "channel_topology", "agent", "seed", "_layout", "policies")
        ours, theirs = (
            {k: v for k, v in vars(c).items() if k not in chosen and isinstance(v, int | float | str | None)}
            for c in (config, plain)
        )
        assert ours == theirs
        assert config.seed == 5
        assert config.layout.num_agents == trial.game.num_agents

    def test_training_follows_the_document_and_its_seconds(self) -> None:
        document = small_games.draw_trials(1, ["mlp"], 1, 1)[0].document
        result = train(document, seconds=0.5)
        assert result["cpu_s"] >= 0.5
        assert len(result["curve"]) == 8
        assert result["greedy"] == result["curve"][-1][2]
        assert result["best"] == max(look[2] for look in result["curve"])
        assert result["episodes"] == result["curve"][-1][0] > 0

    def test_all_agents_play_the_same_games(self) -> None:
        trials = small_games.draw_trials(4, ["symbolic", "mlp"], 1, 40)
        assert [t.agent for t in trials] == ["symbolic", "mlp"] * 4
        assert [t.game for t in trials[::2]] == [t.game for t in trials[1::2]]
        assert [t.number for t in trials[::2]] == [1, 2, 3, 4]

    def test_results_that_are_there_are_not_made_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []

        def pretend(trial: small_games.Trial, folder: Path) -> dict[str, Any]:
            made.append(trial.number)
            if trial.number == 2 and len(made) < 3:
                raise TrainingError("killed")
            return dict(RESULT)

        monkeypatch.setattr(small_games.Trial, "train", pretend)
        trials = small_games.draw_trials(3, ["mlp"], 1, 40)
        with pytest.raises(TrainingError):
            small_games.train_all(trials, tmp_path, jobs=1)
        file = tmp_path / "small_games.jsonl"
        file.write_text(file.read_text() + '{"number": 9, "fun')
        made_before = len(made)
        small_games.train_all(trials, tmp_path, jobs=1)
        assert 1 not in made[made_before:]
        assert [row["number"] for row in small_games.read(tmp_path)] == [1, 2, 3]
        small_games.train_all(small_games.draw_trials(3, ["mlp"], 1, 40, ["training.lr=1e-3"]), tmp_path, jobs=1)
        assert len(small_games.read(tmp_path)) == 6

    def test_a_wrong_setting_is_told_before_anything_is_trained(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert small_games.main(["--out", str(tmp_path), "--set", "training.entropy_coef=0.1"]) == 2
        assert "training.entropy_coef does not exist" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
        assert small_games.main(["--out", str(tmp_path), "--agents", "symbolik"]) == 2


class TestThePage:
    def test_it_counts_what_is_solved_lost_and_failed(self) -> None:
        trials = small_games.draw_trials(10, ["mlp"], 1, 40)
        rows = [*results_of(trials[:8]), *results_of(trials[8:], greedy=0.89)]
        text = small_games_page.markdown(rows, "command", {"popcomm": "0"})
        summary = next(line for line in text.splitlines() if line.startswith("| mlp"))
        assert [cell.strip() for cell in summary.strip("|").split("|")][:6] == ["mlp", "8 of 10", "9", "FAIL", "0", "2"]
        failures = text.split("## Not solved")[1].split("## All games")[0]
        assert failures.count("| mlp |") == 2
        assert "**0.89 / 0.85**" in text

    def test_kinds_add_up(self) -> None:
        trials = small_games.draw_trials(12, ["symbolic"], 2, 40)
        rows = results_of(trials)
        text = small_games_page.markdown(rows, "command", {"popcomm": "0"}).split("## Failures by kind")[1]
        for kind in small_games_page.KINDS:
            cells = [line.strip("| ").split(" | ")[2] for line in text.splitlines() if line.startswith(f"| {kind} |")]
            assert sum(int(cell.split(" of ")[1]) for cell in cells) == 12

    def test_numbers_and_page_are_written_of_the_trials_asked_for(self, tmp_path: Path) -> None:
        trials = small_games.draw_trials(3, ["mlp"], 1, 40)
        others = small_games.draw_trials(3, ["mlp"], 1, 20)
        lines = [json.dumps(row) for row in results_of([*trials[1:], *others])]
        (tmp_path / "small_games.jsonl").write_text("\n".join(lines) + "\n")
        page, numbers = small_games.conclude(trials, tmp_path, "command")
        assert [row["number"] for row in json.loads(numbers.read_text())["trainings"]] == [2, 3]
        assert "2 of 2" in page.read_text()
