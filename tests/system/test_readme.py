"""The README tells the truth: its Python runs, its YAML and commands are valid, what it links to is there."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from popcomm.agents import AGENTS
from popcomm.channels.broadcast.reflexes import REFLEXES
from popcomm.channels.kinds import MESSAGE_KINDS
from popcomm.channels.topology import TOPOLOGIES
from popcomm.cli import documents, schema
from popcomm.cli import main as cli
from popcomm.envs import WORLDS
from popcomm.language import progress
from popcomm.schedules import Clock

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
FILES = {match[1]: code for _, code in BLOCKS if (match := re.match(r"# (\w+\.(?:py|yaml))\n", code))}
PROGRAMS = [code for language, code in BLOCKS if language == "python" and code not in FILES.values()]
COMMANDS = [
    line.partition("#")[0].strip() for language, code in BLOCKS if language == "console" for line in code.splitlines()
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the files that the README shows."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)


COMMANDS_OF_POPCOMM = {
    "train",
    "sweep",
    "channel",
    "report",
    "watch",
    "play",
    "evaluate",
    "export",
    "language",
    "jobs",
    "check-env",
    "list",
    "submit",
}


def released(config: Any) -> Any:
    """The population of a config as it is at the start, as a run of it would hold it."""
    from popcomm.rllib.release import population_of

    modules = config.get_multi_rl_module_spec(inference_only=True).build()
    return population_of(config, modules, Clock(0), [])


def test_the_readme_has_the_blocks_that_are_tested() -> None:
    assert set(FILES) == {"tell_me.py", "own_agent.py", "tell_me.yaml"}
    assert len(PROGRAMS) == 6
    assert len(PROGRAMS[0].splitlines()) == 5


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster")
def test_the_python_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for program in PROGRAMS:
        if 'load("runs/first")' in program:
            released(names["config"]).save_pretrained(folder / "runs/first")
        exec(compile(program, "README.md", "exec"), names)
        if "algo" in names:
            names["algo"].stop()
    numbers = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(numbers) == 1 + 1 + 1 + 5 + 1
    assert numbers[7] >= 0.9  # at the end the listener of TellMe knows what it is told; deaf ones get 0.25
    for name in ("agent_0", "member_0"):
        assert (folder / name / "model.safetensors").is_file()
    assert np.isfinite(numbers).all()
    progress.append(folder / "progress.jsonl", {"env_steps": 100, "charts/reward": 0.5})
    assert names["curve"](folder).to_dict() == {100: 0.5}


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster", "folder")
@pytest.mark.parametrize("seed", [2, 3])
def test_the_example_learns_to_talk_from_other_seeds(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    [program] = [code for code in PROGRAMS if "TellMe" in code]
    assert "seed=1" in program
    exec(compile(program.replace("seed=1", f"seed={seed}"), "README.md", "exec"), {})
    rewards = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert rewards[0] < 0.9
    assert rewards[-1] >= 0.9


def test_the_defaults_are_those_that_the_readme_tells() -> None:
    from popcomm.rllib import PopulationPPOConfig
    from popcomm.rllib.settings import LEFT_OPEN

    config = (
        PopulationPPOConfig()
        .environment("swarm_v0")
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
    )
    for said in (
        f"{config.num_worlds_per_env_runner} worlds, learning rate {config.lr:g}, {config.num_epochs} epochs",
        f"minibatches of {config.plan.worlds_in_minibatch(config.num_worlds_per_env_runner)} worlds",
        f"an entropy bonus of {config.entropy_coeff:g}, gamma {config.gamma:g}, errors of values unclipped",
        f"{LEFT_OPEN['quality_coeff']:g} unless set",
        f"{LEFT_OPEN['message_balance_coeff']:g} and {LEFT_OPEN['message_sharpness']:g} unless set",
        f"{config.message_kl_coeff:g} unless set",
        f"tried again; {LEFT_OPEN['rare_action_share']:g} unless set",
        f"at no cost; {LEFT_OPEN['entropy_over_worlds']:g} unless set",
    ):
        assert said in TEXT
    assert np.isinf(config.vf_clip_param)


def test_the_yaml_is_a_valid_config_of_ones_own_environment_and_agent(folder: Path) -> None:
    from popcomm.rllib import PopulationPPOConfig

    document = documents.load("tell_me.yaml")
    config = schema.apply(document, PopulationPPOConfig())
    config.validate()
    assert set(config.layout.species) == {"speaker", "listener"}
    assert config.plan.agent_class.__name__ == "OwnAgent"
    assert schema.stop_bounds(document) == {"training_iteration": 40}


def test_the_species_that_the_readme_names_are_parted_as_it_says() -> None:
    from popcomm.rllib import PopulationPPOConfig

    pytest.importorskip("pygame")
    (block,) = (text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "species:" in text)
    config = schema.apply(yaml.safe_load(block), PopulationPPOConfig())
    config.validate()
    species = config.plan.species
    assert {name: s.agent_class.__name__ for name, s in species.items()} == {
        "archer": "SymbolicAgent",
        "knight": "MLPAgent",
    }
    assert [s.settings.lr for s in species.values()] == [4e-3, 1e-3]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", [line for line in COMMANDS if "popcomm check-env" in line])
def test_nothing_is_wrong_with_the_environments_that_are_checked(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*shlex.split(command)[1:], "--iterations", "0", "--steps", "40"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["wrong", "nothing"]


@pytest.mark.parametrize("command", [line for line in COMMANDS if "popcomm train" in line])
def test_the_settings_of_a_command_are_valid(command: str) -> None:
    from popcomm.rllib import PopulationPPOConfig

    words = shlex.split(command)
    words = words[words.index("train") + 1 :]
    overrides = [value for option, value in pairwise(words) if option == "--set"]
    name = "swarm" if "--resume" in words else words[0]  # whose run is gone on with
    schema.apply(documents.load(name, overrides), PopulationPPOConfig()).validate()


def test_other_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in COMMANDS:
        program, _, rest = line.partition(" ")
        if program == "make":
            assert re.search(rf"^{rest.split()[0]}:", makefile, re.MULTILINE), line
        elif program == "popcomm":
            assert rest.split()[0] in COMMANDS_OF_POPCOMM, line


def test_every_name_of_the_table_exists_and_every_name_is_in_the_table() -> None:
    for name in [*WORLDS, *AGENTS, *MESSAGE_KINDS, *TOPOLOGIES, *REFLEXES]:
        assert f"`{name}`" in TEXT, name


def test_links_and_folders_are_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target.partition("#")[0]).is_file(), target
    for name in re.findall(r"^\| `([\w/]+)` \| ", TEXT.partition("## Work on popcomm")[2], re.MULTILINE):
        assert (ROOT / name).is_dir(), name
