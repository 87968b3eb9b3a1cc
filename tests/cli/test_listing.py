"""What is read from sources is what importing would give, and costs neither torch nor Ray."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import popcomm
from popcomm.cli import main as cli
from popcomm.cli.listing import KINDS, Names, classes
from popcomm.cli.sources import arguments, first_sentence


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_the_sources_say_what_the_classes_are(kind: Names) -> None:
    real = getattr(import_module(kind.module), kind.table)
    found = classes(kind)
    assert set(found) == set(real)
    for name, source in found.items():
        assert source.docstring == inspect.getdoc(real[name])
        takes = {} if real[name].__init__ is object.__init__ else inspect.signature(real[name].__init__).parameters
        assert [one.name for one in arguments(source)] == list(takes)[1:], name
        for one in arguments(source):
            default = takes[one.name].default
            if default is inspect.Parameter.empty or default is dataclasses._HAS_DEFAULT_FACTORY:  # type: ignore[attr-defined]
                continue
            shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
            assert one.default is not None
            try:
                assert str(ast.literal_eval(one.default)) == shown
            except (ValueError, SyntaxError):
                assert one.default == shown


def test_what_is_said_of_an_argument_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "k_nearest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "k_nearest  (communication.topology.kind)"
    assert lines[1].startswith("Each hears the `k` nearest others, across the border")
    assert any(line.split()[:4] == ["k", "=", "4", "int"] for line in lines)
    assert cli.main(["list", "swarm_v0"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "message_cost = 0.0 float price of one spoken symbol, in units of reward." in told
    assert "num_worlds" not in told


def test_a_config_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "relay"]) == 0
    assert "env: relay_v0" in capsys.readouterr().out


def test_a_class_of_ones_own_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine_to_list.py").write_text(
        'raise SystemExit("nobody runs this")\nclass Mine:\n    """Does it. Well."""\n'
        "    def __init__(self, spec, width: int = 3, *, deep=True): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["list", "mine_to_list:Mine"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["width", "=", "3", "int"] in told
    assert ["deep", "=", "true"] in told
    assert "Does it." in " ".join(told[1])
    assert cli.main(["list", "mine_to_list:Yours"]) == 2
    assert "'mine_to_list:Yours' is no class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nosuch.mod:Foo", "'nosuch.mod:Foo': the module 'nosuch.mod' does not exist, or is not written in Python"),
        ("nosuch_mod:Foo", "the module 'nosuch_mod' does not exist"),
        ("popcomm.nosuch:Foo", "the module 'popcomm.nosuch' does not exist"),
        (":Foo", "the module '' does not exist"),
        (".mine:Foo", "the module '.mine' does not exist"),
        ("json.nosuch.mod:Foo", "the module 'json.nosuch.mod' does not exist"),
        ("bad_syntax:Foo", "bad_syntax.py, line 2: is no Python ("),
        ("bad_bytes:Foo", "bad_bytes.py: is no Python ("),
        ("bad_package.mod:Foo", "__init__.py, line 1: is no Python ("),
    ],
)
def test_a_class_of_a_module_that_is_not_there_or_no_python_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    (tmp_path / "bad_syntax.py").write_text("x = 1\nclass Foo(:\n")
    (tmp_path / "bad_bytes.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "bad_package").mkdir()
    (tmp_path / "bad_package/__init__.py").write_text("class (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.main(["list", name]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "swrm_v0"]) == 2
    assert "the name 'swrm_v0' does not exist; did you mean 'swarm_v0'?" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"popcomm {popcomm.__version__}\n"


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["list"], ["list", "swarm_v0"], ["train", "--help"]])
def test_what_answers_at_once_imports_neither_torch_nor_ray_nor_numpy(args: list[str]) -> None:
    code = """
import sys
from popcomm.cli.main import main
assert main(sys.argv[1:]) == 0
slow = {"torch", "ray", "numpy", "scipy", "pandas", "matplotlib", "gymnasium"}
sys.exit(str(slow & set(sys.modules)) if slow & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("A thing, e.g. this one. Another.", "A thing, e.g. this one."),
        ("Over\n    lines.\n\nMore.", "Over lines."),
        ("no end", "no end"),
    ],
)
def test_the_first_sentence_ends_where_it_ends(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_a_scenario_of_vmas_is_told_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("vmas", reason="popcomm[vmas] is not installed")
    assert cli.main(["list", "vmas:navigation"]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["n_agents", "=", "4", "of", "the", "scenario"] in told
    assert any(line[:3] == ["max_steps", "=", "100"] for line in told)
    assert cli.main(["list", "vmas:navigatoin"]) == 2
    assert "did you mean 'navigation'" in capsys.readouterr().err
    assert cli.main(["list"]) == 0
    assert "ball_passage" in capsys.readouterr().out
