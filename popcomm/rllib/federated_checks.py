"""Whether members can be averaged, and whether an epsilon would be true of what they tell each other."""

from __future__ import annotations

from popcomm.errors import UserError
from popcomm.rllib.drafts import draft_of
from popcomm.rllib.federated_plan import KEY
from popcomm.rllib.graph import links_of
from popcomm.rllib.plan import Plan, SpeciesPlan
from popcomm.rllib.settings import Settings
from popcomm.rllib.sharing import borrowers
from popcomm.rllib.training_schedules import schedules_of
from popcomm.schedules import BY_STEPS, Gated

# RLlib's ways to train several times in one iteration, of each of which a round would be at the end.
REPEATED = ("min_time_s_per_iteration", "min_sample_timesteps_per_iteration", "min_train_timesteps_per_iteration")


def check_federated(settings: Settings, plan: Plan) -> None:
    """Raises UserError: nobody to be averaged with, weights that have no mean, rounds that would come more often than
    iterations do, or an epsilon that would not hold."""
    federated = plan.federated
    if federated is None:
        return
    for key in REPEATED:
        if value := getattr(settings, key):
            raise UserError(
                f"reporting.{key} is {value}, so that members may be trained several times in an iteration, and "
                f"{KEY} counts iterations: a round would be at the end of each; leave it out"
            )
    averaged = {name: species for name, species in plan.species.items() if species.members > 1}
    if not averaged:
        raise UserError(
            f"{KEY} is given, and population.members is 1, who has nobody to be averaged with; use members 2 or more"
        )
    if plan.survival is not None:
        raise UserError(
            f"{KEY} and survival.strategy are both given: children get their parents' weights in the clear, and the "
            "next round would make all alike again; use one of them"
        )
    for name, species in averaged.items():
        _check_weights(name, species)
    if lent := borrowers(plan):
        agent = plan.species[lent[0]].agent_class.__name__
        raise UserError(
            f"{KEY} is given, and population.agent {agent} shares weights between species ({', '.join(lent)} and "
            "another); use agent_config.codec 'own'"
        )
    if federated.epsilon is not None:
        _check_apart(plan, averaged)
        _check_schedules(settings, plan)


def _check_weights(name: str, species: SpeciesPlan) -> None:
    agent = species.agent_class
    if any(hasattr(agent, what) for what in ("owners", "grow")) or getattr(agent, "collective", False):
        raise UserError(
            f"{KEY} is given, and the weights of population.agent {agent.__name__} of species '{name}' are not the "
            "same ones of every member, so that they have no mean; use an agent such as 'mlp' or 'symbolic'"
        )


def _check_apart(plan: Plan, averaged: dict[str, SpeciesPlan]) -> None:
    """An epsilon is a promise of all that members tell others to learn from."""
    key = f"{KEY}.epsilon is {plan.federated.epsilon if plan.federated else None}, and"
    if plan.carries_gradients:
        raise UserError(
            f"{key} with communication.gradient '{plan.gradient}' listeners hand gradients to those whom they hear, in "
            "the clear; use 'reinforce' or 'none', or silence"
        )
    if plan.joint_critic is not None:
        raise UserError(
            f"{key} training.joint_critic learns from what all members saw and did, in the clear; use one of them"
        )
    for name, species in averaged.items():
        credited = plan.message_kind is not None and species.speaks_by_reinforce
        if credited and species.credit in ("receivers", "counterfactual"):
            raise UserError(
                f"{key} communication.credit '{species.credit}' tells senders what became of those who heard them; "
                "use 'step' or 'next'"
            )
        if species.critic == "central":
            raise UserError(f"{key} population.critic 'central' looks at what all others see; use 'independent'")
        if links_of(plan, name) is not None:
            raise UserError(
                f"{key} a graph that is learned (communication.topology) tells all of its links in every update; use "
                "another topology"
            )
        _check_targets(key, name, species)


def _check_targets(key: str, name: str, species: SpeciesPlan) -> None:
    """A loss of a listener whose target is what others observed has it in its update."""
    weights, spec = getattr(draft_of(species), "auxiliary_weights", {}), species.spec
    targets = {
        "reconstruction": ("reconstruction_weight", "what those whom it hears observed", spec.receives is not None),
        "world_model": ("world_weight", "the state of the world, with all that others observe", bool(spec.state_size)),
    }
    for loss, (setting, what, there) in targets.items():
        if there and weights.get(loss):
            raise UserError(
                f"{key} by agent_config.{setting} {weights[loss]} a member of species '{name}' learns from {what}, in "
                "the clear; use 0"
            )


def _check_schedules(settings: Settings, plan: Plan) -> None:
    """How well all do, exactly, is in what a schedule by performance makes of the losses and the channel of each."""
    for where, schedule in schedules_of(settings, plan.channel).items():
        if type(schedule) in BY_STEPS:
            continue
        how = "of your own, which may follow" if not isinstance(schedule, Gated) else "'gated', which follows"
        raise UserError(
            f"{KEY}.epsilon is {plan.federated.epsilon if plan.federated else None}, and {where} is {how} the reward "
            "or the agreement of all members, in the clear; use one that follows the steps, such as 'linear'"
        )
