"""The section on a learned graph."""

from __future__ import annotations

from popcomm.analysis.graphs import learned_graph
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import progress
from tests.analysis.synthetic_run import make_run


def test_a_run_that_learned_its_graph_shows_links_over_time(tmp_path) -> None:
    make_run(tmp_path / "run", iterations=2, conversations=False)
    for iteration, shut in ((3, 0.6), (4, 0.0)):
        line = {"iteration": iteration, "env_steps": 10_000 * iteration, "graph/open": 0.5}
        line |= {"graph/a/b": 0.9, "graph/b/a": shut, "graph/a/c": 0.7}
        progress.append(tmp_path / "run" / "progress.jsonl", line)
    section = learned_graph(RunFolder.read(tmp_path / "run"))
    assert section.picture is not None
    assert section.findings == ["Graph: 2 of 3 links are open at the end.", "Shut: b to a."]


def test_a_run_whose_graph_is_given_says_so(tmp_path) -> None:
    section = learned_graph(RunFolder.read(make_run(tmp_path / "run", iterations=1, conversations=False)))
    assert "not learned" in section.missing
