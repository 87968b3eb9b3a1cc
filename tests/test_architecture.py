"""The rooms: imports go downwards only, not in circles, and what loads slowly waits until it is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from popcomm.analysis.architecture import FLOORS, PACKAGE, Import, circles, direct, draw, imports, modules, room_of
from popcomm.analysis.architecture import upwards as going_up

ROOT = Path(__file__).parent.parent

# A report is made of a run when it ends; `analysis`, no room of popcomm's, stands on all of them.
UPWARDS = {
    ("popcomm.cli.run_commands", "popcomm.analysis.report"),
    ("popcomm.cli.train", "popcomm.analysis.report"),
    ("popcomm.cli.run_commands", "popcomm.analysis.sweep_report"),
    ("popcomm.cli.run_commands", "popcomm.analysis.comparison_report"),
    ("popcomm.cli.run_commands", "popcomm.analysis.watched"),
    ("popcomm.cli.run_commands", "popcomm.analysis.watching"),
    ("popcomm.cli.sweep", "popcomm.analysis.sweep_report"),
}
# Imports inside functions, and why they wait.
LATE = (
    ("popcomm.envs.*_v0", "popcomm.envs.*_picture"),  # matplotlib, for those who draw
    ("popcomm.envs.vmas_world", "popcomm.envs.vmas_picture"),  # the same
    ("popcomm.rllib.recording", "popcomm.language.*"),  # the same
    ("popcomm.cli.*", "popcomm.*"),  # Ray and torch, for commands that need them: --help answers at once
)


@pytest.fixture(scope="module")
def found() -> list[Import]:
    return imports(modules())


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A popcomm of three rooms, each with a file that says something else of imports."""
    files = {
        "__init__.py": "",
        "errors.py": "from popcomm.cli import main\n",  # up
        "channels/__init__.py": "from popcomm.channels import topology\n",  # within a room
        "channels/topology.py": "def late():\n    from ..envs import world\n",  # up, inside a function
        "envs/__init__.py": "import popcomm.errors\n",
        "envs/world.py": (
            "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from popcomm.channels.topology import Full\n"
        ),
        "cli/__init__.py": "if __name__ == '__main__':\n    from popcomm.envs import world\n",
        "cli/main.py": "import numpy\nfrom popcomm.channels.topology import Full, Ring\nfrom popcomm import errors\n",
    }
    for name, text in files.items():
        file = tmp_path / "popcomm" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "popcomm"


def test_imports_go_downwards_only(found: list[Import]) -> None:
    told = {(one.source, one.target) for one in going_up(found)}
    assert told == UPWARDS


def test_every_room_has_a_floor() -> None:
    known = {room for floor in FLOORS for room in floor}
    assert {room_of(module) for module in modules()} - known == {""}


def test_no_modules_go_round_in_circles(found: list[Import]) -> None:
    assert circles(found) == []


def test_only_what_is_said_here_is_imported_late(found: list[Import]) -> None:
    late = [(one.source, one.target) for one in found if one.when == "late"]
    assert [pair for pair in late if not any(all(map(fnmatchcase, pair, allowed)) for allowed in LATE)] == []


def test_training_is_imported_without_matplotlib() -> None:
    code = "import sys, popcomm.rllib; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_are_found_wherever_they_stand(house: Path) -> None:
    assert imports(modules(house)) == [
        Import("popcomm.channels", "popcomm.channels.topology", "loaded"),
        Import("popcomm.channels.topology", "popcomm.envs.world", "late"),
        Import("popcomm.cli", "popcomm.envs.world", "program"),
        Import("popcomm.cli.main", "popcomm.channels.topology", "loaded"),
        Import("popcomm.cli.main", "popcomm.errors", "loaded"),
        Import("popcomm.envs", "popcomm.errors", "loaded"),
        Import("popcomm.envs.world", "popcomm.channels.topology", "types"),
        Import("popcomm.errors", "popcomm.cli.main", "loaded"),
    ]


def test_what_goes_up_or_round_is_told(house: Path) -> None:
    there = imports(modules(house))
    assert [(one.source, one.target) for one in going_up(there)] == [
        ("popcomm.channels.topology", "popcomm.envs.world"),
        ("popcomm.errors", "popcomm.cli.main"),
    ]
    # What only the type checker reads closes no circle.
    assert circles(there) == ["popcomm.cli.main", "popcomm.errors"]


def test_an_arrow_is_left_out_where_a_longer_way_leads_there() -> None:
    assert direct([("c", "a"), ("c", "b"), ("b", "a"), ("d", "a")]) == [("b", "a"), ("c", "b"), ("d", "a")]


def test_the_house_is_drawn() -> None:
    assert draw().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["architecture.md", "glossary.md"])
def test_the_page_names_files_that_exist(name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_0-9]+\.py)`", page))
    assert len(named) > 20
    assert [file for file in sorted(named) if not any((where / file).is_file() for where in (PACKAGE, ROOT))] == []
