"""`popcomm language` on tables of messages."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from popcomm.cli import main as cli
from popcomm.language.recording import NEWEST, conversation_path, write_conversations


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{a} {b + 5} 0 9,{a} {b}" for a, b in product(range(5), repeat=2)] * 3
    (tmp_path / "talk.csv").write_text("\n".join(["message,meaning", *rows]), encoding="utf-8")
    return tmp_path / "talk.csv"


def test_a_table_is_measured_printed_and_written(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, words = tmp_path / "found.json", tmp_path / "words.csv"
    assert cli.main(["language", str(table), "--json", str(found), "--lexicon", str(words)]) == 0
    shown = capsys.readouterr().out
    assert "topographic_similarity" in shown
    assert "rows are taken as independent" in " ".join(shown.split())
    told = json.loads(found.read_text(encoding="utf-8"))
    assert told["messages"] == 75
    assert told["metrics"]["positional_disentanglement"]["value"] == pytest.approx(1.0)
    assert told["metrics"]["positional_disentanglement"]["p_value"] == 0.01
    assert told["metrics"]["message_entropy"]["p_value"] is None
    assert "speaker_consistency needs actions, and there are none" in told["left_out"]
    assert len(pd.read_csv(words)) == 25


def test_one_metric_is_asked_for_and_the_end_symbol_said(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    arguments = ["--metric", "bag_of_symbols_disentanglement", "--end-symbol", "9", "--json", str(found)]
    assert cli.main(["language", str(table), *arguments]) == 0
    told = json.loads(found.read_text(encoding="utf-8"))
    assert list(told["metrics"]) == ["bag_of_symbols_disentanglement"]
    assert "commonest messages" not in capsys.readouterr().out


def test_a_corpus_is_exported_and_read_again(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "a.parquet"]
    exports = [part for file in files for part in ("--export", str(file))]
    assert cli.main(["language", str(table), "--end-symbol", "9", "--metric", "message_entropy", *exports]) == 0
    assert f"{files[0]}: 75 rows" in capsys.readouterr().out.replace("\n", "")
    assert files[0].read_text(encoding="utf-8").splitlines()[:2] == ["[0, 5, 0]", "[0, 6, 0]"]
    found = tmp_path / "found.json"
    wanted = ["--metric", "positional_disentanglement", "--json", str(found)]
    assert cli.main(["language", str(files[1]), *wanted]) == 0
    told = json.loads(found.read_text(encoding="utf-8"))
    assert told["metrics"]["positional_disentanglement"]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.csv"], "neither a file nor a run folder"),
        (["{table}", "--messages", "mesage"], "did you mean 'message'"),
        (["{table}", "--metric", "topsim"], "the metric 'topsim' does not exist"),
        (["{table}", "--json", "found.txt"], "does not end in .json"),
        (["{table}", "--end-symbol", "-1"], "--end-symbol"),
        (["{table}", "--export", "found.txt"], "written as .jsonl or .parquet"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_two(
    table: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["language", *(a.format(table=table) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_neither_ray_nor_torch_is_loaded_for_a_table(table: Path) -> None:
    code = (
        "import sys; from popcomm.cli.main import main; "
        f"assert main(['language', {str(table)!r}]) == 0; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_of_a_run_all_messages_are_measured_if_all_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for iteration, size in ((1, 4), (9, NEWEST)):
        same: dict[str, list[Any]] = {name: [0] * size for name in ("world", "episode", "sender", "member")}
        rows = same | {"iteration": [iteration] * size, "env_steps": [iteration] * size, "step": list(range(size))}
        rows |= {"species": ["a"] * size, "symbols": [[step % 3] for step in range(size)]}
        write_conversations(conversation_path(tmp_path, iteration), rows)
    assert cli.main(["language", str(tmp_path), "--metric", "message_entropy"]) == 0
    assert "messages of iteration 9\n" in capsys.readouterr().out
    assert cli.main(["language", str(tmp_path), "--metric", "message_entropy", "--all"]) == 0
    assert "messages of iterations 1 to 9\n" in capsys.readouterr().out
