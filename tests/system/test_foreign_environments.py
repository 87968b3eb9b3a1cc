"""Other people's environments and agents train through the adapter, without a line of special code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mpe2 import simple_reference_v3, simple_speaker_listener_v4, simple_spread_v3
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.channels import Inbox
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from tests.envs.scripted_env import ScriptedEnv

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("ray_cluster")]

WORLDS, STEPS, ITERATIONS = 2, 6, 3

# a_1 dies in step 2, a_2 is born in step 3 and cut off in step 4, a_0 lives to the end: 5 + 2 + 1 steps of agents.
LIVES = [{}, {"a_1": "terminated"}, {"a_2": "born"}, {"a_2": "truncated"}, {}]
AGENT_STEPS_OF_LIVES = 8


class MortalEnv(ScriptedEnv):
    """Agents die, are born and are cut off within an episode, and may not do all that they could."""

    def __init__(self) -> None:
        super().__init__(LIVES, opening=("a_0", "a_1"), possible=("a_0", "a_1", "a_2"), mask="observation")


ENVIRONMENTS: dict[str, tuple[Callable[[Mapping[str, Any]], Any] | str, dict[str, Any], set[str]]] = {
    "spread": (lambda cfg: simple_spread_v3.parallel_env(**cfg), {"N": 2, "max_cycles": 5}, {"agent"}),
    "speaker_listener": (
        lambda cfg: simple_speaker_listener_v4.parallel_env(**cfg),
        {"max_cycles": 5},
        {"speaker", "listener"},
    ),
    "reference": (lambda cfg: simple_reference_v3.parallel_env(**cfg), {"max_cycles": 5}, {"agent"}),
    "deaths": (lambda cfg: MortalEnv(**cfg), {}, {"a"}),
    "foraging": ("gymnasium:Foraging-8x8-2p-1f-v3", {"max_episode_steps": 5}, {"agent"}),
    "vmas": ("vmas:simple_tag", {"max_steps": 5}, {"adversary", "agent"}),
}
NEEDS = {"foraging": "lbforaging", "vmas": "vmas"}
CHANNELS: dict[str, dict[str, Any]] = {
    "symbols": {"messages": {"kind": "symbols", "vocab_size": 4, "length": 2}, "gradient": "straight_through"},
    "vectors": {"messages": {"kind": "vectors", "size": 3}, "gradient": "through"},
    "silent": {"messages": None},
}


def config_of(env: Any, env_config: dict[str, Any], **communication: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(env, env_config=env_config)
        .communication(**communication)
        .env_runners(num_env_runners=0, num_worlds_per_env_runner=WORLDS, rollout_fragment_length=STEPS)
        .learners(num_learners=0)
        .training(num_epochs=1)
        .debugging(seed=1)
    )


@contextmanager
def built(config: PopulationPPOConfig) -> Iterator[PopulationPPO]:
    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


def trained(config: PopulationPPOConfig) -> tuple[dict[str, Any], dict[str, set[str]]]:
    """The last result, and {species: names of parameters that training changed}; every number in both is finite."""
    with built(config) as algorithm:
        before = algorithm.learner_group.get_weights()
        for _ in range(ITERATIONS):
            result = algorithm.train()
            for species, values in algorithm.learner_statistics(result).items():
                # RLlib's counts of parameters are logged once, and are nan afterwards.
                measured = {name: value for name, value in values.items() if not name.startswith("num_")}
                assert measured.keys() >= {"policy_loss", "vf_loss", "entropy"}
                assert all(np.isfinite(value) for value in measured.values()), (species, measured)
        after = algorithm.learner_group.get_weights()
    assert np.isfinite(result["env_runners"]["episode_return_mean"])
    for weights in after.values():
        assert all(np.isfinite(value).all() for value in weights.values())
    return result, {
        species: {name for name, value in weights.items() if not np.array_equal(value, before[species][name])}
        for species, weights in after.items()
    }


@pytest.mark.parametrize("agent", ["mlp", "symbolic"])
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_foreign_environment_trains(name: str, channel: str, agent: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"popcomm[{NEEDS[name]}] is not installed")
    env, env_config, species = ENVIRONMENTS[name]
    result, changed = trained(config_of(env, env_config, **CHANNELS[channel]).population(agent=agent))
    assert set(changed) == species
    for names in changed.values():
        assert any(part.startswith(("agent.policy_head", "agent.policy.")) for part in names)
        # Nothing but its receivers' losses can change how a species speaks.
        spoke = any(part.startswith("agent.message_head") for part in names)
        assert spoke == (channel != "silent")
    # Five steps and the row that starts the next episode, in each iteration.
    assert result["num_env_steps_sampled_lifetime"] == ITERATIONS * WORLDS * 5


def test_steps_of_the_dead_and_the_unborn_are_not_counted() -> None:
    result, _ = trained(config_of(ENVIRONMENTS["deaths"][0], {}, **CHANNELS["symbols"]).population(agent="mlp"))
    assert result["num_agent_steps_sampled_lifetime"] == ITERATIONS * WORLDS * AGENT_STEPS_OF_LIVES


def test_members_of_each_species_are_counted_apart() -> None:
    config = config_of(ENVIRONMENTS["speaker_listener"][0], {"max_cycles": 5}, **CHANNELS["symbols"])
    config.population(agent="mlp", members={"speaker": 2, "listener": 1})
    with built(config) as algorithm:
        weights = algorithm.learner_group.get_weights()
        algorithm.train()
    assert weights["speaker"]["agent.policy_head.weight"].shape[0] == 2
    assert weights["listener"]["agent.policy_head.weight"].shape[0] == 1


def test_an_environment_may_be_named_by_module_and_attribute() -> None:
    env_config = {"N": 2, "max_cycles": 5}
    named = config_of("mpe2.simple_spread_v3:parallel_env", env_config, **CHANNELS["symbols"]).population(agent="mlp")
    created = config_of(ENVIRONMENTS["spread"][0], env_config, **CHANNELS["symbols"]).population(agent="mlp")
    returns = [trained(config)[0]["env_runners"]["episode_return_mean"] for config in (named, created)]
    assert returns[0] == returns[1]


def test_nearest_neighbours_without_positions_are_refused() -> None:
    env, env_config, _ = ENVIRONMENTS["spread"]
    config = config_of(env, env_config, **CHANNELS["symbols"], topology={"kind": "k_nearest", "k": 1})
    with pytest.raises(UserError, match="positions"):
        config.validate()


@pytest.mark.parametrize("path", ["mpe2.simple_sprad_v3:parallel_env", "mpe2.simple_spread_v3:parallel_enw"])
def test_a_path_that_leads_nowhere_is_refused_by_name(path: str) -> None:
    with pytest.raises(UserError, match=f"environment.env '{path}' cannot be imported"):
        config_of(path, {}).validate()


class LinearAgent(nn.Module):
    """One linear layer from what is seen and heard to action, message and value: the contract and nothing else."""

    def __init__(self, spec: AgentSpec, scale: float = 0.1) -> None:
        super().__init__()
        self.spec = spec
        heard = spec.messages.shape[0] if spec.messages is not None else 0
        self.sizes = [spec.action_params_size, heard, 1]
        self.weight = nn.Parameter(scale * torch.randn(spec.members, spec.obs_size + heard, sum(self.sizes)))

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor]) -> AgentOutput:
        inputs = [obs]
        if self.spec.messages is not None:
            heard = obs.new_zeros(*obs.shape[:2], self.sizes[1])
            if inbox is not None:
                messages = inbox.messages if inbox.soft is None else inbox.soft
                heard = (messages * inbox.mask.unsqueeze(-1)).sum(-2)
            inputs.append(heard)
        logits, message, value = (torch.cat(inputs, -1) @ self.weight).split(self.sizes, -1)
        params = None if self.spec.messages is None else message.unflatten(-1, self.spec.messages.params_shape)
        return AgentOutput(logits, params, value.squeeze(-1), {}, {})

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        return {"size": self.weight.square().mean((1, 2))}


@pytest.mark.parametrize("agent", [LinearAgent, f"{__name__}:LinearAgent"])
def test_an_agent_of_ones_own_trains(agent: Any) -> None:
    env, env_config, species = ENVIRONMENTS["speaker_listener"]
    config = config_of(env, env_config, **CHANNELS["vectors"])
    config.population(agent=agent, members=2, agent_config={"scale": 0.2})
    result, changed = trained(config)
    assert changed == {name: {"agent.weight"} | changed[name] for name in species}
    assert {
        name: values["size"] > 0 for name, values in result["learners"].items() if name in species
    } == dict.fromkeys(species, True)


def test_an_unknown_key_of_ones_own_agent_names_the_nearest() -> None:
    config = config_of(*ENVIRONMENTS["spread"][:2]).population(agent=LinearAgent, agent_config={"scal": 1.0})
    with pytest.raises(UserError, match="did you mean 'scale'"):
        config.validate()


class BrokenAgent(LinearAgent):
    def __init__(self, spec: AgentSpec) -> None:
        super().__init__(spec)
        self.head = nn.Linear(self.no_such_size, 1)


def test_an_error_in_ones_own_agent_is_told_as_it_is() -> None:
    config = config_of(*ENVIRONMENTS["spread"][:2]).population(agent=BrokenAgent)
    with pytest.raises(RuntimeError, match=r"BrokenAgent could not be made: .*no_such_size"):
        config.build_algo()


REFLEXES: list[Any] = [
    {"kind": "immediate_feedback", "schedule": {"kind": "linear", "begin": 0, "end": 100}},
    {"kind": "word_repetition", "decision": {"kind": "local_rule", "target": 0.6}, "slot": "hijack"},
    {"kind": "sensory_deprivation", "mode": "noise", "when": 0.2},
    {"kind": "publishing", "rate": 0.5, "schedule": {"kind": "gated", "measure": "reward", "begin": 1.0, "end": 2.0}},
]
MEASURES = ("load", "drops", "reproduction", "distinct_words", "lifetime")


@pytest.mark.parametrize("name", ["speaker_listener", "deaths"])
def test_a_foreign_environment_trains_in_words_with_all_reflexes(name: str, tmp_path: Path) -> None:
    words = {"messages": {"kind": "words", "bits": 8, "min_on": 1, "max_on": 5}, "reflexes": REFLEXES}
    env, env_config, species = ENVIRONMENTS[name]
    config = config_of(env, env_config, **words).population(agent="mlp")
    config.recording(run_dir=str(tmp_path), conversation_every=1, picture_every=1)
    result, changed = trained(config)
    assert set(changed) == species
    told = {key.removeprefix("channel/"): v for key, v in result["popcomm"].items() if key.startswith("channel/")}
    assert told.keys() >= set(MEASURES)
    assert told["load"] > 0
    assert told["sensory_deprivation_strength"] == told["word_repetition_strength"] == 1
    # The clock of the last fragment: 2 of 3 iterations, two worlds of five steps each.
    assert told["immediate_feedback_strength"] == pytest.approx(0.8)
    # Rewards of speaker and listener are negative; those of the mortal ones, 0 to 3, may open the gate.
    assert told["publishing_strength"] == 1 or (name == "deaths" and 0 <= told["publishing_strength"] < 1)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    strengths = {f"channel/{reflex['kind']}_strength" for reflex in REFLEXES}
    assert set(events.Tags()["scalars"]) >= strengths | {f"channel/{measure}" for measure in MEASURES}
    assert [round(event.value, 6) for event in events.Scalars("channel/immediate_feedback_strength")] == [1, 0.9, 0.8]


def test_fades_follow_the_steps_of_all_runners_and_the_same_seed_gives_the_same_weights() -> None:
    words = {"messages": {"kind": "words", "bits": 8, "min_on": 1, "max_on": 5}, "reflexes": REFLEXES}
    results = []
    for _ in range(2):
        config = config_of(*ENVIRONMENTS["reference"][:2], **words).population(agent="mlp")
        config.env_runners(num_env_runners=2)
        with built(config) as algorithm:
            strengths = [algorithm.train()["popcomm"]["channel/immediate_feedback_strength"] for _ in range(2)]
            weights = algorithm.learner_group.get_weights()["agent"]
        # Two runners of two worlds of five steps: 20 of 100 steps.
        assert strengths == pytest.approx([1.0, 0.8])
        results.append(weights)
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])
