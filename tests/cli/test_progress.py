"""What is shown: numbers taken from results, pace and time to go, and plain lines where there is no terminal."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from popcomm.cli import progress
from popcomm.cli.progress import Pace, PlainDisplay, Status, display


def test_a_status_sums_agents_and_averages_species() -> None:
    result = {
        "env_runners": {
            "num_env_steps_sampled_lifetime": 40.0,
            "num_agent_steps_sampled_lifetime": {"a": 100.0, "b": 60},
            "episode_return_mean": 2.5,
        },
        "learners": {
            "sensor": {"message_entropy": 1.0},
            "actuator": {"message_entropy": 3.0},
            "__all_modules__": {"num_env_steps_trained": 1},
        },
    }
    assert Status.of(result, 7, 1.5) == Status(7, 40, 160, 1.5, 2.5, 2.0)


def test_what_was_not_measured_is_nan_and_reaches_no_bound() -> None:
    status = Status.of({}, 1, 0.0)
    assert math.isnan(status.episode_return_mean)
    assert math.isnan(status.message_entropy)
    assert not status.reached({"episode_return_mean": -100.0, "num_env_steps_sampled_lifetime": 1})


def test_a_status_has_the_signs_of_collapse() -> None:
    assert Status.of({"collapse": {"deaf_listener": "listeners do not react"}}, 1, 0.0).collapse == {
        "deaf_listener": "listeners do not react"
    }
    assert Status.of({}, 1, 0.0).collapse == {}


def test_any_bound_ends_training() -> None:
    bounds = {"training_iteration": 10.0, "num_env_steps_sampled_lifetime": 100.0}
    assert not Status(9, 99).reached(bounds)
    assert Status(10, 0).reached(bounds)
    assert Status(0, 100).reached(bounds)


def test_the_time_to_go_counts_what_this_process_did() -> None:
    # Resumed at 600 steps; 100 steps in 20 s leave 300 steps, that is 60 s.
    pace = Pace(Status(6, 600, 0, 50.0), {"num_env_steps_sampled_lifetime": 1000, "episode_return_mean": 1e9})
    now = Status(7, 700, 0, 70.0)
    assert pace.seconds_left(now) == 60.0
    assert pace.share(now) == 0.7


def test_the_nearest_bound_decides() -> None:
    pace = Pace(Status(), {"training_iteration": 100, "time_total_s": 30})
    assert pace.seconds_left(Status(2, 0, 0, 10.0)) == 20.0


def test_a_bound_on_the_return_alone_has_no_time_to_go() -> None:
    assert math.isnan(Pace(Status(), {"episode_return_mean": 1.0}).seconds_left(Status(1, 1, 1, 1.0)))


def test_without_a_terminal_each_iteration_is_a_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    stream = io.StringIO()
    shown = display(Console(file=stream, highlight=False))
    assert isinstance(shown, PlainDisplay)
    shown.start("run", Status(), {"training_iteration": 4})
    shown.iteration(Status(1, 100, 1000, 2.0, 5.0, 3.25))
    shown.iteration(Status(2, 300, 3000, 4.0))
    shown.stop()
    first, second = stream.getvalue().splitlines()
    assert first == (
        "iteration 1 | env steps 100 (50/s) | agent steps 1,000 (500/s) | return per world 5.00"
        " | message entropy 3.25 nats | ETA 0:06"
    )
    # No episode ended, so there is no return, not the one before; what is not measured is not shown.
    assert second == "iteration 2 | env steps 300 (100/s) | agent steps 3,000 (1,000/s) | return per world - | ETA 0:04"


def test_each_sign_of_collapse_has_one_plain_line_when_it_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", math.inf)
    stream = io.StringIO()
    shown = PlainDisplay(Console(file=stream, width=300))
    shown._printed = 0.0
    deaf = {"deaf_listener": "listeners do not react"}
    lost = {"protocol_lost": "return fell from 9 to 3"}
    still = {"protocol_lost": "return fell from 9 to 2"}
    for iteration, signs in enumerate([{}, deaf, deaf, deaf | lost, deaf | still, still, {}, {}]):
        shown.iteration(Status(iteration, collapse=signs))
    assert stream.getvalue().splitlines() == [
        "iteration 1: collapse: listeners do not react",
        "iteration 3: collapse: return fell from 9 to 3",
        "iteration 6: no sign of a collapse any more",
    ]


def test_on_a_terminal_a_collapse_is_in_sight_while_it_lasts() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system=None)
    shown = progress.LiveDisplay(console)
    for signs, there in (({"a": "speakers always say the same", "b": "return fell"}, True), ({}, False)):
        shown.iteration(Status(1, collapse=signs))
        with console.capture() as drawn:
            console.print(shown._panel())
        assert ("collapse: speakers always say the same; return fell\n" in drawn.get()) == there


def test_fast_iterations_share_a_line_and_the_last_one_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", math.inf)
    stream = io.StringIO()
    shown = PlainDisplay(Console(file=stream))
    shown._printed = 0.0
    for iteration in range(1, 6):
        shown.iteration(Status(iteration, 0, 0, float(iteration)))
    shown.stop()
    assert [line.split(" | ")[0] for line in stream.getvalue().splitlines()] == ["iteration 5"]


def test_on_a_terminal_the_bar_and_the_numbers_are_drawn() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200, color_system=None)
    shown = display(console)
    shown.start("swarm-1", Status(), {"training_iteration": 4})
    shown.iteration(Status(1, 100, 1000, 2.0, 5.0, 3.25))
    shown.stop()
    last = stream.getvalue()
    for part in ("swarm-1", " 25%", "iteration 1", "env steps 100 (50/s)", "message entropy 3.25 nats", "ETA 0:06"):
        assert part in last
