"""Settings of populations that others leave without effect are refused in a sentence; configs of before go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gymnasium import spaces

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.plan import plan_of
from popcomm.rllib.without_effect import tell_what_is_idle
from tests.envs.scripted_env import SpaceEnv
from tests.rllib.test_learner import learner_of
from tests.rllib.test_plan import PushedWorld

SYMBOLS = {"kind": "symbols", "vocab_size": 8, "length": 2}
FADE = {"kind": "linear", "begin": 0, "end": 9}
GRAPH = [[0.9 * (i != j) for j in range(4)] for i in range(4)]
TOP = {"kind": "top_k", "k": 2}
Change = Callable[[PopulationPPOConfig], PopulationPPOConfig]


def swarm() -> PopulationPPOConfig:
    config = PopulationPPOConfig().environment("swarm_v0", env_config={"num_agents": 4})
    return config.communication(messages=SYMBOLS).population(members=4).env_runners(num_worlds_per_env_runner=4)


def game() -> PopulationPPOConfig:
    config = PopulationPPOConfig().environment("referential_v0").communication(messages=SYMBOLS)
    config.population(members={"listener": 4, "default": 1}).training(learn_from="answers")
    return config.env_runners(num_worlds_per_env_runner=4)


def factory() -> PopulationPPOConfig:
    config = PopulationPPOConfig().environment("factory_v0").communication(messages=SYMBOLS)
    return config.env_runners(num_worlds_per_env_runner=4)


def linked(**topology: Any) -> PopulationPPOConfig:
    return swarm().communication(topology=topology)


def selected(config: PopulationPPOConfig | None = None, **survival: Any) -> PopulationPPOConfig:
    return (config or swarm()).survival(**{"strategy": TOP, **survival})


IDLE: list[tuple[Callable[[], PopulationPPOConfig], str]] = [
    (lambda: swarm().environment(process_timeout=3.0), "process_timeout is 3.0, .* without environment.processes"),
    (
        lambda: swarm().training(grad_clip=None, grad_clip_by="value"),
        "grad_clip_by is 'value', and has no effect: training.grad_clip is null",
    ),
    (
        lambda: swarm().training(vf_loss_coeff=0.0, vf_clip_param=3.0),
        "vf_clip_param is 3.0, and has no effect: training.vf_loss_coeff is 0",
    ),
    (lambda: game().training(rare_action_share=0.5), "rare_action_share is 0.5, .* learned from answers"),
    (lambda: game().training(entropy_over_worlds=0.5), "entropy_over_worlds is 0.5, .* learned from answers"),
    (
        lambda: (
            swarm()
            .communication(messages={"kind": "vectors", "size": 4, "std": 0.2})
            .training(message_entropy_coeff=0.1)
        ),
        "message_entropy_coeff is 0.1, .* the entropy of vectors is the same",
    ),
    (
        lambda: (
            swarm().communication(messages={"kind": "dru", "size": 4, "noise": 0}).training(message_entropy_coeff=0.1)
        ),
        "message_entropy_coeff is 0.1, .* the entropy of dru is the same",
    ),
    *[
        (
            lambda key=key: game().training(**{key: {"listener": 0.3, "default": 0.1}}),  # type: ignore[misc]
            f"training.{key} of species 'listener' is 0.3, and has no effect: nobody of it speaks",
        )
        for key in ("message_entropy_coeff", "message_kl_coeff", "message_balance_coeff", "message_sharpness")
    ],
    (
        lambda: swarm().communication(messages={**SYMBOLS, "temperature": 2.0}, gradient="reinforce"),
        "messages.temperature is 2.0, and has no effect with communication.gradient 'reinforce'",
    ),
    (lambda: linked(kind="learned", strengths=GRAPH, price=0.3), "topology.price is 0.3, .* beside strengths"),
    (lambda: linked(kind="learned", strengths=GRAPH, prune_at=9), "topology.prune_at is 9, .* beside strengths"),
    (
        lambda: linked(kind="learned", between="seats", budget=12),
        "topology.budget is 12, and the links between seats are 12 in all, so that the price has no effect",
    ),
    (lambda: linked(kind="learned", budget=1), "topology.budget is 1, and the links between species are 1 in all"),
    (
        lambda: linked(kind="learned", between="seats", of={"kind": "chain"}, budget=3),
        "topology.budget is 3, and the links between seats are 3 in all",
    ),
    (
        lambda: factory().communication(topology={"kind": "learned", "budget": 8}),
        "topology.budget is 8, and the links between species are 8 in all",
    ),
    (
        lambda: factory().communication(topology={"kind": "learned", "budget": 42}),
        "topology.budget is 42, and the links between species are 8 in all",
    ),
    (
        lambda: factory().communication(topology={"kind": "learned", "between": "seats", "budget": 42}),
        "topology.budget is 42, and the links between seats are 42 in all",
    ),
    (lambda: linked(kind="curriculum", schedule=FADE, seed=3), "topology.seed is 3, .* use keep 'drawn'"),
    (lambda: linked(kind="curriculum", schedule=FADE, least=3), "least is 3, and an agent has 3 links at first"),
    (
        lambda: swarm().recording(conversation_every=3, conversation_worlds=0),
        "conversation_every is 3, and has no effect: recording.conversation_worlds is 0",
    ),
    (
        lambda: swarm().recording(picture_every=3, conversation_worlds=0),
        "picture_every is 3, and has no effect: recording.conversation_worlds is 0",
    ),
    (
        lambda: linked(kind="curriculum", schedule=None, least=2),
        "topology.schedule is a constant 1, and has no effect: no link ever goes",
    ),
    (
        lambda: selected(
            swarm().population(members=8, seating="communities", communities=2),
            strategy={"kind": "top_k", "k": 1},
            crossover=0.5,
            within="communities",
        ),
        "crossover is 0.5, .* there is one parent in a generation of each community, and no second one",
    ),
    (lambda: selected(strategy={"kind": "top_k", "k": 4}), "strategy is .*'k': 4.*all of 4 members live on"),
    (lambda: selected(strategy={"kind": "truncation", "elites": 4}), "'elites': 4.*all of 4 members live on"),
    (lambda: selected(strategy={"kind": "top_k", "k": 1}, crossover=0.5), "crossover is 0.5, .* there is one parent"),
    (
        lambda: selected(mutation_std=0.0, mutation_schedule=0.5),
        "mutation_schedule is 0.5, and has no effect: survival.mutation_std, which it multiplies, is 0",
    ),
    (
        lambda: selected(swarm().communication(messages=None), strategy={"kind": "novelty"}),
        "'novelty'.*goes by messages, .* none that could be counted",
    ),
    (
        lambda: selected(swarm().communication(messages={"kind": "vectors", "size": 4}), strategy={"kind": "novelty"}),
        "'novelty'.*goes by messages, .* none that could be counted",
    ),
    (
        lambda: selected(swarm().training(lr=0.0), hyperparameters={"lr": [0.5, 2]}),
        "hyperparameters.lr has no effect: .* training.lr, which is 0",
    ),
    (
        lambda: selected(game(), hyperparameters={"entropy_coeff": [0.5, 2]}),
        "hyperparameters.entropy_coeff has no effect: .* learned from answers",
    ),
    (
        lambda: selected(hyperparameters={"lr": [2, 2]}, perturbation=1.5),
        "perturbation is 1.5, .* leave room for one value",
    ),
]


@pytest.mark.parametrize(("made", "sentence"), IDLE)
def test_what_others_leave_without_effect_is_refused(made: Callable[[], PopulationPPOConfig], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made().validate()


@pytest.mark.parametrize("made", [made for made, _ in IDLE])
def test_a_config_of_before_goes_on(made: Callable[[], PopulationPPOConfig]) -> None:
    """It was made when nobody complained, and says nothing of whether to."""
    config = made()
    del config.refuses_idle
    config.validate()


@pytest.mark.parametrize(
    "config",
    [
        # What acts on one of the species that it is said of, has an effect.
        game().training(vf_clip_param=3.0, vf_loss_coeff={"speaker": 0.0, "default": 0.5}),
        game().training(message_entropy_coeff=0.1, message_sharpness=0.2, message_balance_coeff=0.2),
        game().training(message_entropy_coeff={"listener": 0.0, "default": 0.1}, rare_action_share=0.0),
        swarm().communication(messages={**SYMBOLS, "temperature": 2.0}, gradient="straight_through"),
        linked(kind="learned", strengths=GRAPH),
        linked(kind="learned", between="seats", budget=11),
        linked(kind="learned", between="seats", of={"kind": "chain"}, budget=2),
        linked(kind="learned", budget=0),
        factory().communication(topology={"kind": "learned", "budget": 7}),
        factory().communication(topology={"kind": "learned", "between": "seats", "budget": 41}),
        linked(kind="curriculum", schedule=FADE, keep="drawn", seed=3, least=2),
        swarm().recording(conversation_worlds=0),
        swarm().recording(conversation_every=0, picture_every=0, conversation_worlds=2),  # a way to turn it off
        swarm().recording(conversation_every=0, picture_every=0, importance_every=3, conversation_worlds=2),
        selected(crossover=0.5, mutation_schedule=FADE, hyperparameters={"lr": [0.5, 2]}, perturbation=1.5),
        selected(
            swarm().population(members=8, seating="communities", communities=2),
            strategy={"kind": "top_k", "k": 2},
            crossover=0.5,
            within="communities",
        ),
        selected(swarm().communication(messages=None), strategy={"kind": "novelty", "distance": "actions"}),
    ],
)
def test_what_has_an_effect_is_not(config: PopulationPPOConfig) -> None:
    config.validate()


@pytest.mark.parametrize(
    ("recording", "told"),
    [
        ({}, ""),
        ({"conversation_every": 0}, ""),
        ({"conversation_every": 3, "run_dir": "somewhere"}, ""),
        ({"conversation_every": 3, "picture_every": 4}, "conversation_every, picture_every: nothing is written"),
    ],
)
def test_what_is_written_nowhere_is_told(
    recording: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    told_idle(swarm().recording(**recording))
    assert told in caplog.text
    assert bool(told) == bool(caplog.records)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            lambda: game().training(entropy_coeff=0.01),
            "training.entropy_coeff is 0.01, and has no effect: actions that",
        ),
        (
            lambda: game().training(entropy_coeff={"listener": 0.3, "default": 0.05}),
            "training.entropy_coeff of species 'listener' is 0.3, and has no effect: actions that",
        ),
        (lambda: game().training(entropy_coeff=0.0), ""),
        (lambda: game(), ""),
        (lambda: swarm().training(entropy_coeff=0.01), ""),
    ],
)
def test_a_bonus_that_no_action_gets_is_told(
    config: Callable[[], PopulationPPOConfig], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    told_idle(config())
    assert told in caplog.text
    assert bool(told) == bool(caplog.records)


def test_whom_a_joint_critic_does_not_advise_is_told(caplog: pytest.LogCaptureFixture) -> None:
    told_idle(swarm().training(joint_critic=True))
    assert not caplog.records
    pushed = PopulationPPOConfig().environment(PushedWorld).population(agent="mlp")
    told_idle(pushed.training(joint_critic=True))
    assert caplog.messages == ["training.joint_critic advises nobody of speaker, whose actions are not Discrete"]


@pytest.mark.parametrize("rows", [3, 4])
def test_candidates_that_are_not_weighed_are_told(rows: int, caplog: pytest.LogCaptureFixture) -> None:
    space = spaces.Dict(candidates=spaces.Box(0, 1, (rows, 2)))

    def shop(config: dict[str, object]) -> SpaceEnv:
        return SpaceEnv({"a_0": (space, space.sample(), spaces.Discrete(3))})

    told_idle(PopulationPPOConfig().environment(shop).communication(messages=None).population(agent="mlp"))
    if rows == 3:
        assert not caplog.records
    else:
        (message,) = caplog.messages
        assert message.startswith(
            "species 'a' observes candidates Box(0.0, 1.0, (4, 2), float32) that are numbers like"
        )


def told_idle(config: PopulationPPOConfig) -> None:
    tell_what_is_idle(config, plan_of(config))


def test_tf32_without_a_gpu_is_told(caplog: pytest.LogCaptureFixture) -> None:
    learner_of(swarm().acceleration(tf32=True))
    assert "acceleration.tf32 is true, and has no effect on the cpu" in caplog.text
