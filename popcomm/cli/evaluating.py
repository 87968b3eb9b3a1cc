"""`popcomm evaluate`: what a population earns, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from popcomm.cli.released import released
from popcomm.errors import UserError
from popcomm.language.progress import plain
from popcomm.rollout.evaluation import Estimate, Evaluation
from popcomm.rollout.noise import by_strength, hindrance_of

# Of more agents or members than twice as many, the best and the worst are shown; the JSON has all.
SHOWN = 10


def print_evaluation(found: Evaluation, console: Console) -> None:
    """Means and 95 % intervals: of the world, of species, agents and members, and the world's own scores."""
    whole = {"return of a world": found.per_world, **{f"of each {s}": one for s, one in found.per_species.items()}}
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
    text = json.dumps(plain({**told, **found.to_json()}), indent=2, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")


# {kind of noise: {strength: what came of it}}
Curves = dict[str, dict[float, Evaluation]]
STRENGTHS = "0,0.1,0.2,0.5"


def strengths_of(given: str | None) -> list[float]:
    """Numbers between commas, in order. Raises UserError: something else, or one twice."""
    parts = (given or STRENGTHS).split(",")
    try:
        found = [float(part) for part in parts]
    except ValueError as error:
        raise UserError(f"--strengths {given} must be numbers between commas, such as {STRENGTHS}") from error
    if len(set(found)) < len(found):
        raise UserError(f"--strengths {given} has a number twice")
    return sorted(found)


def curves(run: Path, kinds: list[str], strengths: list[float], episodes: int, how: Mapping[str, Any]) -> Curves:
    """What a population earns in each kind of noise, at each strength.

    Args:
        how: of `Population.evaluate`.

    Raises:
        UserError: no such kind, a strength out of its range, and what `evaluate` raises.
    """
    for kind in kinds:
        for strength in strengths:
            hindrance_of({"kind": kind, "strength": strength})
    with released(run) as population:
        return {kind: by_strength(population, kind, strengths, episodes, **how) for kind in kinds}


def print_curves(found: Curves, console: Console) -> None:
    """Mean returns of a world with their 95 % intervals."""
    console.print("return of a world against the strength of noise; means and 95 % intervals")
    for kind, every in found.items():
        _print(console, "", {f"{kind} {strength:g}": one.per_world for strength, one in every.items()})


def write_curves(found: Curves, told: Mapping[str, Any], plot: Path, file: Path) -> None:
    """The picture, and the numbers: {"noise": {kind: [{"strength", means and intervals}]}}."""
    # matplotlib is slow to import, and without noise there is no picture.
    from popcomm.cli.noise_picture import draw

    noise = {kind: [{"strength": s, **one.to_json()} for s, one in every.items()] for kind, every in found.items()}
    file.write_text(json.dumps(plain({**told, "noise": noise}), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    plot.write_bytes(draw({kind: {s: one.per_world for s, one in every.items()} for kind, every in found.items()}))


def tell_curves(found: Curves, told: Mapping[str, Any], plot: Path, file: Path, console: Console) -> str:
    """Print and write them; says what was written."""
    print_curves(found, console)
    write_curves(found, told, plot, file)
    return f"{plot}, {file}: return against strength"


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
