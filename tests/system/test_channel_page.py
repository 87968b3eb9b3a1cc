"""The page on the channel tells the truth: its Python runs, its YAML is valid, its tables have every name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from popcomm.channels.broadcast.reflexes import DECISIONS, REFLEXES
from popcomm.cli.main import main
from popcomm.rllib import PopulationPPOConfig
from popcomm.schedules import SCHEDULES

PAGE = (Path(__file__).parents[2] / "docs" / "channel.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[str]:
    return [code for name, code in BLOCKS if name == language]


def test_the_python_runs_as_written_and_gives_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    wrap, theory = blocks("python")
    exec(compile(wrap, "channel.md", "exec"), {})
    assert "speak" in capsys.readouterr().out
    exec(compile(theory, "channel.md", "exec"), {})
    extinct, variance, threshold, capacity = map(float, capsys.readouterr().out.split())
    assert 0.8 < extinct < 0.81
    assert variance == pytest.approx(495)
    # Three in a row who hear themselves: 1 / (1 + sqrt 2), by the matrix's largest eigenvalue.
    assert threshold == pytest.approx(1 / (1 + 2**0.5))
    assert capacity == 38


def test_the_yaml_is_a_valid_configuration() -> None:
    (text,) = blocks("yaml")
    config = PopulationPPOConfig().environment("alarm_v0").communication(**yaml.safe_load(text)["communication"])
    config.validate()
    assert config.plan.channel.size is not None


def test_the_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    for line in blocks("console"):
        assert main(shlex.split(line.partition("#")[0])[1:]) == 0
    assert "capacity" in capsys.readouterr().out


def test_every_reflex_decision_and_schedule_is_in_a_table() -> None:
    for name in [*REFLEXES, *DECISIONS, *SCHEDULES]:
        assert f"`{name}`" in PAGE, name
