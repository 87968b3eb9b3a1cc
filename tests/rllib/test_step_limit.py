"""A limit on the time of a step: what hangs is interrupted where it hangs, or its process ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.answers import SamplingFailure
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.step_limit import EXIT_CODE, StepLimit, StepTimeout
from tests.rllib.worlds import BanditWorld


class HangingWorld(BanditWorld):
    """Hangs in its third step."""

    steps = 0

    def step(self, *args: object, **kwargs: object) -> object:
        self.steps += 1
        while self.steps == 3:
            time.sleep(1000)  # in Python or in C, as here
        return super().step(*args, **kwargs)


def config_of(limit: float | None) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(HangingWorld)
        .communication(messages=None)
        .population(agent="mlp")
        .env_runners(num_worlds_per_env_runner=2, rollout_fragment_length=4, step_timeout_s=limit)
    )


def test_an_environment_that_hangs_is_named_with_the_line_where_it_does() -> None:
    runner = PopulationEnvRunner(config=config_of(0.5))
    failure = runner.sample_or_say_why(by_reference=False)
    assert isinstance(failure, SamplingFailure)
    assert "time.sleep(1000)" in failure.traceback
    said = "env runner 0: 2 world(s) of HangingWorld took more than 0.5 s for a step (env_runners.step_timeout_s)"
    assert said in failure.traceback


def test_a_step_within_the_limit_is_left_alone_and_so_is_what_follows() -> None:
    with StepLimit(0.2, "the world"):
        pass
    time.sleep(0.3)


def test_what_raises_in_a_step_raises() -> None:
    with pytest.raises(ZeroDivisionError), StepLimit(5.0, "the world"):
        raise ZeroDivisionError


def test_a_process_that_cannot_be_interrupted_says_where_it_hangs_and_ends(tmp_path: Path) -> None:
    """As in C code, where no signal handler of Python's runs."""
    script = tmp_path / "hanging.py"
    script.write_text(
        "import signal, time\n"
        "from popcomm.rllib import step_limit\n"
        "step_limit.PATIENCE_SECONDS = 0.1\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "def deaf():\n    time.sleep(1000)\n"
        "with step_limit.StepLimit(0.1, 'the deaf world'):\n    deaf()\n"
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert found.returncode == EXIT_CODE
    assert "the deaf world took more than 0.1 s" in found.stderr
    assert "in deaf" in found.stderr


def test_the_exception_is_a_timeout() -> None:
    with pytest.raises(StepTimeout, match=r"the world took more than 0\.1 s"), StepLimit(0.1, "the world"):
        time.sleep(10)


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), "soon", True])
def test_a_limit_is_seconds(wrong: object) -> None:
    with pytest.raises(UserError, match=r"env_runners\.step_timeout_s is .*, and must be seconds above 0"):
        config_of(wrong).validate()  # type: ignore[arg-type]
