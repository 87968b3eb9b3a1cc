"""Worlds that say who may speak: the others' messages are heard by nobody, cost nothing and teach nothing."""

from __future__ import annotations

import numpy as np
import torch

from popcomm.envs import CommunicationEnv
from popcomm.rllib import PopulationPPOConfig
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_rollout import fragments, runner_of


def swapping_config(gradient: str = "reinforce") -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"roles": "swapping", "num_agents": 3, "rounds": 4, "values": 3})
        .communication(messages={"kind": "symbols", "vocab_size": 5, "length": 2}, gradient=gradient, credit="next")
        .population(agent="gru", agent_config={"hidden": 8})
        .training(gamma=0.0, learn_from="answers", num_epochs=1)
        .env_runners(num_worlds_per_env_runner=6, rollout_fragment_length=6)
        .debugging(seed=2)
    )


def test_only_the_one_who_sees_the_meaning_is_heard() -> None:
    a = fragments(runner_of(swapping_config()), 1)[0]["agent"]
    spoke = a["obs"][:, :6, :, 0] == 1  # the first flag: who speaks in the round that opens
    assert np.array_equal(a["voiced"], spoke)
    assert (spoke[:, :4].sum(-1) == 1).all()
    for t in range(1, 5):
        heard = np.take_along_axis(spoke[:, t - 1, None, :], a["senders"][:, t], axis=2)
        # Each of the two others hears the speaker, and nobody else is heard.
        assert np.array_equal(a["inbox_mask"][:, t], heard)


def test_what_the_others_might_have_said_is_no_decision() -> None:
    """Without voices there is no message to learn: neither surrogate nor entropy moves the words."""
    config = swapping_config().training(message_entropy_coeff=0.5)
    runner, learner = runner_of(config), learner_of(config)
    batch = runner.sample()
    arrays = batch.policy_batches["agent"]
    arrays["voiced"] = np.zeros_like(arrays["voiced"])
    before = {n: p.detach().clone() for n, p in learner.networks["agent"].agent.speech.named_parameters()}
    learner.update_from_fragments([batch], [runner.num_worlds], 0, {})
    after = dict(learner.networks["agent"].agent.speech.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    # With them the same update moves them.
    update(learner, runner, 1)
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_the_parallel_env_delivers_the_speakers_words_alone() -> None:
    env = CommunicationEnv(num_agents=3, vocab_size=5, length=2)
    observations, _ = env.reset(seed=4)
    speaker = next(a for a, o in observations.items() if o["observation"][0] == 1)
    actions = {a: {"action": np.zeros(2, np.int64), "message": np.full(2, 3)} for a in env.agents}
    observations, *_ = env.step(actions)
    for agent, observation in observations.items():
        heard = observation["senders"][observation["mask"] == 1].tolist()
        assert heard == ([] if agent == speaker else [env.possible_agents.index(speaker)])
