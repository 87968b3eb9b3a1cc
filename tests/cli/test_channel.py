"""`popcomm channel`: its numbers on cases solved on paper, the YAML that it prints, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import stats

from popcomm import theory
from popcomm.channels import make_topology
from popcomm.channels.broadcast.reflexes import make_reflex
from popcomm.cli import main as cli
from popcomm.cli.channel import Graph, Repetition, plan

WORDS = {"kind": "words", "bits": 32, "min_on": 7, "max_on": 9}


@pytest.fixture(autouse=True)
def _a_wide_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[dict[str, tuple[str, str]], dict[str, Any]]:
    """{quantity: (value, explanation)} and the YAML."""
    assert cli.main(["channel", *args]) == 0
    table, _, config = capsys.readouterr().out.partition("to paste into a config:\n")
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=2) for line in table.splitlines() if line.strip()]
    assert all(len(row) == 3 for row in rows), rows
    document = yaml.safe_load("\n".join(line for line in config.splitlines() if not line.endswith("tail of the load")))
    return {name: (value, what) for name, value, what in rows}, document["communication"]


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(["channel", *args]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert len(streams.err.splitlines()) == 1
    return streams.err.removeprefix("popcomm: ").strip()


# ---- numbers ----


def test_ten_agents_that_hear_all_have_the_numbers_of_the_theory(capsys: pytest.CaptureFixture[str]) -> None:
    rows, _ = said(capsys)
    value = {name: v for name, (v, _) in rows.items()}
    assert value["words"] == "41,932,956"
    assert value["random bits that are a word"] == "0.00976"
    assert (value["p, repetition"], value["R, reproduction"], value["threshold p"]) == ("0.05", "0.5", "0.1")
    assert (value["extinction"], value["transmissions of a word"]) == ("1", "2")
    # Var Z = s2 / (1 - m)^3 with s2 = 10 * 0.05 * 0.95.
    assert value["standard deviation of it"] == f"{np.sqrt(0.475 * 8):.4g}"
    assert value["alive after 1 step"] == f"{1 - 0.95**10:.3g}"
    assert value["new words"] == "10"
    # (s2 mu + nu) / (1 - R^2) with mu = 20 and nu = 10 is 26.
    assert value["load"] == f"20 ± {np.sqrt(26):.3g}"
    capacity = theory.stationary_load(10.0, np.full(10, 0.05)).capacity(1e-3)
    assert value["capacity"] == value["inbox"] == str(capacity)
    assert rows["capacity"][1].endswith("exact")


def test_agents_that_hear_only_themselves_have_a_poisson_load(capsys: pytest.CaptureFixture[str]) -> None:
    # One agent, R = p: new words 3 a step, load Poisson(3 / (1 - 1/4)) = Poisson(4).
    rows, _ = said(capsys, "--agents", "1", "--rule", "bernoulli", "--p", "0.25", "--rate", "3", "--loss", "0.01")
    assert rows["load"][0] == "4 ± 2"
    assert rows["capacity"][0] == str(int(stats.poisson.isf(0.01, 4)))
    assert rows["R, reproduction"][0] == "0.25"


def test_a_ring_is_told_by_its_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    rows, config = said(capsys, "--topology", "ring", "--agents", "9", "--target", "0.6")
    assert rows["an agent hears"][0] == "3"
    assert rows["p, repetition"][0] == "0.2"
    assert rows["threshold p"][0] == "0.3333"
    # The load by source is 1 / (1 - 0.6) = 2.5, and three sources are heard.
    assert rows["load"][0].startswith("22.5 ± ")
    assert rows["heard by an agent"][0] == "7.5"
    assert int(rows["inbox"][0]) < int(rows["capacity"][0])
    assert "Chernoff" in rows["inbox"][1]
    assert config["topology"] == {"kind": "ring", "k": 2}


def test_a_star_of_a_hundred_has_the_known_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    rows, config = said(capsys, "--topology", "star", "--agents", "100", "--rule", "bernoulli", "--p", "0.05")
    assert rows["threshold p"][0] == "0.09133"
    assert rows["an agent hears"][0] == "2 ... 100"
    low, high = rows["transmissions of a word"][0].split(" ... ")
    assert float(low) < float(high)
    hub, *leaves = config["topology"]["adjacency"]
    assert hub == [0, *[1] * 99]
    assert leaves == [[1, *[0] * 99]] * 99


def test_without_feedback_nobody_hears_itself(capsys: pytest.CaptureFixture[str]) -> None:
    rows, config = said(capsys, "--agents", "5", "--no-feedback")
    assert (rows["an agent hears"][0], rows["p, repetition"][0]) == ("4", "0.125")
    assert rows["R, reproduction"][0] == "0.5"
    assert [reflex["kind"] for reflex in config["reflexes"]] == ["word_repetition"]


def test_nearest_neighbours_are_a_sample_with_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--topology", "k_nearest", "--agents", "30", "--k", "3"]
    rows, config = said(capsys, *args)
    assert rows["an agent hears"] == ("4", "agents of 30, itself included; on a torus with random positions, seed 0")
    assert config["topology"] == {"kind": "k_nearest", "k": 3}
    assert rows == said(capsys, *args)[0]
    assert rows["transmissions of a word"] != said(capsys, *args, "--seed", "1")[0]["transmissions of a word"]


def test_each_agent_may_have_its_own_p(capsys: pytest.CaptureFixture[str]) -> None:
    rows, config = said(capsys, "--agents", "3", "--rule", "per_agent", "--p", "0.1, 0.2,0.3")
    assert (rows["p, repetition"][0], rows["R, reproduction"][0]) == ("0.1 ... 0.3", "0.6")
    assert config["reflexes"][1]["decision"] == {"kind": "per_agent", "p": [0.1, 0.2, 0.3]}


def test_published_words_are_heard_by_all_and_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    # On a ring of 9 a published word has 9 * 0.2 repeats, and each of those 1 / (1 - 0.6) transmissions in all.
    args = ["--topology", "ring", "--agents", "9", "--target", "0.6"]
    rows, config = said(capsys, *args, "--publish", "2")
    assert rows["new words"] == ("11", "a step, 2 of them published to all")
    assert rows["load"][0].startswith(f"{22.5 + 2 + 2 * 1.8 / 0.4:.4g} ± ")
    assert rows["heard by an agent"][0] == f"{7.5 + 2 + 3 * 2 * 0.2 / 0.4:.4g}"
    assert config["reflexes"][-1] == {"kind": "publishing", "rate": 2.0}


def test_on_a_full_graph_published_words_are_words_like_others(capsys: pytest.CaptureFixture[str]) -> None:
    rows, _ = said(capsys, "--rate", "6", "--publish", "4")
    assert rows["load"][0] == said(capsys)[0]["load"][0]
    assert rows["capacity"][0] == said(capsys)[0]["capacity"][0]


def test_a_silent_channel_is_small(capsys: pytest.CaptureFixture[str]) -> None:
    rows, config = said(capsys, "--rate", "0", "--topology", "ring")
    assert rows["load"][0] == "0 ± 0"
    assert (config["capacity"], config["inbox"]) == (1, 1)


def test_a_channel_planned_so_holds_its_load() -> None:
    """The busiest inbox and the log of a star, against a simulation."""
    audience = Graph.of("star", 8, None, True, 0)
    design = plan(WORDS, audience, Repetition.of("bernoulli", None, "0.2", audience), 8.0, 0.0, 0.02)
    rng = np.random.default_rng(0)
    now = np.zeros((4000, 8), dtype=np.int64)
    over, full, steps = 0.0, 0.0, 60
    for step in range(steps):
        now = rng.binomial(now[:, :, None], design.M()).sum(1) + rng.poisson(1.0, now.shape)
        if step >= 40:
            full += (now.sum(1) > design.capacity).mean() / 20
            over += ((now @ audience.hears) > design.inbox).mean(0).max() / 20
    assert 0 < full < 0.02
    assert 0 < over < 0.02


def test_the_yaml_names_parts_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--publish", "0.5"], ["--topology", "k_nearest"], ["--rule", "bernoulli", "--p", "0.01"]):
        _, config = said(capsys, *args)
        assert list(config) == ["messages", "topology", "reflexes", "capacity", "inbox"]
        assert config["messages"] == WORDS
        make_topology(config["topology"])
        for reflex in config["reflexes"]:
            make_reflex(reflex)


# ---- the picture ----


@pytest.mark.parametrize("args", [[], ["--topology", "star", "--publish", "1", "--agents", "7"], ["--rate", "0"]])
def test_the_picture_is_a_png_with_curves(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    said(capsys, *args, "--plot", "channel.png")
    with Image.open("channel.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1440, 576)
        blue = np.abs(np.asarray(picture.convert("RGB")).astype(int) - [0, 0x72, 0xB2]).sum(-1) < 30
    halves = blue[:, :720].sum(), blue[:, 720:].sum()
    assert min(halves) > 200


# ---- refusals ----


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--min-on", "9", "--max-on", "7"], r"messages.min_on is 9, above messages.max_on = 7"),
        (["--bits", "65"], r"messages.bits is 65, and must be between 1 and 64"),
        (["--rule", "bernoulli", "--p", "1.5"], r"--p is 1.5, and must be between 0 and 1"),
        (["--rule", "bernoulli", "--p", "many"], r"--p many: 'many' is no number"),
        (["--target", "1"], r"--target is 1, and must be below 1: at R >= 1 words multiply without end"),
        (["--target", "-1"], r"--target is -1"),
        (["--topology", "rnig"], r"--topology 'rnig' does not exist; did you mean 'ring'"),
        (["--rule", "local"], r"--rule 'local' does not exist; did you mean 'local_rule'"),
        (["--rule", "bernoulli"], r"--rule bernoulli needs --p"),
        (["--rule", "bernoulli", "--p", "0.1,0.2"], r"--p has 2 numbers, and bernoulli takes one"),
        (
            ["--rule", "per_agent", "--p", "0.1,0.2"],
            r"--p has 2 numbers, and per_agent takes one for each of 10 agents",
        ),
        (["--p", "0.1"], r"--p is for bernoulli and per_agent; local_rule takes --target"),
        (["--rule", "bernoulli", "--p", "0.1", "--target", "0.5"], r"--target is for local_rule"),
        (["--k", "2"], r"--k 2 is for ring and k_nearest; full has no k"),
        (["--seed", "5"], r"--seed 5 is of the positions of k_nearest; full has none"),
        (["--topology", "ring", "--agents", "3", "--k", "5"], r"topology.k is 5, .* at most 2"),
        (["--loss", "0"], r"--loss is 0.0, and must be between 1e-09 and 0.5"),
        (["--rate", "-3"], r"--rate is -3.0, and must be a number of at least 0"),
        (["--publish", "nan"], r"--publish is nan"),
        (["--plot", "a.jpg"], r"--plot a.jpg does not end in .png"),
        (["--plot", "no/a.png"], r"the folder no does not exist"),
        (["--agents", "0"], r"--agents"),
        (["--topologi", "ring"], r"--topology"),
    ],
)
def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], args: list[str], sentence: str) -> None:
    assert re.search(sentence, complaint(capsys, *args))


def test_words_without_end_are_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = complaint(capsys, "--agents", "2", "--rule", "bernoulli", "--p", "0.75")
    # (0.25 / 0.75)^2 = 1/9 die out.
    assert sentence.startswith("R is 1.5 with these p, and must be below 1: at R >= 1 words multiply without end")
    assert "dies out with probability 0.1111" in sentence
    assert sentence.endswith("R is 1 at a common p of 0.5")
