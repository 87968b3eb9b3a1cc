"""The report of a run: its pictures and one page, from the run folder alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from popcomm.analysis import closer
from popcomm.analysis.findings import all_sections
from popcomm.analysis.page import Section, page
from popcomm.analysis.run_folder import RunFolder

# The parts of a configuration that tell one run from another; the page has all of it, folded away.
ESSENTIALS = ("environment", "communication", "population", "survival", "env_runners", "learners", "debugging")
TRAINING = ("lr", "gamma", "entropy_coeff", "message_entropy_coeff", "federated")


def write_report(run_dir: Path) -> Path:
    """Write pictures/*.png and report.html into a run folder; returns the page's path.

    The page holds its pictures and works offline. What a run does not have (symbols, attention, conversations so far)
    is said in the place of its picture.

    Raises:
        UserError: no run folder, or a file in it that cannot be read.
    """
    run = RunFolder.read(run_dir)
    data = closer.data_of(run)
    sections = all_sections(run, data)
    folder = run.path / "pictures"
    folder.mkdir(exist_ok=True)
    for section in sections:
        if section.picture is not None:
            (folder / f"{section.name}.png").write_bytes(section.picture)
    target = run.path / "report.html"
    target.write_text(run_page(run, sections, data), encoding="utf-8")
    return target


def run_page(run: RunFolder, sections: Sequence[Section], data: dict[str, Any], live: bool = False) -> str:
    """The page of a run with these sections.

    Args:
        data: what the sections that one can look into draw.
        live: whether the page asks its server for what is new.
    """
    environment = run.setting("environment", "env")
    name = run.path.resolve().name
    title = f"{environment}: {name}" if isinstance(environment, str) else name
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else ""
    tables = {"Configuration": configuration(run.config), "Where it stands": standing(run)}
    return page(title, _basis(run), tables, sections, config, data=data, live=live)


def configuration(config: dict[str, Any]) -> dict[str, str]:
    """The essentials of a configuration, one line for each argument."""
    rows: dict[str, str] = {}
    for method in ESSENTIALS:
        arguments = config.get(method)
        for key, value in arguments.items() if isinstance(arguments, dict) else ():
            if value is not None or key == "messages":
                rows[f"{method}.{key}"] = _worded(value)
    training = config.get("training") or {}
    for key in TRAINING if isinstance(training, dict) else ():
        if key in training:
            rows[f"training.{key}"] = _worded(training[key])
    return rows or {"config.yaml": "not in the folder"}


def standing(run: RunFolder) -> dict[str, str]:
    """How far the run is and its last numbers; what was not measured is left out.

    Numbers of the language stand in their sections alone, so that no measure has two on the page.
    """
    checkpoints = sorted(path.name for path in (run.path / "checkpoints").glob("checkpoint_*"))
    rows = {
        "iterations": f"{len(run.progress):,}",
        "environment steps": _number(run.now("env_steps"), ",.0f"),
        "agent steps": _number(run.now("agent_steps"), ",.0f"),
        "time": _duration(run.now("time_s")),
        "agent steps per second": _number(run.last("charts/agent_SPS"), ",.0f"),
        "return per agent": _number(run.last("charts/agent_episodic_return")),
        "return per world": _number(run.last("charts/episodic_return")),
        "explained variance": _number(run.last("losses/explained_variance")),
        "world model R²": _number(run.last("losses/world_r2")),
        "privacy spent": _privacy(run),
        "privacy of updates spent": _privacy_of_updates(run),
        "updates left out": _number(run.measured("losses/non_finite_updates").sum() or math.nan, ",.0f"),
        "latest checkpoint": checkpoints[-1] if checkpoints else "none yet",
    }
    return {name: value for name, value in rows.items() if value}


def _basis(run: RunFolder) -> str:
    """Which messages the language's numbers rest on."""
    talk = run.talk
    if not talk.size:
        return f"{run.path} (no conversations recorded yet)"
    first, last = talk.column("iteration").min(), talk.column("iteration").max()
    when = f"iteration {last}" if first == last else f"iterations {first} to {last}"
    what = "messages" if run.message_kind else "agent steps, without messages,"
    what += " of the last round of each step," if talk.has_rounds else ""
    return f"{run.path} (recorded: {talk.size:,} {what} of {when}; training: means of the last tenth of its iterations)"


def _privacy(run: RunFolder) -> str:
    """(epsilon, delta) by the member that spent most: in an episode, and composed over all that it ever sent."""
    episode, whole = _number(run.now("privacy/epsilon")), _number(run.now("privacy/epsilon_all"))
    if not episode:
        return ""
    delta = _number(run.now("privacy/delta"))
    return f"epsilon {episode} in an episode, {whole} in all messages of a member, at delta {delta}"


def _privacy_of_updates(run: RunFolder) -> str:
    """(epsilon, delta) by the members that published most often, of all their updates together."""
    rounds, epsilon = run.now("federated/rounds"), _number(run.now("federated/epsilon"))
    if not epsilon:
        return ""
    return f"epsilon {epsilon} in {rounds:,.0f} rounds of a member, at delta {_number(run.now('federated/delta'))}"


def _worded(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_worded(part)}" for key, part in value.items()) or "(defaults)"
    return "none" if value is None else str(value)


def _number(value: float, form: str = ".3g") -> str:
    return f"{value:{form}}" if math.isfinite(value) else ""


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
