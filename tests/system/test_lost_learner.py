"""A remote learner whose process ends, between iterations and within: one sentence, and nobody waits for it."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.checkpoints import weight_digest
from popcomm.rllib.learners import LearnerLostError

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]

EPOCHS = 3  # of two minibatches each
SAID = r"^learner 2 of 2 is lost: its process ended; it was killed, ran out of memory, or its node is gone$"


@pytest.fixture
def algorithm() -> Any:
    """Of two learners, which has learned once."""
    built = (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 8, "length": 2})
        .env_runners(num_env_runners=0, num_worlds_per_env_runner=8, rollout_fragment_length=4)
        .learners(num_learners=2)
        .training(num_epochs=EPOCHS, minibatch_size=4)
        .debugging(seed=7)
        .build_algo()
    )
    built.train()
    yield built
    built.stop()


def learner_processes(algorithm: PopulationPPO) -> list[int]:
    return [result.get() for result in algorithm.learner_group.foreach_learner(lambda learner: os.getpid())]


def test_a_learner_that_is_killed_between_iterations_is_told_and_nothing_is_saved_without_it(
    algorithm: PopulationPPO, tmp_path: Path
) -> None:
    saved = algorithm.save_to_path(tmp_path / "before")
    digest = weight_digest(algorithm)
    os.kill(learner_processes(algorithm)[1], signal.SIGKILL)
    with pytest.raises(LearnerLostError, match=SAID):
        algorithm.save_to_path(tmp_path / "after")
    assert [file.name for file in tmp_path.iterdir()] == ["before"]
    with pytest.raises(LearnerLostError, match=SAID):
        algorithm.train()
    algorithm.stop()
    restored = PopulationPPO.from_checkpoint(saved)
    try:
        assert weight_digest(restored) == digest
        assert restored.train()["training_iteration"] == 2
    finally:
        restored.stop()


def test_a_learner_that_dies_in_an_update_is_told_while_the_other_waits_for_its_gradients(
    algorithm: PopulationPPO,
) -> None:
    last = random.Random(1).randrange(2 * EPOCHS)

    def will_die(learner: Any) -> None:
        update, rank, done = learner._update_once, learner._learner_index, 0

        def update_or_die(*args: Any, **kwargs: Any) -> None:
            nonlocal done
            if rank == 1 and done == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1
            update(*args, **kwargs)

        learner._update_once = update_or_die

    algorithm.learner_group.foreach_learner(will_die)
    with pytest.raises(LearnerLostError, match=SAID):
        algorithm.train()
