"""Checks of a configuration, before any work: one sentence, the key, the value, what is allowed."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from popcomm.agents import AGENTS
from popcomm.agents.seating import SEATINGS
from popcomm.channels import MessageKind, Vectors
from popcomm.channels.kinds import can_be_balanced
from popcomm.channels.relaxed import Dru
from popcomm.checks import count, number, one_of, true_or_false, whole
from popcomm.envs.making import check_processes, resolve
from popcomm.envs.worker_process import timeout_of
from popcomm.errors import UserError, unknown
from popcomm.rllib.callbacks import check_callbacks
from popcomm.rllib.federated_checks import check_federated
from popcomm.rllib.graph import check_graph
from popcomm.rllib.language_metrics import check_metrics
from popcomm.rllib.message_learning import check_credit, check_gates, check_gradient, check_importance, check_relaxed
from popcomm.rllib.overlap import check_overlap
from popcomm.rllib.plan import Plan, SpeciesPlan, plan_of
from popcomm.rllib.population_checks import check_by_species, check_communities, check_seats, check_trained
from popcomm.rllib.rllib_numbers import check_rllib_numbers
from popcomm.rllib.settings import Settings
from popcomm.rllib.sharing import check_sharing
from popcomm.rllib.survival_checks import check_answers, check_networks
from popcomm.rllib.training_schedules import check_measures
from popcomm.rllib.unsupported import check_unsupported
from popcomm.rllib.without_effect import check_effect

logger = logging.getLogger(__name__)

LEARN_FROM = ("rewards", "answers")
TIME_LIMITS = ("bootstrap", "end")
# Weights and shares of losses that follow from the rest of a config where they are None.
LEFT_OPEN = ("quality_coeff", "message_balance_coeff", "message_sharpness", "rare_action_share")
SHARES = ("message_sharpness", "rare_action_share", "entropy_over_worlds")
NOT_NEGATIVE = ("clip_param", "vf_clip_param")  # infinity: nothing is clipped
WEIGHTS = (
    "vf_loss_coeff",
    "message_entropy_coeff",
    "quality_coeff",
    "message_balance_coeff",
    "message_kl_coeff",
)
MOST_SEED = 4 * 10**9  # RLlib adds to it for each runner, and numpy takes those below 2 ** 32
EVALUATION_CONFIG = ("explore", "env_config")


def check(settings: Settings) -> Plan:
    """What follows from the settings; raises UserError for the first thing that cannot work."""
    _check_numbers(settings)
    check_rllib_numbers(settings)
    _check_fractions(settings)
    _check_switches(settings)
    check_trained(settings.policies_to_train, settings.layout.species)
    timeout_of("environment.process_timeout", settings.process_timeout)
    if settings.processes is not None and settings.world is not None:
        check_processes(resolve(settings.world), settings.processes)
    one_of("training.learn_from", settings.learn_from, LEARN_FROM)
    one_of("environment.time_limit", settings.time_limit, TIME_LIMITS)
    one_of("population.seating", settings.seating, SEATINGS)
    check_communities(settings)
    check_by_species(settings)
    if settings.autocast is not None:
        one_of("acceleration.autocast", settings.autocast, ("bf16",))
    plan = plan_of(settings)
    _check_communication(settings, plan)
    check_seats(settings, plan)
    _check_exploration(plan, settings)
    for name, species in plan.species.items():
        if settings.own_settings(name):
            _check_fractions(species.settings, f" of species '{name}'")
        _check_agent(settings, name, species)
        _check_talk_losses(species)
        if species.critic == "central" and not plan.layout.state_size:
            raise UserError(
                "population.critic is 'central', and this environment has no latent state; use 'independent'"
            )
    _check_waiting(settings, plan)
    _check_routing(plan)
    _check_supervision(settings, plan)
    check_credit(settings, plan)
    check_importance(settings, plan)
    check_metrics(settings, plan)
    check_graph(plan)
    check_relaxed(plan)
    check_sharing(plan)
    check_federated(settings, plan)
    check_overlap(settings, plan)
    _check_minibatch(settings, plan)
    _check_evaluation(settings)
    check_unsupported(settings, plan)
    check_callbacks(settings)
    check_effect(settings, plan)
    if plan.survival is not None:
        check_networks(plan.survival, {name: species.agent_class for name, species in plan.species.items()})
        check_answers(plan.survival, {name: species.members for name, species in plan.species.items()})
    return plan


def _check_numbers(settings: Settings) -> None:
    least = {
        "env_runners.num_worlds_per_env_runner": (settings.num_worlds_per_env_runner, 1),
        "env_runners.rollout_fragment_length": (settings.rollout_fragment_length, 1),
        "env_runners.num_env_runners": (settings.num_env_runners, 0),
        "learners.num_learners": (settings.num_learners, 0),
        "training.num_epochs": (settings.num_epochs, 1),
        "fault_tolerance.max_empty_iterations": (settings.max_empty_iterations, 1),
        "fault_tolerance.max_nonfinite_updates": (settings.max_nonfinite_updates, 1),
        "recording.conversation_every": (settings.conversation_every, 0),
        "recording.conversation_worlds": (settings.conversation_worlds, 0),
        "recording.picture_every": (settings.picture_every, 0),
        "recording.importance_every": (settings.importance_every, 0),
        "recording.checkpoint_every": (settings.checkpoint_every, 0),
    }
    if settings.keep_checkpoints is not None:
        least["recording.keep_checkpoints"] = (settings.keep_checkpoints, 1)
    for key, (value, minimum) in least.items():
        count(key, value, minimum)
    if settings.seed is not None and whole("debugging.seed", settings.seed, 0) > MOST_SEED:
        raise UserError(f"debugging.seed is {settings.seed}, and must be at most {MOST_SEED}")
    if settings.step_timeout_s is not None:
        number("env_runners.step_timeout_s", settings.step_timeout_s, "be seconds above 0", above=0, below=float("inf"))


def _check_switches(settings: Settings) -> None:
    """What is on or off: a text such as "no" would be on."""
    switches = {
        "environment.agent_id": settings.agent_id,
        "env_runners.explore": settings.explore,
        "acceleration.tf32": settings.tf32,
        "acceleration.compile": settings.compile_agents,
        "fault_tolerance.restart_failed_sub_environments": settings.restart_failed_sub_environments,
    }
    for key, value in switches.items():
        true_or_false(key, value)


def _check_fractions(settings: Settings, whose: str = "") -> None:
    """Numbers whose sign or size would turn learning round. whose: words that follow the key."""
    for key in ("gamma", "lambda_", *SHARES):
        number(f"training.{key}{whose}", _chosen(settings, key), "be a number between 0 and 1", least=0.0, most=1.0)
    for key in NOT_NEGATIVE:
        number(f"training.{key}{whose}", _chosen(settings, key), "be a number at least 0", least=0.0)
    for key in WEIGHTS:
        _check_weight(f"training.{key}{whose}", _chosen(settings, key))
    for key in ("lr", "entropy_coeff"):
        value = getattr(settings, key)
        check = _check_schedule if isinstance(value, list | tuple) else _check_weight
        check(f"training.{key}{whose}", value)
    if settings.grad_clip is not None:
        number(f"training.grad_clip{whose}", settings.grad_clip, "be a number above 0", above=0.0)
    true_or_false(f"training.normalize_returns{whose}", settings.normalize_returns)


def _check_weight(key: str, value: object) -> None:
    number(key, value, "be a number at least 0, and finite", least=0.0, below=math.inf)


def _check_schedule(key: str, pairs: Sequence[Any]) -> None:
    """Of RLlib: [step, value] pairs from step 0 on, linear in between; two of one step make a jump."""
    if len(pairs) < 2 or any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
        raise UserError(
            f"{key} is {pairs!r}, and as a schedule must be two or more [environment step, value] pairs; of one value "
            "for all steps give the number itself"
        )
    for step, value in pairs:
        number(f"{key}: the step", step, "be a number at least 0, and finite", least=0.0, below=math.inf)
        _check_weight(f"{key}: the value at step {step}", value)
    steps = [step for step, _ in pairs]
    if steps[0] != 0:
        raise UserError(f"{key} begins with step {steps[0]}, and its first pair must be of step 0")
    for before, after in pairwise(steps):
        if after < before:
            raise UserError(f"{key} has step {after} after {before}, and its steps must ascend")


def _chosen(settings: Settings, key: str) -> object:
    """The value, or 0 for one that follows from the rest."""
    value = getattr(settings, key)
    return 0.0 if value is None and key in LEFT_OPEN else value


def _check_communication(settings: Settings, plan: Plan) -> None:
    check_measures(settings, plan.channel, plan.layout.num_labels)
    if plan.message_kind is None:
        return  # silence, whatever else a channel would have had
    check_gradient(settings.messages, plan)
    check_gates(settings, plan)
    for reflex in plan.channel.reflexes if plan.channel is not None and not plan.layout.num_labels else ():
        if reflex.needs_labels:
            raise UserError(
                f"communication.reflexes: {reflex.name} acts in events, and this environment has no labels that tell "
                "them; use when 'always'"
            )


def _check_agent(settings: Settings, name: str, species: SpeciesPlan) -> None:
    agent = species.agent_class
    parameters = inspect.signature(agent).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    names = list(parameters)[1:]
    for key in species.agent_config:
        if key not in names:
            whose = f" of species '{name}'" if isinstance(settings.agent, Mapping) else ""
            raise unknown(f"population.agent_config of {agent.__name__}{whose}: the key", key, names or ["(none)"])


def _check_exploration(plan: Plan, settings: Settings) -> None:
    """A share of the entropy bonus that was asked for must have a bonus, and actions that could be ruled out."""
    for species, key in product(plan.species.values(), ("rare_action_share", "entropy_over_worlds")):
        share = getattr(species.settings, key)
        if share and species.settings.entropy_coeff == 0:
            raise UserError(
                f"training.{key} is {share}, a share of training.entropy_coeff, and that is 0; use 0, or "
                "give actions an entropy bonus"
            )
    share = settings.rare_action_share
    if share and not any(species.rare_share for species in plan.species.values()):
        raise UserError(
            f"training.rare_action_share is {share}, and all actions are Boxes, of which none is ever ruled out; use 0"
        )


def _check_talk_losses(species: SpeciesPlan) -> None:
    """Losses that were asked for must have something to look at."""
    settings, kind, agent = species.settings, species.spec.messages, species.agent_class
    if species.quality_weight and not getattr(agent, "gives_features", False):
        raise UserError(
            f"training.quality_coeff is {settings.quality_coeff}, and population.agent {agent.__name__} gives no "
            '"features" that an action\'s worth could be told from; use 0, or give it gives_features and features_size'
        )
    if kind is None:
        return
    if species.balance_weight and not can_be_balanced(kind):
        raise UserError(
            f"training.message_balance_coeff is {settings.message_balance_coeff}, and messages of kind {kind.kind} "
            "have no symbols whose use can be balanced; use 0"
        )
    if settings.message_sharpness and not species.balance_weight:
        raise UserError(
            f"training.message_sharpness is {settings.message_sharpness}, a share of training.message_balance_coeff, "
            "and that is 0 here; use 0, or give messages a balance"
        )
    if settings.message_kl_coeff and _says_surely(kind):
        raise UserError(
            f"training.message_kl_coeff is {settings.message_kl_coeff}, and {kind.kind} without noise have no "
            "probabilities that could be held to; use 0"
        )


def _says_surely(kind: MessageKind) -> bool:
    """Whether a network's output decides a message of that kind, so that it has no probability."""
    return (isinstance(kind, Vectors) and not kind.deviation) or (isinstance(kind, Dru) and not kind.noise)


def _check_waiting(settings: Settings, plan: Plan) -> None:
    if settings.time_limit == "bootstrap" and any(s.settings.gamma == 1 for s in plan.species.values()):
        logger.warning(
            "training.gamma is 1, and an episode that is cut by a time limit counts as if it went on: waiting for ever "
            "then costs nothing. Use environment.time_limit 'end', or a gamma below 1"
        )


def _check_supervision(settings: Settings, plan: Plan) -> None:
    if settings.learn_from != "answers":
        return
    if not any(s.has_answers for s in plan.layout.species.values()):
        raise UserError("training.learn_from is 'answers', and this environment tells none; use 'rewards'")
    cost = settings.env_config.get("message_cost")
    if cost:
        raise UserError(
            f"environment.env_config.message_cost is {cost}, and must be 0 with training.learn_from 'answers', which "
            "replaces the world's rewards"
        )


def _check_routing(plan: Plan) -> None:
    if not plan.routed:
        return
    for name, species in plan.species.items():
        agent = species.agent_class
        if not getattr(agent, "hears_routed", False) and species.spec.latents:
            able = " or ".join(repr(name) for name, known in AGENTS.items() if getattr(known, "hears_routed", False))
            raise UserError(
                f"population.agent is {agent.__name__}, which cannot hear through topology routed; use {able}"
            )
        if species.species.hears and species.members > 1:
            raise UserError(
                f"population.members of '{name}' is {species.members}, and with topology routed it must be 1: "
                "every listener's own weights would have to read all messages"
            )


def _check_evaluation(settings: Settings) -> None:
    """What RLlib's evaluation may be told."""
    if settings.evaluation_interval is not None:
        count("evaluation.evaluation_interval", settings.evaluation_interval, 1)
    count("evaluation.evaluation_duration", settings.evaluation_duration, 1)
    told = settings.evaluation_config or {}
    if not isinstance(told, Mapping):
        raise UserError(f"evaluation.evaluation_config is {told!r}, and must be a mapping")
    for key in told:
        if key not in EVALUATION_CONFIG:
            raise unknown("evaluation.evaluation_config: the key", key, EVALUATION_CONFIG)
    true_or_false("evaluation.evaluation_config.explore", told.get("explore", True))


def _check_minibatch(settings: Settings, plan: Plan) -> None:
    block, worlds = plan.balanced_block, plan.total_worlds
    learners, blocks = max(1, settings.num_learners), worlds // block
    if blocks % learners:
        near = next(n for n in range(learners, 0, -1) if blocks % n == 0)
        raise UserError(
            f"learners.num_learners is {learners}, and {worlds} worlds, in {blocks} balanced blocks of {block}, cannot "
            f"be shared out evenly; the nearest that can: {near}"
        )
    per_learner, size = worlds // learners, settings.minibatch_size
    if size is None:
        return
    count("training.minibatch_size", size, 1)
    if size > per_learner:
        raise UserError(
            f"training.minibatch_size is {size} worlds, larger than a learner's batch of {per_learner} worlds "
            f"(env_runners.num_worlds_per_env_runner x num_env_runners / num_learners); at most {per_learner}"
        )
