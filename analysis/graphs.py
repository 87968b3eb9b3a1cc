"""The section on a learned graph: how strong its links were over the training."""

from __future__ import annotations

from popcomm.analysis.page import Section
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import drawn, missing

from popcomm.language import graph_picture

PREFIX = "graph/"
MOST = 8  # shut links that have their names on the page


def learned_graph(run: RunFolder) -> Section:
    """Strengths of links over the training, and as they are at the end."""
    found = {key: run.measured(key) for key in run.progress if key.startswith(PREFIX) and key.count("/") == 2}
    found = {key.removeprefix(PREFIX): series for key, series in found.items() if len(series)}
    if not found:
        kind = run.setting("communication", "topology", "kind")
        if kind == "learned":
            return missing("learned_graph", "Links are told apart between species, or between eight seats at most.")
        return missing("learned_graph", "Who hears whom is not learned in this run.")
    last = {name: float(series.iloc[-1]) for name, series in found.items()}
    shut = sorted(name for name, value in last.items() if value == 0)
    arrows = ", ".join(name.replace("/", " to ") for name in shut[:MOST]) + ("" if len(shut) <= MOST else ", ...")
    headline = f"Graph: {len(last) - len(shut)} of {len(last)} links are open at the end."
    findings = [headline, f"Shut: {arrows}." if shut else "None is shut."]
    steps = run.progress["env_steps"].to_numpy(float)
    curves = {name: (steps[series.index.to_numpy()], series.to_numpy(float)) for name, series in found.items()}
    return drawn("learned_graph", findings, headline, graph_picture.graph_over_time(curves))
