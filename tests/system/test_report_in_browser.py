"""The report in a real browser: it loads without an error, fits a phone, and every control does what it says."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from popcomm.analysis.comparison_report import write_comparison
from popcomm.analysis.conversation import browsed
from popcomm.analysis.report import write_report
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.watched import Watched
from popcomm.analysis.watching import Server

from popcomm.language import progress
from popcomm.language.recording import conversation_path, write_conversations
from tests.analysis.synthetic_run import make_run
from tests.analysis.test_closer import HOSTILE
from tests.browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    one = Browser()
    yield one
    one.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two recorded conversations, with its report."""
    run = make_run(tmp_path_factory.mktemp("runs") / "first", worlds=3, agents=6, vocab=16, length=3)
    table = RunFolder.read(run).talk.table
    columns = {name: table[name].to_pylist() for name in table.column_names}
    later = {name: [value + 1 for value in columns[name]] for name in ("iteration", "env_steps", "episode")}
    write_conversations(conversation_path(run, 41), columns | later)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def talk(folder: Path) -> dict:
    return browsed(RunFolder.read(folder).talk)


@pytest.fixture
def page(browser: Browser, folder: Path) -> Browser:
    browser.size(1100, 900)
    browser.open(f"file://{folder}/report.html")
    return browser


def elsewhere(browser: Browser) -> list[str]:
    """What a page asked for beside itself."""
    return [url for url in browser.requests[1:] if not url.startswith("data:")]


def row_of(talk: dict, world: int, episode: int, step: int, seat: int) -> int:
    one = next(e for e in talk["episodes"] if (e["world"], e["episode"]) == (world, episode))
    rows = talk["rows"]
    return next(i for i in range(one["start"], one["stop"]) if (rows["step"][i], rows["seat"][i]) == (step, seat))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [380, 1100])
def test_it_loads_without_an_error_and_fits_the_window(browser: Browser, folder: Path, width: int, dark: bool) -> None:
    browser.size(width, 800, dark)
    browser.open(f"file://{folder}/report.html")
    assert browser.errors == []
    assert elsewhere(browser) == []
    assert browser.wider_than_the_window() == 0
    colour = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour))) < 300) == dark


def test_without_scripts_tables_stand_in_the_place_of_what_can_be_looked_into(browser: Browser, folder: Path) -> None:
    browser.size(380, 800)
    browser.open(f"file://{folder}/report.html", scripts=False)
    # (What a reader without scripts sees; the protocol may still ask.)
    assert browser.wider_than_the_window() == 0
    for name in ("curves", "conversation", "symbol", "pair"):
        assert browser.run(f"document.querySelectorAll('#{name} table.plain tbody tr').length") > 2
        assert browser.run(f"document.querySelectorAll('#{name} select').length") == 0
    assert "The last step recorded: world 0, episode 1, step 23" in browser.text("#conversation")
    assert browser.run("document.querySelectorAll('#exchanges .arrow title').length") > 10


def test_a_world_an_episode_and_a_step_are_chosen(page: Browser, talk: dict) -> None:
    page.choose("#conversation [data-control=world]", 2)
    page.choose("#conversation [data-control=episode]", 0)
    page.choose("#conversation [data-control=step]", 5)
    assert "step 5 (6 of 24), iteration 40" in page.text("#conversation .where")
    said = page.run("[...document.querySelectorAll('#conversation .message .who code')].map((one) => one.innerText)")
    assert said == [" ".join(map(str, talk["rows"]["said"][row_of(talk, 2, 0, 5, seat)])) for seat in range(6)]


def test_a_message_tells_who_saw_and_heard_what_and_what_they_did(page: Browser, talk: dict) -> None:
    rows = talk["rows"]
    page.choose("#conversation [data-control=world]", 1)
    row = next(
        i for i in range(*(talk["episodes"][1][end] for end in ("start", "stop")))
        if rows["label"][i] >= 0 and rows["reading"][i] and len(rows["heard"][i]) > 1
    )  # fmt: skip
    page.choose("#conversation [data-control=speaker]", rows["seat"][row])
    page.choose("#conversation [data-control=step]", rows["step"][row])
    text = page.text("#conversation .message")
    assert page.run("document.querySelectorAll('#conversation .message').length") == 1
    assert f"member {talk['agents'][rows['agent'][row]]} on seat {rows['seat'][row]}" in text
    assert f"Saw label {rows['label'][row]}; did {rows['did'][row][0]}" in text
    label, share, times = rows["reading"][row]
    agrees = "as seen" if label == rows["label"][row] else "not as seen"
    assert f"read as label {label} ({round(100 * share)}% of {times} elsewhere), {agrees}" in text
    for seat, weight, then in zip(rows["heard"][row], rows["weights"][row], rows["then"][row], strict=True):
        member = talk["agents"][rows["agent"][then]]
        assert f"seat {seat} (member {member}), attention {weight:.2f}: then did {rows['did'][then][0]}" in text


def test_one_walks_through_an_episode(page: Browser) -> None:
    where = "#conversation .where"
    page.click("#conversation [data-control=on]")
    page.click("#conversation [data-control=on]")
    page.click("#conversation [data-control=back]")
    assert page.text(where).startswith("step 1 (2 of 24)")
    page.click("#conversation [data-control=play]")
    page.wait(f"document.querySelector('{where}').innerText.startsWith('step 3')", 10)
    page.click("#conversation [data-control=play]")
    assert page.text("#conversation [data-control=play]") == "play"
    # A click into the strip at its end is the last step.
    page.run(
        "(() => { const one = document.querySelector('#conversation .strip'), box = one.getBoundingClientRect();"
        " one.dispatchEvent(new MouseEvent('click', {clientX: box.right - 2, clientY: box.top + 2})); })()"
    )
    assert page.text(where).startswith("step 23 (24 of 24)")


def test_a_symbol_tells_how_often_of_what_and_where_it_is_said(page: Browser, talk: dict) -> None:
    rows = talk["rows"]
    counts = Counter(symbol for said in rows["said"] for symbol in said)
    symbol = sorted(counts)[2]
    page.choose("#symbol [data-control=symbol]", symbol)
    messages = [i for i, said in enumerate(rows["said"]) if symbol in said]
    assert f"Symbol {symbol} is said {counts[symbol]:,} times" in page.text("#symbol .readout")
    assert f"in {len(messages):,} messages by" in page.text("#symbol .readout")
    _, times = Counter(rows["label"][i] for i in messages if rows["label"][i] >= 0).most_common(1)[0]
    of = sum(rows["label"][i] >= 0 for i in messages)
    shares = page.run("[...document.querySelectorAll('#symbol tbody tr:first-child td')].map((one) => one.innerText)")
    assert float(shares[1].rstrip("%")) == pytest.approx(100 * times / of, abs=0.6)
    page.wait("document.querySelectorAll('#symbol .curve').length == 2", 10)  # in an episode, and over training
    # And it leads to a message with it.
    page.click("#symbol [data-control=look]")
    shown = page.text("#conversation .message .who code").split()
    assert str(symbol) in shown


def test_a_curve_tells_its_numbers(page: Browser, folder: Path) -> None:
    page.choose("#curves [data-control=measure]", "losses/entropy")
    page.wait("document.querySelectorAll('#curves .curve').length == 1", 10)
    page.point("#curves .lines svg")
    told = page.text("#curves .readout")
    value, step = (float(text.replace(",", "")) for text in told.split(" at "))
    table = progress.read(folder / "progress.jsonl").set_index("env_steps")["losses/entropy"]
    assert value == pytest.approx(table[step], rel=1e-3)


def test_an_arrow_tells_its_counts(page: Browser, folder: Path) -> None:
    arrow = page.run("document.querySelector('#exchanges .arrow').dataset.text")
    page.run("document.querySelector('#exchanges .arrow').dispatchEvent(new PointerEvent('pointerenter'))")
    assert page.text("#exchanges .readout") == arrow
    assert re.match(r"member \d to member \d: heard \d+ times in \d episodes, \d+% of all", arrow)
    page.point("#exchanges .node circle")
    assert page.text("#exchanges .readout").startswith("member 0: was heard")


def test_two_members_are_set_side_by_side(page: Browser, talk: dict) -> None:
    rows = talk["rows"]
    page.choose("#pair [data-control=one]", 1)
    page.choose("#pair [data-control=other]", 4)
    sent = [sum(agent == which for agent in rows["agent"]) for which in (1, 4)]
    first = page.run("[...document.querySelectorAll('#pair tbody tr:first-child')][0].innerText")
    assert first.split() == ["messages", *map(str, sent)]
    # Member 4 has a dialect.
    bits = float(re.search(r"([\d.]+) bits apart", page.text("#pair .readout"))[1])
    page.choose("#pair [data-control=other]", 2)
    assert bits > float(re.search(r"([\d.]+) bits apart", page.text("#pair .readout"))[1]) > 0
    page.choose("#pair [data-control=other]", 1)
    assert "the same one" in page.text("#pair .readout")


def test_the_contents_lead_to_every_section(page: Browser) -> None:
    broken = page.run(
        "[...document.querySelectorAll('a')].filter((a) => !document.getElementById(a.hash.slice(1))).length"
    )
    assert broken == 0


def test_several_runs_stand_beside_each_other_and_tell_their_intervals(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    runs = [folder]
    for seed in (2, 3):
        runs.append(make_run(tmp_path / str(seed), worlds=1, agents=4, iterations=30, conversations=seed == 2))
        text = (runs[-1] / "config.yaml").read_text()
        (runs[-1] / "config.yaml").write_text(text.replace("lr: 0.001", "lr: 0.5").replace("seed: 1", f"seed: {seed}"))
    browser.size(380, 800)
    browser.open(f"file://{write_comparison(runs, tmp_path / 'comparison.html')}")
    assert (browser.errors, elsewhere(browser), browser.wider_than_the_window()) == ([], [], 0)
    browser.choose("#learning_curves [data-control=measure]", "losses/entropy")
    browser.wait("document.querySelectorAll('#learning_curves .curve').length == 2", 10)
    assert browser.run("document.querySelectorAll('#learning_curves polygon').length") == 1  # of two runs
    browser.point("#learning_curves .lines svg")
    assert re.search(
        r"training\.lr=0\.5.* \(2\): [\d.]+ \[[\d.]+, [\d.]+\] at", browser.text("#learning_curves .readout")
    )


def test_what_is_new_appears_on_a_watched_page_without_a_reload(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", worlds=2, agents=4, vocab=16, length=3, iterations=12)
    watched = Watched(run)
    with Server(watched, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        browser.size(380, 800)
        browser.open(server.url)
        browser.run("window.loaded = 'once'")
        browser.wait("document.getElementById('live').innerText.includes('iteration 12')", 20)
        browser.choose("#curves [data-control=measure]", "losses/entropy")
        browser.choose("#conversation [data-control=world]", 1)
        browser.choose("#conversation [data-control=step]", 4)
        # Numbers, at once ...
        progress.append(run / "progress.jsonl", {"iteration": 13, "env_steps": 99999, "losses/entropy": 0.125})
        watched.look()
        browser.wait("document.getElementById('live').innerText.includes('iteration 13')", 20)
        assert "13" in browser.text("table[data-table='Where it stands'] td")
        # ... a new conversation, which takes no choice from the reader ...
        table = RunFolder.read(run).talk.table
        columns = {name: table[name].to_pylist() for name in table.column_names}
        later = {name: [value + 1 for value in columns[name]] for name in ("iteration", "env_steps", "episode")}
        write_conversations(conversation_path(run, 13), columns | later)
        watched.look()
        browser.wait("document.querySelectorAll('#conversation [data-control=episode] option').length == 2", 20)
        assert browser.text("#conversation .where").startswith("step 4 (5 of 24), iteration 12")
        # ... and pictures, when they are drawn.
        assert not browser.run("!!document.querySelector('#symbol_use img')")
        watched.draw()
        browser.wait("!!document.querySelector('#symbol_use img')", 30)
        assert browser.text("#conversation .where").startswith("step 4 (5 of 24), iteration 12")
        assert browser.run("document.querySelector('#curves select').value") == "losses/entropy"
        assert browser.run("window.loaded") == "once"
        assert browser.errors == []
        assert {url.partition("live.json")[0] for url in elsewhere(browser)} == {server.url}
        assert browser.wider_than_the_window() == 0
        server.shutdown()
        thread.join()
    browser.wait("document.getElementById('live').innerText.includes('has ended')", 20)


def test_what_users_wrote_stays_text(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", agents=4, worlds=1, species=(HOSTILE, "b"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["environment"]["env"] = HOSTILE
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for i in range(2):
        progress.append(run / "progress.jsonl", {"iteration": 50 + i, "env_steps": 10**6 + i, HOSTILE: float(i)})
    write_report(run)
    browser.size(380, 800)
    browser.open(f"file://{run}/report.html")
    assert browser.errors == []
    browser.choose("#curves [data-control=measure]", HOSTILE)
    assert browser.run("document.querySelector('#curves select').value") == HOSTILE
    browser.point("#exchanges .node circle")
    assert HOSTILE.split("\u2028")[0] in browser.run("document.querySelector('#exchanges .readout').textContent")
    assert browser.run("window.hurt") is None
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    assert browser.wider_than_the_window() == 0
