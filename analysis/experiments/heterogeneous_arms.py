"""The arms of the experiment on heterogeneous agents, and the configuration of each."""

from __future__ import annotations

from typing import Any

from popcomm.analysis.experiments.heterogeneous_games import CallWorld, PaddedWorld

from popcomm.cli import documents, schema
from popcomm.rllib import PopulationPPOConfig

FACTORY, PLATOON, CALL = "factory", "platoon", "call"
CALLERS, KINDS = (2, 8, 32), 4
# What differs from the shipped configs, in all arms; docs/heterogeneous.md says why.
GAMES: dict[str, dict[str, Any]] = {
    FACTORY: {"environment.env_config.reward_share": 1.0, "training.entropy_coeff": 0.01},
    PLATOON: {
        "environment.env_config.trucks": 2,
        "environment.env_config.cars": 3,
        "environment.env_config.road": 480.0,
        "environment.env_config.max_steps": 30,
        "environment.env_config.mission_rate": 0.3,
        "communication.topology": "{kind: custom, adjacency: [" + "[0, 0, 0, 0, 0, 0], " * 5 + "[1, 1, 1, 1, 1, 0]]}",
        "population.critic": "central",
        "training.lr": 5e-3,
        "training.entropy_coeff": 0.003,
    },
}
# Who cannot drive has nobody to make way for: all arms of platoon first learn that in silence, for their own reward.
DRIVING = {"environment.env_config.reward_share": 0.2, "training.lr": 1e-2}
SAME = {
    "training.gamma": 0.9,
    "training.minibatch_size": 128,
    "env_runners.num_worlds_per_env_runner": 256,
}
# Symbols as sharp as at first to the end, whatever the default.
SHARPNESS = 0.1
NEAREST = "{kind: k_nearest, k: 4}"
# The urgency of emergency vehicles is read from place, speed and criticality; that of all others is a constant.
URGENCY = {f"population.agent_config.{kind}.urgency": 0.5 for kind in ("truck", "car")} | {
    "population.agent_config.emergency.urgency": "[0, 1, 2, 3]"
}
# {arm: (what it is, {key: value})}; what stands before a colon in an arm's name is the one game that has it.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "silent": ("silent", {"communication.messages": "null"}),
    "noise": ("hear random symbols (the same networks and losses)", {"communication.noise": 1.0}),
    "talk": ("a network for each type, which talk", {}),
    "padded": ("one network for all types, which talk", {"population.agent_config": "{one: {hidden: 64}}"}),
    "codec": (
        "`heterogeneous` agents: one codec of messages for all types",
        {"population.agent": "heterogeneous", "population.agent_config": "{default: {features: [64, 64]}}"},
    ),
    "rounds": ("heard in the step itself (`rounds: 1`)", {"communication.rounds": 1}),
    "receiver gate": ("`gate: receiver`", {"communication.gate": "receiver"}),
    "factory: sender gate": ("`gate: sender`, 0.02 a message", {"communication.gate": "{kind: sender, price: 0.02}"}),
    "platoon: sender gate": ("`gate: sender`, 0.3 a message", {"communication.gate": "{kind: sender, price: 0.3}"}),
    "factory: budget": ("the most urgent message alone (`budget: 1`)", {"communication.budget": 1}),
    "factory: full": ("all hear all", {"communication.topology": "{kind: full}"}),
    "factory: learned": (
        "all hear all at first, and a graph of nine links is learned",
        {"communication.topology": "{kind: learned, between: seats, price: 0.01, budget: 9, prune_at: PRUNE}"},
    ),
    "platoon: full": ("all hear the four nearest", {"communication.topology": NEAREST}),
    "platoon: budget": (
        "the most urgent message of the four nearest (`budget: 1`)",
        {"communication.topology": NEAREST, "communication.budget": 1, **URGENCY},
    ),
    "platoon: learned": (
        "of the four nearest, a graph of two links between types is learned",
        {
            "communication.topology": f"{{kind: learned, of: {NEAREST}, between: species, price: 0.01, budget: 2, "
            "prune_at: PRUNE}"
        },
    ),
}
# Beside what a mechanism is held, where not beside `talk`.
BESIDE = {(FACTORY, "learned"): "full", (PLATOON, "learned"): "full", (PLATOON, "budget"): "full"}
CONTROLS = ("silent", "noise", "padded")
WAYS: dict[str, dict[str, Any]] = {
    "no gate": {},
    "receiver gate": {"gate": "receiver"},
    "sender gate": {"gate": "sender"},
    "budget": {"budget": 1},
}


def arms_in(game: str) -> list[str]:
    """The arms that a game has, without its name."""
    return [arm.split(": ")[-1] for arm in ARMS if ": " not in arm or arm.startswith(f"{game}: ")]


def told_of(game: str, arm: str) -> tuple[str, dict[str, Any]]:
    """What an arm is, and its settings."""
    return ARMS[arm] if arm in ARMS else ARMS[f"{game}: {arm}"]


def settings(game: str, arm: str, seed: int, env_steps: int, driving: bool = False) -> PopulationPPOConfig:
    """The configuration of a run of factory or platoon: the shipped one, but for GAMES, SAME and the arm.

    driving: of the same networks, but for the parts that talk, while they learn to drive.
    """
    own = SAME | GAMES[game] | told_of(game, arm)[1] | {"debugging.seed": seed}
    if driving:
        own = {key: value for key, value in own.items() if not key.startswith("communication.")}
        own |= ARMS["silent"][1] | DRIVING
    elif arm != "silent":
        own["training.message_sharpness"] = SHARPNESS
    overrides = [f"{key}={value}".replace("PRUNE", str(env_steps // 2)) for key, value in own.items()]
    document = documents.load(game, overrides)
    config = schema.apply(document, PopulationPPOConfig())
    if arm == "padded":
        world = document["environment"]
        config.environment(PaddedWorld, env_config={"of": world["env"], **world["env_config"]})
    return config


def calls(way: str, callers: int, seed: int) -> PopulationPPOConfig:
    """The configuration of a game of calls."""
    return (
        PopulationPPOConfig()
        .environment(CallWorld, env_config={"callers": callers, "kinds": KINDS})
        .communication(
            messages={"kind": "symbols", "vocab_size": KINDS + 1, "length": 1}, topology={"kind": "full"}, **WAYS[way]
        )
        .population(agent="mlp", agent_config={"caller": {"hidden": 32}, "clerk": {"hidden": 32}})
        .training(lr=3e-3, gamma=0.9, entropy_coeff=0.01, num_epochs=4, minibatch_size=64, message_sharpness=SHARPNESS)
        .env_runners(num_worlds_per_env_runner=128, rollout_fragment_length=12)
        .debugging(seed=seed)
    )
