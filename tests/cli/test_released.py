"""popcomm play, evaluate and export, on a population that speaks in a way that is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import popcomm
from popcomm.agents import MLPAgent
from popcomm.channels import Symbols, Vectors, Words
from popcomm.cli import main as cli
from popcomm.rollout.playback import Moment, Saying, moments
from tests.rollout.test_population import population


@pytest.fixture
def ages(tmp_path: Path) -> Path:
    """Criers say their age; two members of each kind on two seats."""
    return population().save_pretrained(tmp_path / "ages")


def test_play_shows_what_is_said_and_who_hears_it(ages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["play", str(ages), "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1"
    assert lines[1] == "  speaker_0: 0 -> speaker_1, listener_0, listener_1"
    assert lines[5:7] == ["step 2", "  speaker_0: 1 -> speaker_1, listener_0, listener_1"]


def test_a_message_is_written_symbol_by_symbol() -> None:
    assert str(Saying("a", 0, [3, 12], False, ["b", "c"])) == "a: 3 12 -> b, c"
    assert str(Saying("a", 0, [0, 1, 1], True, [])) == "a: 011 -> nobody"
    assert str(Saying("a", 0, [0.5, -1.0], False, None)) == "a: +0.50 -1.00"


@pytest.mark.parametrize(
    ("kind", "length", "bits"), [(Symbols(5, 3), 3, False), (Vectors(2), 2, False), (Words(6, 1, 5), 6, True)]
)
def test_every_kind_of_message_can_be_shown(kind: object, length: int, bits: bool) -> None:
    found = population(MLPAgent, kind=kind, hidden=4)  # type: ignore[arg-type]
    said = [saying for moment in moments(found, 3) for saying in moment.said]
    assert said
    assert all(len(saying.message) == length and saying.bits == bits for saying in said)


def test_steps_are_counted_from_the_beginning_of_each_episode() -> None:
    assert [moment.step for moment in moments(population(), 6)] == [1, 2, 3, 4, 1, 2]  # in the fourth nobody lives
    assert [moment.said == [] for moment in moments(population(kind=None), 2)] == [True, True]


def test_a_gif_has_a_picture_of_every_step_with_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = population(MLPAgent, env="swarm_v0", env_config={"num_agents": 3}, hidden=4)
    saved, gif = found.save_pretrained(tmp_path / "saved"), tmp_path / "a.gif"
    more = ["--set", "environment.env_config.num_agents=5", "--greedy"]
    assert cli.main(["play", str(saved), "--gif", str(gif), "--steps", "3", *more]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{gif}: 3 pictures"
    plain = next(iter(moments(found, 1, draw=True))).picture
    assert plain is not None
    with Image.open(gif) as shown:
        assert shown.n_frames == 3  # type: ignore[attr-defined]
        assert shown.height > plain.shape[0]


def test_many_speakers_are_cut_short() -> None:
    from popcomm.cli.playing import caption

    said = [Saying(f"a_{i}", 0, [1], False, []) for i in range(5)]
    assert caption(Moment(1, said, None), 3) == [
        "a_0: 1 -> nobody",
        "a_1: 1 -> nobody",
        "a_2: 1 -> nobody",
        "... and 2 more",
    ]
    assert len(caption(Moment(1, said, None), 5)) == 5


def test_evaluate_prints_means_with_intervals_and_writes_them(
    ages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told.json"
    assert cli.main(["evaluate", str(ages), "--episodes", "20", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "20 episodes of 4.0 steps" in out
    told = json.loads(file.read_text())
    # A speaker earns 1 when others were one step old; a listener from then on, in worlds of 3 and of 5 steps.
    assert told["return_mean"] == (1 + 1 + 1 + 1 + 1 + 1 + 3 + 3) / 2
    assert told["return_interval"] == list(population().evaluate(20).return_interval)
    assert told["messages"] == "on"
    assert [one["values"] for one in told["per_member"]["speaker"]] == [20, 20]
    assert cli.main(["evaluate", str(ages), "--messages", "off", "--greedy", "--json", str(file)]) == 0
    assert json.loads(file.read_text())["return_mean"] == 0.0


def test_evaluate_draws_return_against_the_strength_of_noise(
    ages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "hard.png"
    noise = ["--noise", "lost", "--noise", "gaussian", "--strengths", "1,0", "--plot", str(plot)]
    assert cli.main(["evaluate", str(ages), "--episodes", "20", *noise]) == 0
    out = capsys.readouterr().out
    assert "return of a world against the strength of noise" in out
    assert "lost 1  0.000" in out
    told = json.loads((tmp_path / "hard.json").read_text())
    assert told["messages"] == "on"
    assert [(one["strength"], one["return_mean"]) for one in told["noise"]["lost"]] == [(0.0, 6.0), (1.0, 0.0)]
    # Criers look at nothing.
    assert [one["return_mean"] for one in told["noise"]["gaussian"]] == [6.0, 6.0]
    with Image.open(plot) as drawn:
        assert drawn.width > drawn.height


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strengths", "0,1"], "say of which kind with --noise"),
        (["--noise", "lost", "--strengths", "0,much"], "must be numbers between commas"),
        (["--noise", "lost", "--strengths", "0,0.0"], "has a number twice"),
        (["--noise", "losst"], "lost"),
        (["--noise", "lost", "--strengths", "0,2"], "strength is 2.0, and must lie in [0, 1]"),
        (["--noise", "lost", "--plot", "a.gif"], "does not end in .png"),
    ],
)
def test_noise_that_cannot_be_is_refused(
    ages: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(ages), *options]) == 2
    assert words in capsys.readouterr().err


def test_only_the_worlds_can_be_others(ages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(ages), "--set", "population.members=3"]) == 2
    assert "allowed: environment.env_config.KEY=VALUE" in capsys.readouterr().err
    assert cli.main(["evaluate", str(ages), "--set", "environment.env_config.lenths=3"]) == 2
    assert "environment.env_config does not fit" in capsys.readouterr().err


def test_what_is_exported_is_loaded_as_a_whole_and_one_by_one(tmp_path: Path) -> None:
    found = population(MLPAgent, members=2, hidden=4)
    saved, folder = found.save_pretrained(tmp_path / "saved"), tmp_path / "exported"
    assert cli.main(["export", str(saved), str(folder)]) == 0
    again = popcomm.load(folder)
    one = MLPAgent.from_pretrained(folder / "listener" / "agent_1")
    for name, value in one.state_dict().items():
        assert torch.equal(value[0], again["listener"].agent.state_dict()[name][1])
    assert cli.main(["export", str(saved), str(folder)]) == 2
