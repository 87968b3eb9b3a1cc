"""`popcomm evaluate`: what a population earns, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from popcomm.rollout.evaluation import Estimate, Evaluation, known

# Of more agents or members than twice as many, the best and the worst are shown; the JSON has all.
SHOWN = 10


def print_evaluation(found: Evaluation, console: Console) -> None:
    """Means and 95 % intervals: of the world, of species, agents and members, and the world's own scores."""
    whole = {"return of a world": found.per_world, **{f"of a {s}": one for s, one in found.per_species.items()}}
    console.print(f"{found.episodes} episodes of {found.length_mean:,.1f} steps; means and 95 % intervals")
    _print(console, "", whole)
    _print(console, "the world's own scores", found.scores)
    _print(console, "agents", found.per_agent)
    for species, every in found.per_member.items():
        if len(every) > 1:
            members = {f"{species} {member}": one for member, one in enumerate(every)}
            _print(console, f"members of {species}", members)


def write_json(found: Evaluation, told: Mapping[str, Any], file: Path) -> None:
    """Write all means and intervals, with what was asked; what is not known is null."""
    text = json.dumps(known({**told, **found.to_json()}), indent=2, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


def _print(console: Console, title: str, estimates: Mapping[str, Estimate]) -> None:
    if not estimates:
        return
    names = list(estimates)
    if len(names) > 2 * SHOWN:
        ranked = sorted(names, key=lambda name: -estimates[name].mean)
        names, title = ranked[:SHOWN] + ranked[-SHOWN:], f"{title}: the best and the worst {SHOWN} of {len(names)}"
    shown = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    shown.add_column(style="cyan", no_wrap=True)
    shown.add_column(justify="right")
    shown.add_column()
    for name in names:
        one = estimates[name]
        interval = f"[{one.low:,.3f}, {one.high:,.3f}]" if one.low == one.low else "(no interval: one value)"
        shown.add_row(name, f"{one.mean:,.3f}", interval)
    console.print(shown, markup=False)
