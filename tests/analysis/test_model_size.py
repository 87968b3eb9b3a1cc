"""Success against size: what is planned, how results are grouped, and what is claimed of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from popcomm.analysis.experiments import model_size, records
from popcomm.analysis.experiments.frame import write
from popcomm.analysis.experiments.model_size import EXPERIMENT, Results, Shape, document, weights_of

from popcomm.cli.train import checked_config


def game(width: int, weights: int, seed: int, accuracy: float, budget: int = 1000) -> dict[str, Any]:
    curve = [[500, accuracy / 2], [1000, accuracy]]
    size = {"width": width, "depth": 2, "seed": seed, "budget": budget, "weights": weights}
    return {"part": "game", **size, "accuracy": accuracy, "curve": curve, "cpu_s": 2.0}


def boids(width: int, arm: str, value: float) -> dict[str, Any]:
    size = {"width": width, "seed": 1, "budget": 100, "weights": 10 * width}
    return {"part": "swarm", "arm": arm, **size, "return": value, "seconds": 60.0}


GAMES = [
    *(game(4, 1000, seed, 0.2) for seed in (1, 2, 3)),
    *(game(8, 3000, seed, value) for seed, value in enumerate((1.0, 0.9, 0.8), start=1)),
    *(game(16, 9000, seed, 1.0) for seed in (1, 2, 3)),
    game(4, 1000, 1, 0.96, budget=5000),
]


def test_the_ladder_goes_from_a_thousand_to_ten_million_weights_in_steps_of_three() -> None:
    counts = [weights_of(document(shape, 1)) for shape in model_size.LADDER]
    wanted = [1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7]
    assert counts == pytest.approx(wanted, rel=0.1)
    others = [weights_of(document(shape, 1)) for shape in model_size.OTHER_DEPTHS]
    assert others == pytest.approx([counts[3]] * 2, rel=0.15)


def test_every_planned_run_is_valid_and_there_once() -> None:
    keys = model_size.games_of(2)
    assert len({json.dumps(key) for key in keys}) == len(keys)
    for key in keys[:: len(keys) // 4]:
        shape = Shape(key["width"], key["depth"])
        config = checked_config(document(shape, key["seed"]))
        assert (config.agent_config["hidden_dim"], config.seed) == (shape.width, key["seed"])
        assert config.lr == shape.lr == min(0.003, 0.2 / shape.width)


def test_games_that_are_there_are_not_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[tuple[int, int]] = []

    def isolated(play: Any, width: int, seed: int, **key: Any) -> dict[str, Any]:
        played.append((width, seed))
        return {"weights": 5, "accuracy": 0.5, "curve": [(10, 0.5)], "cpu_s": 1.0}

    monkeypatch.setattr(records, "isolated", isolated)
    monkeypatch.setattr(model_size, "LADDER", (Shape(4),))
    for name in ("OTHER_DEPTHS", "LONGER"):
        monkeypatch.setattr(model_size, name, ())
    command = ["--out", str(tmp_path), "--swarm-seeds", "0", "--seeds"]
    assert model_size.main([*command, "1"]) == 0
    # A process that died left half a line.
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"part": "ga')
    assert model_size.main([*command, "2"]) == 0
    assert played == [(4, 1), (4, 2)]
    assert "| 0.50, 0.50 |" in (tmp_path / "model_size.md").read_text()


def test_sizes_are_grouped_with_the_interval_of_their_seeds() -> None:
    found = model_size.sizes(GAMES)
    assert [(size.weights, size.budget) for size in found] == [(1000, 1000), (3000, 1000), (9000, 1000), (1000, 5000)]
    # Mean 0.9, standard error 0.1 / sqrt(3), t of 0.975 with 2 degrees 4.302653; a share is at most 1.
    assert found[1].interval == pytest.approx((0.9 - 4.302653 * 0.1 / 3**0.5, 1.0), abs=1e-5)
    assert found[2].interval == (1.0, 1.0)
    assert found[3].interval is None
    assert found[1].learned_at == [1000, None, None]


def test_the_smallest_that_learns_does_so_in_every_seed() -> None:
    found = model_size.sizes(GAMES)[:3]
    one, any_seed = model_size.smallest(found), model_size.smallest(found, learned=False)
    assert one is not None
    assert any_seed is not None
    assert (one.weights, any_seed.weights) == (9000, 3000)
    assert model_size.smallest(found[:1]) is None


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    swarms = [boids(4, "talking", 30.0), boids(4, "silent", 20.0), boids(16, "talking", 31.5)]
    write(EXPERIMENT, Results(GAMES, swarms), tmp_path, "python -m it")
    page = (tmp_path / "model_size.md").read_text()
    assert "in every seed: **9,000 weights** (width 16, 2 layers)." in page
    assert "The smallest that does in any seed: **3,000 weights**" in page
    assert "| 3,000 | 8 | 2 | 1,000 | 0.90 | [0.65, 1.00] | 1.00, 0.90, 0.80 | 1,000 (1 of 3) | 2 s |" in page
    assert "| 4 | 40 | 40 | 1 | 30.0 | 20.0 | +10.0 | 1.0 min |" in page
    assert len(json.loads((tmp_path / "model_size.json").read_text())["game"]) == len(GAMES)
    assert (tmp_path / "model_size.png").stat().st_size > 10_000
