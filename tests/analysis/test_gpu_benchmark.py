"""The program for a GPU runs without one, at a small size, and says so; with one its configurations are sound."""

from __future__ import annotations

import pytest
import torch
from popcomm.analysis.benchmarks import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the GPU instead")
@pytest.mark.usefixtures("ray_cluster")
def test_without_a_gpu_it_runs_small_and_says_that_it_measured_none(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--quick"])
    said = capsys.readouterr().out
    assert "no GPU is at hand: small sizes on the CPU" in said
    rows = [[cell.strip() for cell in line.split("|")] for line in said.splitlines() if "| gpu" in line]
    assert [row[2] for row in rows] == ["swarm, small, on the CPU", "swarm_large, small, on the CPU"]
    assert all(float(row[3].split()[0].replace(",", "")) > 0 for row in rows)
    assert "tiny-1m" in said
    assert "tokens/s" in said


def test_where_there_is_a_gpu_worlds_networks_and_learners_are_put_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    cases = gpu.cases()
    assert {case.file for case in cases} == {"swarm", "swarm_large"}
    assert len(cases) == 6
    for case in cases:
        config = case.config
        config.validate()
        assert config.num_gpus_per_learner == 1
        assert config.num_env_runners * config.num_gpus_per_env_runner == (0.5 if "worlds" in case.how else 0)
        assert (config.autocast, config.tf32) == (("bf16", True) if "bf16" in case.how else (None, False))


def test_a_rate_is_all_steps_over_all_time_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Iterations of 10, 10, 10 and 30 agent-steps; the last two are counted and end at 1 s and 4 s."""
    steps, clock = iter([10, 20, 30, 60]), iter([0.0, 1.0, 4.0])

    class Trained:
        def train(self) -> dict[str, int]:
            return {"num_agent_steps_sampled_lifetime": next(steps)}

        def stop(self) -> None:
            pass

    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr(
        gpu.Case, "config", property(lambda case: type("Config", (), {"build_algo": lambda self: Trained()})())
    )
    found = gpu.measured(gpu.Case("swarm", "so", ()), seconds=2.0)
    assert found.value == 40 / 4
    assert found.samples == (10.0, 10.0)
