"""A page for every kind of run: it tells what is there, and what is missing and why."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from popcomm.analysis.findings import training_progress
from popcomm.analysis.report import standing, write_report
from popcomm.analysis.run_folder import RunFolder

from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.language.recording import conversation_path, write_conversations
from tests.analysis.synthetic_run import HUBS, make_run

ALL = {
    "training_progress",
    "symbol_use",
    "symbol_specialisation",
    "temporal_patterns",
    "topology",
    "attention_hubs",
}


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def text_only(monkeypatch):
    """Most of a report's time goes into PNG files: a test that reads words only has its figures made but not saved."""
    monkeypatch.setattr("popcomm.analysis.findings.pictures.png", lambda figure: b"")


def report(folder, **options) -> tuple[str, set[str]]:
    """(the page's text, the pictures written)."""
    path = write_report(make_run(folder, **options))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8"), {p.stem for p in (folder / "pictures").glob("*.png")}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "usual"
    return folder, *report(folder, steps=96)


def test_a_run_with_one_conversation_gets_six_pictures_inside_the_page(usual):
    _, page, pictures = usual
    assert pictures == ALL
    assert page.count('src="data:image/png;base64,') == 6
    assert "prefers-color-scheme: dark" in page


def test_the_page_needs_nothing_from_elsewhere(usual):
    page = usual[1]
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert not re.findall(r"<(?:link|iframe|object|embed|base)\b", page)
    assert "default-src 'none'" in page
    # The name of SVG, and a header's.
    known = page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "http" not in re.sub(r"base64,[^\"]*", "", known)


def test_the_page_states_the_numbers_of_this_run(usual):
    _, page, _ = usual
    assert "39 of 64 symbols in use (61%), under 70%" in page
    assert "43 were said at least once" in page
    assert "position 2 tells" in page
    assert "the symbols have meaning (p = 0.01)" in page
    assert "Hubs: 2 of 10" in page
    assert f"member {HUBS[0]}" in page or f"member {HUBS[1]}" in page
    assert re.search(r"most unlike the others is 4: .* a way of speaking of its own \(p = 0\.01\)", page)
    assert "vocab_size=64" in page


def turning_run(folder, changes: int) -> str:
    """The page of a run of six parts, of which the second repeats the first, and whose last `changes` are alike.

    Until then all symbols are one higher.
    """
    make_run(folder, iterations=12)
    table = RunFolder.read(folder).talk.table
    columns = {name: table[name].to_pylist() for name in table.column_names}
    parts = (1, 2, 4, 6, 8, 10)
    for part in parts:
        symbols = np.array(columns["symbols"])
        changed = {
            "iteration": np.full(len(table), part),
            "env_steps": np.full(len(table), 1000 * part),
            "episode": np.full(len(table), max(part, 2)),
            "symbols": symbols if part in parts[-changes:] else (symbols + 1) % 64,
        }
        write_conversations(conversation_path(folder, part), columns | changed)
    conversation_path(folder, 12).unlink()
    return write_report(folder).read_text(encoding="utf-8")


def test_the_vocabulary_over_training_tells_when_it_settled(tmp_path, text_only):
    """The language changes once, between 4,000 and 6,000 steps; the second part is no checkpoint of its own."""
    page = turning_run(tmp_path / "run", changes=3)
    assert "it stays under 0.05 bits from 6,000 environment steps on" in page
    assert "The first of 5 checkpoints is 0." in page
    assert (tmp_path / "run" / "pictures" / "vocabulary_over_training.png").is_file()


def test_a_vocabulary_that_turned_over_at_the_end_has_not_settled(tmp_path, text_only):
    assert "it has not settled" in turning_run(tmp_path / "run", changes=1)


def watched_run(folder, messages) -> str:
    """The page of a run in whose iterations speakers used so many different messages."""
    make_run(folder, iterations=12)
    for iteration, number in enumerate(messages, 1):
        row = {"iteration": iteration, "env_steps": 1000 * iteration, "charts/agent_episodic_return": 1.0 * iteration}
        progress.append(
            folder / "progress.jsonl", row | {"language/messages_per_speaker": number, "language/collapse": 0}
        )
    return write_report(folder).read_text(encoding="utf-8")


def test_a_healthy_language_is_said_to_be_one(tmp_path, text_only):
    page = watched_run(tmp_path / "run", [5.0] * 12)
    assert "The language never showed a sign of collapse." in page
    assert "At the end" not in page


def test_a_collapse_is_told_with_its_time_and_at_the_top_if_it_lasts(tmp_path, text_only):
    page = watched_run(tmp_path / "run", [5.0] * 2 + [1.0] * 3 + [5.0] * 4 + [1.0] * 3)
    told = (
        "Collapse: from 3,000 to 5,000 environment steps speakers always say the same; "
        "from 10,000 environment steps on speakers always say the same."
    )
    assert told in page
    assert "in the last. At the end, speakers always say the same." in page


def test_of_many_collapses_the_longest_are_told(tmp_path, text_only):
    page = watched_run(tmp_path / "run", [5.0, 1.0] * 6 + [5.0])
    assert page.count("speakers always say the same") == 5
    assert "; and 1 shorter time more." in page


def test_one_conversation_is_no_history(usual):
    assert "Only one conversation is recorded" in usual[1]


def test_silence_is_named(tmp_path, text_only):
    page, pictures = report(tmp_path / "run", kind=None)
    assert pictures == {"training_progress"}
    assert page.count("are silent") == 6


def test_vectors_have_a_topology_but_no_symbols(tmp_path, text_only):
    page, pictures = report(tmp_path / "run", kind="vectors")
    assert pictures == {"training_progress", "topology", "attention_hubs"}
    assert page.count("send vectors: there are no symbols") == 4


def test_agents_without_attention_and_places(tmp_path, text_only):
    page, pictures = report(tmp_path / "run", attention=False, positions=False)
    assert pictures == ALL - {"attention_hubs"}
    assert "all arrows are alike" in page
    assert "no attention weights: nobody is a hub" in page


def test_a_run_that_has_only_begun(tmp_path):
    page, pictures = report(tmp_path / "run", iterations=0, conversations=False)
    assert pictures == set()
    assert "No iteration is finished yet" in page
    assert page.count("No conversation is recorded yet") == 7


def test_one_iteration_and_one_step(tmp_path):
    page, pictures = report(tmp_path / "run", iterations=1, steps=1, worlds=1)
    assert pictures == {"training_progress", "symbol_use", "symbol_specialisation"}
    assert "Only 1 iteration so far" in page
    assert "too few to call any unused" in page
    assert "two steps in a row" in page
    assert "No recorded message was heard by anybody" in page
    assert write_report(tmp_path / "run").read_text(encoding="utf-8") == page


def test_two_symbols_at_one_position_leave_nothing_out(tmp_path, text_only):
    assert report(tmp_path / "run", vocab=2, length=1, iterations=12)[1] == ALL


def test_a_constant_language_is_called_so(tmp_path, text_only):
    make_run(tmp_path / "run", iterations=12)
    run = RunFolder.read(tmp_path / "run")
    size = run.talk.size
    columns = {c: run.talk.table[c].to_pylist() for c in run.talk.table.column_names} | {"symbols": np.ones((size, 1))}
    write_conversations(conversation_path(tmp_path / "run", 12), columns)
    page = write_report(tmp_path / "run").read_text()
    assert "Symbol 1 makes up 100% of all" in page
    assert "no more than chance" in page


def test_several_species_are_told_apart(tmp_path, text_only):
    page, _ = report(tmp_path / "run", species=("sensor", "actuator"))
    assert "sensor 3" in page or "actuator 7" in page
    names = RunFolder.read(tmp_path / "run").talk.agents[1]
    assert names == [f"actuator {i}" for i in range(5, 10)] + [f"sensor {i}" for i in range(5)]


def test_what_one_network_or_a_fixed_seat_explains_is_no_dialect_and_no_hub(tmp_path, text_only):
    """The same symbols and the same attention as where members are dealt to seats."""
    for members, reason in ((1, "All seats share one network"), (5, "Every member keeps its seat")):
        page, _ = report(tmp_path / f"{members}", members=members)
        assert page.count(reason) == 3
        assert "So differences below are not for that a way of speaking of their own." in page
        assert "So nothing is said of dialects." in page
        assert "So nothing is said of hubs." in page
        assert "Hubs:" not in page
        assert "most unlike" not in page
    assert re.search(r"seat [37] gets most", report(tmp_path / "seats", members=1)[0])


def test_seats_that_the_world_lets_see_are_told(tmp_path, text_only):
    folder = make_run(tmp_path / "run", members=1)
    table = RunFolder.read(folder).talk.table
    columns = {c: table[c].to_pylist() for c in table.column_names}
    columns["label"] = np.where(np.isin(columns["sender"], (3, 7)), columns["label"], -1)
    write_conversations(conversation_path(folder, 40), columns)
    assert "Only seats 3, 7 saw anything that the world gives a label." in write_report(folder).read_text()


def test_order_is_described_and_not_called_a_grammar(usual):
    page = usual[1]
    assert "bits with the one before it at its position" in page
    assert "these numbers cannot tell" in page
    # Position 3 is a chain in time, whatever there is to see.
    assert "there is an order beyond that of what was seen (p = 0.01)" in page
    assert "order carries information" not in page


def returning_run(folder, returns, lengths) -> str:
    """The page of a run with such returns per agent in its iterations."""
    folder.mkdir()
    for i, (value, steps) in enumerate(zip(returns, lengths, strict=True), 1):
        row = {"iteration": i, "env_steps": 100 * i, "charts/episodic_length": steps}
        row |= {"charts/agent_episodic_return": value, "charts/episodic_return": 10 * value}
        progress.append(folder / "progress.jsonl", row)
    return write_report(folder).read_text(encoding="utf-8")


def test_returns_of_episodes_that_were_cut_are_compared_by_the_step(tmp_path, text_only):
    """Worlds that start staggered: the first episodes have a quarter of the steps of whole ones, and of the return."""
    page = returning_run(tmp_path / "run", [5.41] * 3 + [40.0] * 24 + [53.0] * 3, [25] * 3 + [100] * 27)
    assert "Return per agent and 100 steps: 21.6 in the first tenth of the run, 53 in the last." in page
    assert "Episodes had 25 steps there and 100 here" in page
    assert "Return per agent: " not in page


def test_returns_of_equal_episodes_are_compared_as_they_are(tmp_path, text_only):
    page = returning_run(tmp_path / "run", [5.0] * 5 + [40.0] * 15, [np.nan] + [100] * 18 + [102])
    assert "Return per agent: 5 in the first tenth of the run, 40 in the last." in page


def test_a_measure_has_one_number_on_the_page(tmp_path, text_only, monkeypatch):
    """What the progress says at its end of return, R² and the language differs from iteration to iteration."""
    drawn = []
    monkeypatch.setattr("popcomm.analysis.findings.drawn", lambda *args: drawn.append(args))
    run = RunFolder.read(make_run(tmp_path / "run", iterations=50))
    training_progress(run)
    _, _, headline, figure = drawn[0]
    per_agent, per_world = (standing(run)[f"return per {who}"] for who in ("agent", "world"))
    assert headline.endswith(f", {per_agent} in the last.")
    assert float(per_world) == pytest.approx(10 * float(per_agent), rel=0.01)
    legends = {a.get_title(loc="left"): a.get_legend() for a in figure.axes if a.get_visible()}
    assert [t.get_text() for t in legends["Return per agent"].get_texts()] == [f"last: {per_agent}"]
    # The language has its numbers in its own sections, and in no other place.
    assert legends["Entropy of symbols, as used"] is None
    assert not {name for name in standing(run) if "symbol" in name or "vocabulary" in name or "neighbour" in name}


def test_updates_that_were_left_out_are_on_the_page(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for i, lost in enumerate((0, 3, 1)):
        progress.append(folder / "progress.jsonl", {"iteration": i, "env_steps": i, "losses/non_finite_updates": lost})
    assert standing(RunFolder.read(folder))["updates left out"] == "4"


def test_rows_that_older_versions_repeated_count_once(tmp_path):
    folder = make_run(tmp_path / "run")
    talk = RunFolder.read(folder).talk
    columns = {c: talk.table[c].to_pylist() for c in talk.table.column_names}
    write_conversations(conversation_path(folder, 41), columns)
    assert RunFolder.read(folder).talk.size == talk.size


def test_links_by_member_follow_who_sits_where(tmp_path):
    talk = RunFolder.read(make_run(tmp_path / "run", members=5)).talk
    sender, listener = talk.heard
    seats = talk.column("sender")[talk.links.row]
    assert (sender == seats // 2).all()
    assert (listener == talk.links.listener // 2).all()
    assert talk.links.inbox_size == pytest.approx(4.0)


def test_the_snapshot_is_one_moment_with_all_its_links(tmp_path):
    talk = RunFolder.read(make_run(tmp_path / "run")).talk
    now = talk.snapshot()
    assert len(now.rows) == 10
    assert len(np.unique(talk.moments[now.rows])) == 1
    assert np.bincount(now.links[:, 1], minlength=10).tolist() == [4] * 10
    assert np.bincount(now.links[:, 1], now.weights) == pytest.approx(np.ones(10))


def test_a_page_without_configuration_is_still_a_page(tmp_path, text_only):
    folder = make_run(tmp_path / "run", iterations=12)
    (folder / "config.yaml").unlink()
    page = write_report(folder).read_text()
    assert "not in the folder" in page
    assert page.count("data:image/png") == 6


def test_a_dollar_in_a_name_begins_no_formula(tmp_path):
    assert report(tmp_path / "run", species=("$\\frac$", "b"), agents=4, worlds=1, steps=6)[1] >= {"topology"}


def test_what_users_wrote_is_escaped(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("environment: {env: '<script>alert(1)</script>'}\n")
    page = write_report(folder).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_progress_with_only_null_returns_says_that_no_episode_ended(tmp_path, text_only):
    folder = tmp_path / "run"
    folder.mkdir()
    for i in range(12):
        progress.append(folder / "progress.jsonl", {"iteration": i, "env_steps": i, "losses/entropy": 1.0})
    assert "No episode has ended yet" in write_report(folder).read_text()


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match="is no run folder: it has neither"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["a: [1", "- just\n- a list"])
def test_a_broken_configuration_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        write_report(tmp_path)
