"""`popcomm check-env`: what it prints, and its exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from popcomm.cli import main as cli
from popcomm.cli.check_env import env_config_of
from popcomm.errors import UserError

MINE = """
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Pair(ParallelEnv):
    metadata = {"name": "pair"}

    def __init__(self, steps=4, pay=1.0):
        self.possible_agents, self.steps, self.pay = ["ant_0", "ant_1"], steps, pay

    def observation_space(self, agent):
        return spaces.Box(0, 99, (1,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t = list(self.possible_agents), 0
        return {a: np.zeros(1, np.float32) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        self.t += 1
        who, over = self.agents, self.t == self.steps
        seen = {a: np.full(1, self.t, np.float32) for a in who}
        if over:
            self.agents = []
        paid = dict.fromkeys(who, self.pay)
        return seen, paid, dict.fromkeys(who, False), dict.fromkeys(who, over), {a: {} for a in who}


number = 3
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pair.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("my_pair", None)


def lines(text: str) -> dict[str, str]:
    return {line[:22].strip(): line[22:] for line in text.splitlines() if line[:22].strip()}


def test_a_good_environment_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-env", "my_pair:Pair", "--set", "steps=3", "--steps", "9", "--iterations", "0"]) == 0
    told = lines(capsys.readouterr().out)
    rate = told.pop("agent steps a second")
    assert rate.endswith(" a plain loop")
    assert float(rate.split()[0].replace(",", "")) > 0
    assert told == {
        "environment": "my_pair:Pair",
        "species": "ant (2: ant_0, ant_1) observes 1 numbers, acts in Discrete(2)",
        "masks": "none",
        "positions": "none, so topology k_nearest cannot be used",
        "state": "none, so critic central cannot be used",
        "episodes": "3 steps",
        "lock step": "14 steps in 4 episodes: lives, rewards, flags, masks and observations are those of a plain loop",
        "wrong": "nothing",
    }


@pytest.mark.parametrize(
    ("package", "reference", "key", "plain"),
    [
        ("vmas", "vmas:transport", "max_steps", "observations, rewards and ends are those of VMAS itself"),
        ("rware", "gymnasium:rware-tiny-2ag-v2", "max_steps", "observations are those of a plain loop"),
        (
            "lbforaging",
            "gymnasium:Foraging-8x8-2p-1f-v3",
            "max_episode_steps",
            "observations are those of a plain loop",
        ),
    ],
)
def test_environments_of_a_source_are_named_as_in_a_configuration(
    package: str, reference: str, key: str, plain: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(package, reason=f"popcomm[{package}] is not installed")
    assert cli.main(["check-env", reference, "--set", f"{key}=4", "--steps", "11", "--iterations", "0"]) == 0
    told = lines(capsys.readouterr().out)
    assert (told["environment"], told["episodes"], told["positions"]) == (reference, "4 steps", "2 axes")
    assert told["lock step"].endswith(plain)


def test_what_is_wrong_is_told_with_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-env", "my_pair:Pair", "--set", "pay=.nan", "--iterations", "0"]) == 1
    told = lines(capsys.readouterr().out)
    assert "the reward of agent 'ant_0' is nan, and must be finite" in told["wrong"]


def test_where_something_is_wrong_nothing_is_trained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*args: object) -> None:
        raise AssertionError("it trains")

    monkeypatch.setattr("popcomm.cli.check_env._train", train)
    assert cli.main(["check-env", "my_pair:Pair", "--set", "pay=.nan"]) == 1
    said = capsys.readouterr().out
    assert "the reward of agent 'ant_0' is nan, and must be finite" in lines(said)["wrong"]
    assert "no training was tried: first what is wrong is to be mended" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["my_pair:Pear"], "my_pair has no 'Pear'; did you mean 'Pair'?"),
        (["my_pair"], "must be of the form module:attribute"),
        (["my_pair:number"], "my_pair:number is a int, and must be what makes a ParallelEnv"),
        (["popcomm.envs.swarm_v0:SwarmWorld"], "is a World, and check-env is for ParallelEnvs"),
        (["gymnasium:CarPole-v1"], "environment.env 'gymnasium:CarPole-v1' does not exist; did you mean 'CartPole-v"),
        (["gymnasium:#"], "environment.env 'gymnasium:#' does not exist; gymnasium.registry has the names"),
        (["my_pair:Pair", "--set", "steps"], "not of the form"),
        (["my_pair:Pair", "--steps", "0"], "--steps"),
    ],
)
def test_a_users_mistake_is_one_sentence(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-env", *args, "--iterations", "0"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert said in streams.err
    assert len(streams.err.splitlines()) == 1


def test_keys_of_the_env_config_are_yaml() -> None:
    assert env_config_of(["n=3", "names=[a, b]", "deep.er=1e-3"]) == {"n": 3, "names": ["a", "b"], "deep": {"er": 1e-3}}
    with pytest.raises(UserError, match="not of the form"):
        env_config_of(["=3"])


def test_copies_of_no_training_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-env", "my_pair:Pair", "--iterations", "0", "--worlds", "4"]) == 2
    assert "--worlds 4 is of the training, and with --iterations 0 there is none" in capsys.readouterr().err


@pytest.mark.system
@pytest.mark.usefixtures("ray_cluster")
def test_the_rate_in_training_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--steps", "9", "--iterations", "1", "--worlds", "4"]
    assert cli.main(["check-env", "my_pair:Pair", *args]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "in training" in line]
    rate, said = line.split(maxsplit=1)
    assert float(rate.replace(",", "")) > 0
    assert said == "in training (4 worlds, mlp, talking)"
