"""What pages have for a closer look: the newest episodes as data, readings of messages, counts of exchanges."""

from __future__ import annotations

import json

import numpy as np
import pytest
from popcomm.analysis import closer
from popcomm.analysis.conversation import browsed
from popcomm.analysis.exchanges import exchanges
from popcomm.analysis.page import MOST_SENTENCES, Section, page, scripts, summary
from popcomm.analysis.readings import WHOLE, readings
from popcomm.analysis.report import write_report
from popcomm.analysis.run_folder import Conversations, RunFolder

from popcomm.language.recording import conversation_path, read_conversations, write_conversations
from tests.analysis.synthetic_run import make_run

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror='window.hurt=1'>\"'&\u2028"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return RunFolder.read(make_run(tmp_path_factory.mktemp("runs") / "run"))


def told(folder, **columns) -> Conversations:
    """Conversations of rows that are written down and read again."""
    size = len(columns["sender"])
    given = {name: np.zeros(size, int) for name in ("iteration", "env_steps", "world", "episode", "member")}
    write_conversations(conversation_path(folder, 1), given | {"species": ["a"] * size} | columns)
    return Conversations(read_conversations(folder))


# ---- readings ----


def test_a_message_is_read_by_what_it_meant_in_other_episodes():
    """1 means 4, but in episode 2, whose own messages do not count for it."""
    said = np.array([[1], [1], [1], [1], [2]])
    found = readings(said, np.array([4, 4, 9, 9, 9]), np.array([0, 1, 2, 2, 2]))
    assert found.label.tolist() == [9, 9, 4, 4, -1]
    assert found.share.tolist()[:4] == [2 / 3, 2 / 3, 1.0, 1.0]
    assert found.times.tolist() == [3, 3, 2, 2, 0]
    assert (found.right, found.commonest, found.labelled) == (0.0, 0.6, 5)


def test_messages_that_never_recur_are_read_by_the_position_that_tells():
    """Position 1 counts up, position 2 is the label."""
    labels = np.arange(20) % 4
    found = readings(np.stack([np.arange(20), labels + 7], 1), labels, np.arange(20) // 4)
    assert (found.position, found.right) == (1, 1.0)
    assert "position 2" in found.by


def test_messages_that_recur_are_read_as_wholes():
    """Neither position tells the label, both together do."""
    parts = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 6)
    found = readings(parts, parts.sum(1) % 2, np.arange(24) // 4)
    assert (found.position, found.right) == (WHOLE, 1.0)


def test_what_has_one_label_cannot_be_read():
    assert readings(np.array([[1], [2]]), np.array([3, -1]), np.array([0, 1])) is None


# ---- the newest episodes ----


def test_hearers_are_found_a_step_later_and_those_who_only_listen_are_there(tmp_path):
    talk = told(
        tmp_path,
        sender=np.array([0, 1, 0, 1]), step=np.array([0, 0, 1, 1]), symbols=[[5], None, [6], None],
        action=np.array([[0], [3], [0], [7]]), receivers=[[1], [], [], []], label=np.array([2, -1, 1, -1]),
    )  # fmt: skip
    rows = browsed(talk)["rows"]
    assert rows["said"] == [[5], None, [6], None]
    assert rows["heard"][0] == [1]
    assert rows["did"][rows["then"][0][0]] == [7]
    assert len(browsed(talk)["agents"]) == 2


def test_the_newest_episodes_are_taken_whole_and_the_last_of_them_is_cut_by_steps(run):
    talk = browsed(run.talk, most=500)  # of four episodes of 24 steps and 10 seats
    sizes = [one["stop"] - one["start"] for one in talk["episodes"]]
    assert sizes == [240, 240, 20]
    assert talk["cut"]
    assert talk["rows"]["step"][-20:] == [22] * 10 + [23] * 10
    assert {len(column) for column in talk["rows"].values()} == {500}


def test_an_episode_that_is_too_long_keeps_a_step_at_least(run):
    assert browsed(run.talk, most=3)["rows"]["step"] == [23] * 10


def test_data_are_plain_json_without_numbers_that_json_has_not(tmp_path):
    talk = told(
        tmp_path,
        sender=np.array([0, 1]), step=np.array([0, 0]), vector=np.array([[np.nan, 1.0], [np.inf, 0.25]]),
        reward=np.array([np.nan, 1.0]), observation=np.arange(40.0).reshape(2, 20),
    )  # fmt: skip
    rows = browsed(talk)["rows"]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows["said"] == [[None, 1], [None, 0.25]]
    assert rows["reward"] == [None, 1]
    assert rows["seen"][0][-1] == "and 8 more"


def test_no_conversations_are_no_episodes(tmp_path):
    talk = browsed(Conversations(read_conversations(tmp_path)))
    assert talk["episodes"] == []
    assert talk["rows"]["step"] == []


# ---- sections ----


def test_arrows_have_the_counts_of_the_conversations(tmp_path):
    folder = make_run(tmp_path / "run", members=1, agents=3, k=1, conversations=False)
    told(
        folder, sender=np.array([0, 1, 2] * 2), step=np.array([0] * 3 + [1] * 3), symbols=np.zeros((6, 1), int),
        receivers=[[1, 2], [0], [], [1], [], []], weights=[[0.5, 1.0], [1.0], [], [0.7], [], []],
    )  # fmt: skip
    graph = exchanges(RunFolder.read(folder)).graph
    assert sorted(arrow.text for arrow in graph.arrows) == [
        "seat 0 to seat 1: heard 2 times in 1 episode, 100% of all that 1 heard; attention 0.60 on average",
        "seat 0 to seat 2: heard 1 time in 1 episode, 100% of all that 2 heard; attention 1.00 on average",
        "seat 1 to seat 0: heard 1 time in 1 episode, 100% of all that 0 heard; attention 1.00 on average",
    ]
    assert graph.nodes[0].text == "seat 0: was heard 3 times, heard 1 message"


def test_over_training_every_symbol_has_its_counts(run):
    found = closer.symbols_of(run)
    assert found["totals"] == [sum(column) for column in zip(*found["counts"].values(), strict=True)]
    assert sum(found["totals"]) == run.talk.symbols.size


def test_silence_has_no_symbols_to_choose(tmp_path):
    silent = RunFolder.read(make_run(tmp_path / "run", kind=None))
    names = [section.name for section in closer.sections(silent, closer.data_of(silent))]
    assert names == ["curves", "conversation"]


def test_differences_of_seats_of_one_network_are_not_called_their_own(tmp_path):
    shared = RunFolder.read(make_run(tmp_path / "run", members=1))
    section = closer.pair(shared, closer.data_of(shared)["talk"])
    assert section.findings[0].startswith("All seats share one network")


def test_a_summary_has_eight_sentences_at_most():
    sections = [Section(str(i), "", "", headline="First. Second.", change="more") for i in range(7)]
    assert sum(text.count(".") for _, text, _ in summary(sections)) == MOST_SENTENCES
    assert summary([*sections, Section("x", "", "")])[-1] == ("3", "First. Second.", "more")


def test_every_section_says_how_it_was_made_and_is_in_the_contents(tmp_path):
    text = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    shown = text.count("<section id=") - 2 - text.count('class="missing"')  # without the summary and the tables
    assert text.count("How it was made: ") == shown > 8
    names = ("about", "training_progress", "conversation", "symbol", "exchanges", "pair", "attention_hubs")
    assert all(f'<li><a href="#{name}">' in text and f'<section id="{name}">' in text for name in names)


def test_what_could_end_a_script_is_escaped_in_data(tmp_path):
    text = page(HOSTILE, HOSTILE, {HOSTILE: {HOSTILE: HOSTILE}}, [], HOSTILE, data={"talk": {HOSTILE: [HOSTILE]}})
    assert "<script>window" not in text
    assert "<img" not in text
    assert text.count("</script>") == 2  # of the data, and of the page's own
    block = text.split('id="data-talk">')[1].split("</script>")[0]
    assert json.loads(block) == {HOSTILE: [HOSTILE]}


def test_the_scripts_themselves_end_no_element():
    assert "</script" not in scripts()
    assert "<!--" not in scripts()
    assert "innerHTML" not in scripts()
