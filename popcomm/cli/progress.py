"""What is shown while a population trains: a live panel on a terminal, one plain line at a time elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

PLAIN_EVERY = 2.0  # seconds between plain lines


@dataclass(frozen=True)
class Status:
    """Where training stands after an iteration. Numbers that were not measured are NaN."""

    training_iteration: int = 0
    num_env_steps_sampled_lifetime: int = 0
    num_agent_steps_sampled_lifetime: int = 0
    time_total_s: float = 0.0
    episode_return_mean: float = math.nan  # of all agents of a world together
    message_entropy: float = math.nan  # nats, a whole message, mean over the species
    collapse: Mapping[str, str] = field(default_factory=dict)  # signs that the language is dead, each in words

    @classmethod
    def of(cls, result: Mapping[str, Any], iteration: int, seconds: float) -> Status:
        """From RLlib's nested result of `train()`."""
        runners: Mapping[str, Any] = result.get("env_runners") or {}
        modules = [m for m in (result.get("learners") or {}).values() if isinstance(m, Mapping)]
        entropies = [float(m["message_entropy"]) for m in modules if "message_entropy" in m]
        return cls(
            iteration,
            int(runners.get("num_env_steps_sampled_lifetime", 0)),
            int(_total(runners.get("num_agent_steps_sampled_lifetime", 0))),
            seconds,
            float(runners.get("episode_return_mean", math.nan)),
            sum(entropies) / len(entropies) if entropies else math.nan,
            dict(result.get("collapse") or {}),
        )

    def reached(self, bounds: Mapping[str, float]) -> bool:
        """Whether any bound of `stop` is reached."""
        return any(getattr(self, key) >= bound for key, bound in bounds.items())


def _total(steps: Any) -> float:
    return sum(map(_total, steps.values())) if isinstance(steps, Mapping) else float(steps)


@dataclass
class Pace:
    """Rates and the time to go, over what this process has done itself (a resumed run starts in mid-count)."""

    start: Status
    bounds: Mapping[str, float]

    def share(self, now: Status) -> float:
        """How much of the way to the nearest countable bound is done, 0 to 1."""
        return min(1.0, max((getattr(now, key) / bound for key, bound in self._countable()), default=0.0))

    def seconds_left(self, now: Status) -> float:
        """Until the first bound at the pace so far; NaN where that cannot be said."""
        elapsed = now.time_total_s - self.start.time_total_s
        left = []
        for key, bound in self._countable():
            done = getattr(now, key) - getattr(self.start, key)
            if done > 0:
                left.append(max(0.0, (bound - getattr(now, key)) * elapsed / done))
        return min(left, default=math.nan)

    def _countable(self) -> list[tuple[str, float]]:
        return [(key, bound) for key, bound in self.bounds.items() if key != "episode_return_mean"]


class Display(Protocol):
    """Where the training loop speaks."""

    def start(self, name: str, status: Status, bounds: Mapping[str, float]) -> None: ...

    def iteration(self, status: Status) -> None: ...

    def say(self, text: str) -> None:
        """A line for the user, above the progress."""
        ...

    def stop(self) -> None: ...


def display(console: Console | None = None) -> Display:
    """The one that fits where stdout goes."""
    console = console or Console(highlight=False)
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class _Common:
    """The pace between two iterations, which both displays show."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.name, self.last, self.pace = "", Status(), Pace(Status(), {})
        self.env_rate = self.agent_rate = math.nan  # steps per second

    def start(self, name: str, status: Status, bounds: Mapping[str, float]) -> None:
        self.name, self.last, self.pace = name, status, Pace(status, bounds)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _advance(self, status: Status) -> None:
        seconds = status.time_total_s - self.last.time_total_s
        if seconds > 0:
            self.env_rate = _gain(status, self.last, "num_env_steps_sampled_lifetime") / seconds
            self.agent_rate = _gain(status, self.last, "num_agent_steps_sampled_lifetime") / seconds
        self.last = status

    def _facts(self) -> list[tuple[str, str]]:
        now = self.last
        entropy = [] if math.isnan(now.message_entropy) else [("message entropy", f"{now.message_entropy:.2f} nats")]
        return [
            ("iteration", f"{now.training_iteration:,}"),
            ("env steps", f"{now.num_env_steps_sampled_lifetime:,} ({_number(self.env_rate)}/s)"),
            ("agent steps", f"{now.num_agent_steps_sampled_lifetime:,} ({_number(self.agent_rate)}/s)"),
            ("return per world", _number(now.episode_return_mean, ".2f")),  # "-" where no episode ended
            *entropy,
            ("ETA", _clock(self.pace.seconds_left(now))),
        ]


class PlainDisplay(_Common):
    """A line per iteration, at most one every PLAIN_EVERY seconds; the last iteration always has its line.

    A sign of collapse has one when it appears, and their end another.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._printed = -math.inf
        self._pending = False

    def iteration(self, status: Status) -> None:
        begun = {sign: words for sign, words in status.collapse.items() if sign not in self.last.collapse}
        if begun:
            self.say(f"iteration {status.training_iteration:,}: {_warning(begun)}")
        elif self.last.collapse and not status.collapse:
            self.say(f"iteration {status.training_iteration:,}: no sign of a collapse any more")
        self._advance(status)
        self._pending = True
        if time.monotonic() - self._printed >= PLAIN_EVERY:
            self._print()

    def stop(self) -> None:
        if self._pending:
            self._print()

    def _print(self) -> None:
        self.say(" | ".join(f"{label} {value}" for label, value in self._facts()))
        self._printed, self._pending = time.monotonic(), False


class LiveDisplay(_Common):
    """A bar towards `stop` with the numbers below it, redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        name = TextColumn("{task.description}", style="bold", markup=False)
        self._bar = Progress(name, BarColumn(bar_width=None), TaskProgressColumn(), console=console, expand=True)
        self._task = self._bar.add_task("", total=1.0)
        self._live = Live(console=console, refresh_per_second=4)

    def start(self, name: str, status: Status, bounds: Mapping[str, float]) -> None:
        super().start(name, status, bounds)
        self._bar.update(self._task, description=name)
        self._live.start()
        self._live.update(self._panel())

    def iteration(self, status: Status) -> None:
        self._advance(status)
        self._live.update(self._panel())

    def stop(self) -> None:
        self._live.stop()

    def _panel(self) -> Group:
        self._bar.update(self._task, completed=self.pace.share(self.last))
        facts = Text()
        for label, value in self._facts():
            facts.append(f"{label} ", "dim").append(f"{value}   ", "bold")
        warning = [Text(_warning(self.last.collapse), "yellow")] if self.last.collapse else []
        return Group(self._bar, facts, *warning)


def _gain(now: Status, before: Status, key: str) -> float:
    return float(getattr(now, key) - getattr(before, key))


def _warning(signs: Mapping[str, str]) -> str:
    """One line, whatever the number of signs."""
    return f"collapse: {'; '.join(signs.values())}"


def _number(value: float, form: str = ",.0f") -> str:
    return "-" if math.isnan(value) else format(value, form)


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
