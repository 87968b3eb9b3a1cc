"""Corpora in every form that they come in, and files that are none."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from popcomm.errors import UserError
from popcomm.language.corpora import Columns, read_corpus
from popcomm.language.recording import NEWEST, conversation_path, write_conversations
from popcomm.language.suite import measure

SAID = [[1, 2], [3], [1, 2, 4]]
MEANT = [[5, 0], [5, 1], [6, 0]]
ROWS = [{"message": said, "meaning": meant} for said, meant in zip(SAID, MEANT, strict=True)]


def written(tmp_path: Path, text: str, name: str = "talk.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "message,meaning\n1 2,5 0\n3,5 1\n1 2 4,6 0\n"),
        ("a.csv", 'message,meaning\n"[1, 2]","(5, 0)"\n[3],"(5, 1)"\n"[1, 2, 4]","(6, 0)"\n'),
        ("a.csv", "Message_0,message_1,message_2,meaning_0,meaning_1\n1,2,,5,0\n3,,,5,1\n1,2,4,6,0\n"),
        ("a.tsv", "symbols\tmeaning\n1-2\t5;0\n3\t5;1\n1-2-4\t6;0\n"),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("a.json", json.dumps(ROWS)),
    ],
)  # fmt: skip
def test_tables_of_many_forms_hold_the_same_corpus(tmp_path: Path, name: str, text: str) -> None:
    corpus = read_corpus(written(tmp_path, text, name))
    assert corpus.messages.tolist() == [[1, 2, -1], [3, -1, -1], [1, 2, 4]]
    assert corpus.meanings is not None
    assert [[str(v) for v in row] for row in corpus.meanings] == [["5", "0"], ["5", "1"], ["6", "0"]]
    assert corpus.streams is None
    assert "independent" in corpus.notes[1]


def test_a_parquet_of_lists_is_read_with_its_episodes_speakers_and_actions(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"symbols": SAID, "label": [4, -1, 5], "world": [0, 0, 1], "episode": [7, 7, 7], "sender": [2, 3, 2]}
    )
    frame["move"] = ["left", "right", "left"]
    frame.to_parquet(tmp_path / "a.parquet")
    corpus = read_corpus(tmp_path / "a.parquet", Columns(action="move"))
    assert corpus.meanings is not None
    assert corpus.meanings.tolist() == [[4], [-1], [5]]
    assert corpus.streams is not None
    assert corpus.speakers is not None
    assert corpus.actions is not None
    assert (corpus.streams.tolist(), corpus.speakers.tolist(), corpus.actions.tolist()) == (
        [0, 0, 1],
        [0, 1, 0],
        [0, 1, 0],
    )


def test_lines_of_integers_alone_are_messages_without_meanings(tmp_path: Path) -> None:
    corpus = read_corpus(written(tmp_path, "[1, 2]\n[3]\n[1, 2, 4]\n", "a.jsonl"))
    assert corpus.messages.shape == (3, 3)
    assert corpus.meanings is None


def test_words_and_letters_are_symbols(tmp_path: Path) -> None:
    assert read_corpus(written(tmp_path, "message\nba ba\nku ba\n")).messages.tolist() == [[0, 0], [1, 0]]
    assert read_corpus(written(tmp_path, "message\nab\nba\nc\n")).messages.tolist() == [[0, 1], [1, 0], [2, -1]]


def test_columns_are_found_by_the_names_that_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, "u,v,w\n1,9,red\n0,8,blue\n")
    corpus = read_corpus(path, Columns(messages=["u", "v"], meanings=["w"]), end_symbol=0)
    assert corpus.messages.tolist() == [[1, 9], [-1, -1]]
    with pytest.raises(UserError, match=r"did you mean 'u'|allowed: u, v, w"):
        read_corpus(path, Columns(messages=["uu"]))


def test_one_hots_side_by_side_are_attributes(tmp_path: Path) -> None:
    rows = [{"message": 1, "meaning": [0.0, 1.0, 1.0, 0.0]}, {"message": 2, "meaning": [1.0, 0.0, 1.0, 0.0]}]
    path = written(tmp_path, json.dumps(rows), "a.json")
    meanings = read_corpus(path).meanings
    assert meanings is not None
    assert meanings.tolist() == [[1, 0], [0, 0]]


def interactions(path: Path, monkeypatch: pytest.MonkeyPatch, **fields: object) -> Path:
    """A dump as EGG writes it, of a class that is not there when it is read."""
    package, core, module = (types.ModuleType(name) for name in ("egg", "egg.core", "egg.core.interaction"))
    own = type("Interaction", (), {"__module__": "egg.core.interaction"})
    module.Interaction = own  # type: ignore[attr-defined]
    for name, made in (("egg", package), ("egg.core", core), ("egg.core.interaction", module)):
        monkeypatch.setitem(sys.modules, name, made)
    made = own()
    made.__dict__.update(fields)
    torch.save(made, path)
    for name in ("egg", "egg.core", "egg.core.interaction"):
        monkeypatch.delitem(sys.modules, name)
    return path


def test_a_dump_of_egg_is_read_without_egg_and_cut_at_its_end_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_hot = torch.eye(2)[torch.tensor([[0, 1], [1, 1], [0, 0]])].reshape(3, 4)
    message = torch.tensor([[3, 0, 5], [4, 4, 0], [0, 0, 1]])
    path = interactions(
        tmp_path / "interaction_gpu0", monkeypatch, sender_input=one_hot, message=message,
        message_length=torch.tensor([2, 3, 1]), aux={"acc": torch.ones(3)}, labels=None,
    )  # fmt: skip
    corpus = read_corpus(path)
    assert corpus.messages.tolist() == [[3, -1], [4, 4], [-1, -1]]
    assert corpus.meanings is not None
    assert corpus.meanings.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert "the end symbol is 0" in corpus.notes
    relaxed = interactions(
        tmp_path / "b.pt", monkeypatch, sender_input=None, message=torch.eye(3)[None].repeat(2, 1, 1)
    )
    assert read_corpus(relaxed).messages.tolist() == [[0, 1, 2]] * 2


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("harm",))


def test_a_dump_that_would_run_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"message": Harm()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="no dump of EGG"):
        read_corpus(tmp_path / "a.pt")
    assert capsys.readouterr().out == ""


def test_a_run_is_read_by_episodes_in_time(tmp_path: Path) -> None:
    rows = {
        "iteration": [1] * 4, "env_steps": [9] * 4, "world": [0, 1, 0, 0], "episode": [3] * 4, "step": [1, 0, 0, 2],
        "sender": [0] * 4, "member": [0] * 4, "species": ["a"] * 4, "symbols": [[5, 0], [6, 6], [4, 0], None],
        "label": [1, -1, 0, 2], "action": [[2.0], [1.0], [0.0], [0.0]],
    }  # fmt: skip
    write_conversations(conversation_path(tmp_path, 1), rows)
    corpus = read_corpus(tmp_path)
    assert corpus.messages.tolist() == [[4, 0], [5, 0], [6, 6]]
    assert corpus.meanings is not None
    assert corpus.streams is not None
    assert corpus.actions is not None
    assert corpus.meanings.ravel().tolist() == [0, 1, -1]
    assert corpus.streams.tolist() == [0, 0, 1]
    assert corpus.actions.tolist() == [0, 2, 1]
    config = {"communication": {"messages": {"kind": "symbols", "end_symbol": True}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert read_corpus(tmp_path).messages.tolist() == [[4, -1], [5, -1], [6, 6]]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "", "cannot be read as csv"),
        ("a.csv", "x,y\n1,2\n", "no column of messages"),
        ("a.csv", "message,meaning\n", "holds no messages"),
        ("a.jsonl", "{", "cannot be read as jsonl"),
        ("a.jsonl", "3\n4\n", "cannot be read as jsonl"),
        ("a.parquet", "PAR0", "cannot be read as parquet"),
        ("a.txt", "1 2", "is none of .csv"),
        ("a.pt", "PK", "no dump of EGG"),
        ("a.jsonl", '{"message": [1.5]}', "symbols must be integers"),
        ("a.jsonl", '{"message": {"a": 1}}', "symbols must be integers"),
    ],
)
def test_what_is_no_corpus_is_said_in_a_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_corpus(written(tmp_path, text, name))


def test_folders_without_messages_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder with conversations"):
        read_corpus(tmp_path)
    with pytest.raises(UserError, match="neither a file nor a run folder"):
        read_corpus(tmp_path / "nowhere")
    (tmp_path / "conversations").mkdir()
    with pytest.raises(UserError, match="no messages of symbols"):
        read_corpus(tmp_path)


def test_names_of_columns_are_refused_where_nothing_has_columns(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "a.pt")
    for path in (tmp_path, tmp_path / "a.pt"):
        with pytest.raises(UserError, match=r"--meanings, --speaker: '.*' is no table"):
            read_corpus(path, Columns(meanings=["w"], speaker="v"))


def conversation(iteration: int, size: int, said: list[int], **columns: object) -> dict[str, object]:
    """Rows of two seats by turns."""
    usual: dict[str, object] = {name: [0] * size for name in ("world", "episode", "member")}
    usual |= {"iteration": [iteration] * size, "env_steps": [iteration] * size, "species": ["a"] * size}
    usual |= {"step": [row // 2 for row in range(size)], "sender": [row % 2 for row in range(size)]}
    return {**usual, "symbols": [[said[row % len(said)]] for row in range(size)], **columns}


def test_of_a_run_the_newest_messages_are_taken_and_all_only_if_it_is_said(tmp_path: Path) -> None:
    write_conversations(conversation_path(tmp_path, 1), conversation(1, 10, [7]))
    write_conversations(conversation_path(tmp_path, 5), conversation(5, NEWEST, [3]))
    newest, everything = read_corpus(tmp_path), read_corpus(tmp_path, whole=True)
    assert (len(newest.messages), newest.messages.max(), newest.notes) == (
        NEWEST,
        3,
        ("messages of iteration 5",),
    )
    assert (len(everything.messages), everything.messages.max()) == (NEWEST + 10, 7)
    assert everything.notes == ("messages of iterations 1 to 5",)
    with pytest.raises(UserError, match=r"--all: .* is no run folder"):
        read_corpus(conversation_path(tmp_path, 5), whole=True)


def test_members_of_different_species_are_different_speakers(tmp_path: Path) -> None:
    four = {"sender": [0, 1, 2, 3], "step": [0] * 4, "species": ["a", "a", "b", "b"]}
    write_conversations(conversation_path(tmp_path, 1), conversation(1, 4, [0, 0, 1, 1], **four, member=[0, 1, 0, 1]))
    speakers = read_corpus(tmp_path).speakers
    assert speakers is not None
    assert speakers.tolist() == [0, 1, 2, 3]
    write_conversations(conversation_path(tmp_path, 1), conversation(1, 4, [0], **four | {"sender": [4, 5, 6, 7]}))
    one_network_each = read_corpus(tmp_path).speakers
    assert one_network_each is not None
    assert one_network_each.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'message\n"[3, 7, -1]"\n"[4, -1, -1]"\n'),
        ("a.csv", "message\n3 7 -1\n4 -1 -1\n"),
        ("a.csv", "message_0,message_1\n3,7\n4,-1\n"),
        ("a.jsonl", "[3, 7, -1]\n[4, -1, -1]\n"),
    ],
)
def test_minus_one_is_what_was_not_sent_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    assert read_corpus(written(tmp_path, text, name)).messages.tolist() == [[3, 7], [4, -1]]


def test_one_hots_in_several_columns_are_attributes_and_the_notes_say_so(tmp_path: Path) -> None:
    text = "message,x_0,x_1,x_2,x_3\n1,0,1,1,0\n2,1,0,1,0\n"
    corpus = read_corpus(written(tmp_path, text))
    assert corpus.meanings is not None
    assert corpus.meanings.tolist() == [[1, 0], [0, 0]]
    assert corpus.notes[0].endswith("meanings: x_0, x_1, x_2, x_3, whose one-hots are 2 attributes")
    binary = read_corpus(written(tmp_path, "message,x_0,x_1\n1,0,1\n2,1,1\n3,0,0\n")).meanings
    assert binary is not None
    assert binary.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_labels_that_are_all_negative_are_no_meanings(tmp_path: Path) -> None:
    corpus = read_corpus(written(tmp_path, "message,label\n1,-1\n2,-1\n"))
    assert corpus.meanings is None
    assert "label: negative throughout, so no message has a meaning" in corpus.notes
    rows = measure(corpus)[0]
    assert "information" not in {row.name for row in rows}
