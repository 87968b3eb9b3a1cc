"""The section on gates and priorities: what is let in, what goes out, and who is served."""

from __future__ import annotations

import numpy as np
from popcomm.analysis.page import Section
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import drawn, missing

from popcomm.language import gates_picture, importance_picture

RECEIVER = "language/receiver_gate/"
SENDERS = {"senders' gates": "language/sender_gate/", "priorities": "language/priority/"}


def gates(run: RunFolder) -> Section:
    """Of the last tenth of the iterations."""
    shown = {title: _of(run, prefix) for title, prefix in SENDERS.items()}
    shown = {title: values for title, values in shown.items() if values}
    numbers = {RECEIVER + key: value for key, value in _of(run, RECEIVER).items()}
    if not shown and not numbers:
        nothing = "Messages pass no gates in this run, and have no priorities (communication.gate and budget)."
        return missing("gates", nothing)
    found = []
    if numbers:
        found.append(f"Listeners let in {run.last('language/receiver_gate'):.2f} of what they hear.")
    if "senders' gates" in shown:
        share = run.last("language/sender_gate")
        found.append(f"Senders speak in {share:.0%} of the steps in which they may.")
    if np.isfinite(refused := run.last("channel/refused")):
        served, wait = run.last("channel/served"), run.last("channel/longest_wait")
        found.append(
            f"In a step of a world {served:.2f} messages are served and {refused:.2f} are refused; at most {wait:.0f} "
            "messages of a sender in a row were heard by nobody."
        )
    pairs = importance_picture.pairs(numbers, RECEIVER) if numbers else None
    figure = gates_picture.gates(pairs, shown) if pairs or shown else None
    assert figure is not None
    return drawn("gates", found, found[0] if found else "", figure)


def _of(run: RunFolder, prefix: str) -> dict[str, float]:
    """{name: the last value} of the numbers that have any."""
    values = {key.removeprefix(prefix): run.last(key) for key in run.progress if key.startswith(prefix)}
    return {name: value for name, value in values.items() if np.isfinite(value)}
