"""References to a user's own classes: what they name, and what is said when they lead nowhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from popcomm.channels import Full, Symbols, make_topology, message_kind
from popcomm.cli.schema import apply
from popcomm.envs import swarm_v0
from popcomm.envs.making import make_world
from popcomm.errors import UserError
from popcomm.references import attribute
from popcomm.rllib import PopulationPPOConfig

MINE = """
from dataclasses import dataclass
from popcomm.channels import Full, Symbols

class Pairs(Symbols):
    def __init__(self, size: int):
        super().__init__(size, 2)

class Outer:
    class Inner(Full):
        pass

class Mute:
    pass

number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "popcomm_user_file.py").write_text(MINE)
    (tmp_path / "popcomm_broken_file.py").write_text("import popcomm\n1 / 0\n")
    (tmp_path / "popcomm_needy_file.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_reference_names_an_attribute_that_may_have_dots() -> None:
    assert attribute("key", "popcomm.channels:Full") is Full
    assert attribute("key", f"{__name__}:Own.Inner") is Own.Inner


class Own:
    class Inner:
        pass


CHECKPOINT = {"manifest.json": json.dumps({"files": {}, "iteration": 1})}
SAVED = {
    "an export": ("popcomm_gift.evil", "popcomm_gift/evil.py", {"population.json": "{}"}),
    "deep in an export": ("popcomm_gift.a.evil", "popcomm_gift/a/evil.py", {"population.json": "{}"}),
    "a package that is an export": ("popcomm_gift.mild", "popcomm_gift/__init__.py", {"population.json": "{}"}),
    "a checkpoint": ("popcomm_gift.evil", "popcomm_gift/evil.py", CHECKPOINT),
    "a run": (
        "popcomm_gift.evil",
        "popcomm_gift/evil.py",
        {"checkpoints/first/manifest.json": CHECKPOINT["manifest.json"], "run.json": "{}"},
    ),
}


@pytest.fixture(params=SAVED)
def gift(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a stranger, in a folder that popcomm has saved: it leaves a mark where it is run."""
    module, file, beside = SAVED[request.param]
    for name, text in {f"popcomm_gift/{name}": text for name, text in beside.items()}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom popcomm.envs import World\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return module


def test_code_that_came_with_a_checkpoint_is_not_run(gift: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'{gift}:World' is not imported: .* lies in .*popcomm_gift, a checkpoint"):
        attribute("environment.env", f"{gift}:World")
    with pytest.raises(UserError, match="is not imported"):
        make_world(f"gymnasium:{gift}:Any-v0", {}, 1)
    assert not (tmp_path / "ran").exists()


def test_code_beside_files_of_others_that_are_called_like_ours_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text('{"files": ["a.npy"]}')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "popcomm_beside.py").write_text("from popcomm.envs import World\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert attribute("environment.env", "popcomm_beside:World").__name__ == "World"


@pytest.mark.parametrize(
    "reference",
    ["shutil:copy", "subprocess:Popen", "posix:system", "numpy:load", "popcomm.envs.env_pickle:loaded_envs"],
)
def test_what_runs_in_installed_packages_is_not_for_files_to_name(reference: str) -> None:
    with pytest.raises(UserError, match="of an installed package, of which a file can name environments"):
        attribute("environment.env", reference)


def test_a_module_that_a_users_module_has_imported_is_still_not_the_users() -> None:
    assert os.system is not None
    with pytest.raises(UserError, match="of an installed package"):
        attribute("environment.env", f"{__name__}:os.system")


def test_environments_and_networks_of_installed_packages_can_be_named() -> None:
    assert callable(attribute("environment.env", "pettingzoo.butterfly.pistonball_v6:parallel_env"))
    assert attribute("population.agent", "torch.nn:Linear") is torch.nn.Linear
    assert attribute("environment.env", "popcomm.envs.swarm_v0:parallel_env") is swarm_v0.parallel_env


def test_what_a_module_of_popcomm_says_is_for_files_can_be_named() -> None:
    assert attribute("environment.env", "popcomm.analysis.foreign_environments:tictactoe").__name__ == "tictactoe"
    with pytest.raises(UserError, match="of an installed package"):
        attribute("environment.env", "popcomm.analysis.foreign_environments:page")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (
            "no_such_module:x",
            "key 'no_such_module:x' cannot be imported: importing no_such_module says: No module named",
        ),
        ("popcomm_needy_file:x", "importing popcomm_needy_file says: No module named 'no_such_dependency'"),
        ("popcomm_broken_file:x", "importing popcomm_broken_file raises ZeroDivisionError: division by zero"),
        ("popcomm.channels:Ful", "popcomm.channels has no 'Ful'; did you mean 'Full'?"),
        ("popcomm.channels:Full.conect", "popcomm.channels.Full has no 'conect'; did you mean 'connect'?"),
        ("popcomm.channels", "it must be of the form module:attribute"),
        (":Full", "it must be of the form module:attribute"),
        ("popcomm.channels:", "it must be of the form module:attribute"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_a_reference_that_leads_nowhere_says_why(reference: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        attribute("key", reference)
    assert said in str(refusal.value)


@pytest.mark.usefixtures("mine")
def test_a_users_own_kind_needs_no_registration() -> None:
    kind = message_kind({"kind": "popcomm_user_file:Pairs", "size": 7})
    assert isinstance(kind, Symbols)
    assert (kind.vocab_size, kind.length) == (7, 2)
    assert isinstance(make_topology("popcomm_user_file:Outer.Inner"), Full)  # type: ignore[arg-type]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "popcomm_user_file:Pears", "size": 7}, "popcomm_user_file has no 'Pears'; did you mean 'Pairs'?"),
        ({"kind": "popcomm_user_file:Pairs", "sise": 7}, "the argument 'sise' does not exist; did you mean 'size'?"),
        ({"kind": "popcomm_user_file:Pairs"}, "missing 1 required positional argument: 'size'"),
        ({"kind": "popcomm_user_file:Mute"}, "'popcomm_user_file:Mute' gives <popcomm_user_file.Mute"),
        (
            {"kind": "popcomm_user_file:number"},
            "communication.messages.kind 'popcomm_user_file:number' names 3, and must",
        ),
        ({"kind": 3}, "communication.messages.kind is 3, and must be a text; allowed: dru, symbols, vectors, words"),
    ],
)
def test_mistakes_with_ones_own_kind_are_told(config: dict, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        message_kind(config)
    assert said in str(refusal.value)


@pytest.mark.usefixtures("mine")
def test_a_yaml_file_may_name_a_users_own_kind() -> None:
    messages = {"kind": "popcomm_user_file:Pairs", "size": "7"}
    document = {"environment": {"env": "swarm_v0"}, "communication": {"messages": messages}}
    assert apply(document, PopulationPPOConfig()).message_kind.vocab_size == 7


def test_a_module_beside_checkpoints_of_ones_own_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after save_to_path("checkpoints/first") in the folder of one's own code."""
    saved = tmp_path / "checkpoints" / "first"
    saved.mkdir(parents=True)
    (saved / "manifest.json").write_text(CHECKPOINT["manifest.json"])
    (tmp_path / "popcomm_own.py").write_text("from popcomm.envs import World\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    assert attribute("env", "popcomm_own:World").__name__ == "World"
