"""Settings of populations that others leave without effect: refused, with what they need, so that none is ignored.

Those of RLlib are in `popcomm.rllib.unsupported`. What was given is told from what was left out by its value: one that
is as by default, or switches a loss off, is nothing to complain of. Configs of before are let through.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from inspect import signature

from popcomm.agents.graph import real_links
from popcomm.agents.joint_critic import judges
from popcomm.channels import Curriculum, Learned, Symbols, Vectors, message_kind
from popcomm.channels.relaxed import Dru
from popcomm.envs.candidates import LIKE_ANY, unlike
from popcomm.envs.process_worlds import TIMEOUT
from popcomm.errors import UserError
from popcomm.rllib.plan import Plan, SpeciesPlan
from popcomm.rllib.settings import ENTROPY_COEFF, Settings
from popcomm.rllib.survival_checks import check_selection
from popcomm.schedules import Constant

logger = logging.getLogger(__name__)

DEFAULT_EVERY = 10  # iterations between conversations and between pictures
OF_LEARNING = ("between", "threshold", "start", "price", "budget", "prune_at")  # keys of a graph that is learned


def check_effect(settings: Settings, plan: Plan) -> None:
    """Raises UserError: a setting that nothing would look at."""
    if not settings.refuses_idle:
        return
    if settings.processes is None and settings.process_timeout != TIMEOUT:
        raise UserError(
            f"environment.process_timeout is {settings.process_timeout}, and has no effect without "
            "environment.processes: worlds step in the runner's own process; leave it out"
        )
    _check_temperature(settings, plan)
    _check_topology(plan)
    _check_learning(settings, plan)
    _check_joint_critic(plan)
    if plan.survival is not None:
        check_selection(settings, plan.survival, {name: species.members for name, species in plan.species.items()})
    _check_recorded(settings)


def tell_what_is_idle(settings: Settings, plan: Plan) -> None:
    """Log what has no effect and is no mistake: RLlib's own settings, or a part of what was asked for."""
    _tell_what_is_not_written(settings)
    for sentence in dict.fromkeys(_idle(settings, plan, "entropy_coeff", (0, ENTROPY_COEFF), _unexplored)):
        logger.warning("%s", sentence)
    for name, species in plan.species.items():
        if (
            plan.joint_critic is not None
            and species.joint_critic is None
            and getattr(species.species.action_space, "n", 0) != 1
        ):
            kind = "are learned from answers" if judges(species.species.action_space) else "are not Discrete"
            logger.warning("training.joint_critic advises nobody of %s, whose actions %s", name, kind)
        if (entry := unlike(species.species.structure, species.species.action_space)) is not None:
            logger.warning("species '%s' %s", name, LIKE_ANY.format(entry))


def _tell_what_is_not_written(settings: Settings) -> None:
    """Where somebody chose when to record, and nowhere to record it; a config without may get a folder yet."""
    chosen = [
        key for key in ("conversation_every", "picture_every") if getattr(settings, key) not in (0, DEFAULT_EVERY)
    ]
    if chosen and settings.run_dir is None:
        logger.warning("recording.%s: nothing is written, for recording.run_dir is missing", ", ".join(chosen))


def _check_temperature(settings: Settings, plan: Plan) -> None:
    kind = message_kind(settings.messages)
    if isinstance(kind, Symbols) and kind.temperature != 1 and plan.gradient in ("reinforce", "none"):
        raise UserError(
            f"messages.temperature is {kind.temperature}, and has no effect with communication.gradient "
            f"'{plan.gradient}': it is of the softmax that carries gradients to the sender; leave it out"
        )


def _check_topology(plan: Plan) -> None:
    """Whether what changes the links that there are at first ever does."""
    if plan.channel is None:
        return
    key, topology = "communication.topology", plan.channel.topology
    if isinstance(topology, Curriculum):
        links = topology.inbox_size(plan.layout.num_agents)
        if isinstance(topology.schedule, Constant) and topology.schedule.value == 1:
            raise UserError(
                f"{key}.schedule is a constant 1, and has no effect: no link ever goes; let it fall, or use the "
                "topology itself"
            )
        if topology.seed and topology.keep != "drawn":
            raise UserError(f"{key}.seed is {topology.seed}, and has no effect: nothing is drawn; use keep 'drawn'")
        if topology.least == links:
            raise UserError(
                f"{key}.least is {links}, and an agent has {links} links at first, so that the schedule has no "
                "effect; use less, or the topology itself"
            )
    if isinstance(topology, Learned):
        if topology.is_given:
            _check_given(key, topology)
        else:
            _check_link_budget(key, topology, plan)


def _check_link_budget(key: str, topology: Learned, plan: Plan) -> None:
    """Links cost nothing while no more are open than the budget has."""
    hearing = [name for name, species in plan.species.items() if species.spec.hears]
    links = sum(int(real_links(plan.layout, topology, name).sum()) for name in hearing)
    if topology.budget and topology.budget >= links:
        raise UserError(
            f"{key}.budget is {topology.budget}, and the links between {topology.between} are {links} in all, so that "
            f"the price has no effect; use fewer than {links}, or price 0 and no budget"
        )


def _check_given(key: str, topology: Learned) -> None:
    """Of a graph that stays nothing is left to learn."""
    learning = signature(Learned).parameters
    for name in OF_LEARNING:
        value = getattr(topology, name)
        if value != learning[name].default:
            raise UserError(
                f"{key}.{name} is {value!r}, and has no effect beside strengths, which are learned already; leave it "
                "out"
            )


def _check_learning(settings: Settings, plan: Plan) -> None:
    for key, (nothing, why) in OF_SPECIES.items():
        for sentence in _idle(settings, plan, key, nothing, why):
            raise UserError(f"{sentence}; leave it out")


def _idle(
    settings: Settings, plan: Plan, key: str, nothing: tuple[object, ...], why: Callable[[SpeciesPlan], str]
) -> Iterator[str]:
    """What of a setting has no effect: each species' own value must act on it, and that of all on one without its own.

    Args:
        nothing: values that ask for nothing.
        why: a species has no use for another; "": it has.
    """
    reasons = {name: why(species) for name, species in plan.species.items()}
    own = {name for name in reasons if key in settings.own_settings(name)}
    idle_for_all = all(reason for name, reason in reasons.items() if name not in own)
    for name, reason in reasons.items():
        value = getattr(plan.species[name].settings, key)
        if value not in nothing and reason and (name in own or idle_for_all):
            whose = f" of species '{name}'" if name in own else ""
            yield f"training.{key}{whose} is {value!r}, and has no effect: {reason}"


def _check_joint_critic(plan: Plan) -> None:
    if plan.joint_critic is not None and all(species.joint_critic is None for species in plan.species.values()):
        raise UserError(
            "training.joint_critic is given, and has no effect: it judges Discrete actions, two or more, that are "
            f"learned from rewards, and of {', '.join(plan.species)} nobody has them; leave it out"
        )


def _unclipped(species: SpeciesPlan) -> str:
    return "training.grad_clip is null, and no gradient is clipped" if species.settings.grad_clip is None else ""


def _unvalued(species: SpeciesPlan) -> str:
    return "" if species.settings.vf_loss_coeff else "training.vf_loss_coeff is 0, and no value is learned"


def _unexplored(species: SpeciesPlan) -> str:
    if species.settings.explores(species.species):
        return ""
    return "actions that are learned from answers, or of which there is but one, get no entropy bonus"


def _mute(species: SpeciesPlan) -> str:
    """Why losses of messages say nothing to a species. Where all are silent they do not, whatever is said of them."""
    return "nobody of it speaks" if species.spec.messages is not None and not species.species.speaks else ""


def _certain(species: SpeciesPlan) -> str:
    kind = species.spec.messages
    if isinstance(kind, Vectors) or (isinstance(kind, Dru) and not kind.noise):
        return f"the entropy of {kind.kind} is the same whatever a network puts out"
    return _mute(species)


# {setting of `training`: (values that ask for nothing, why a species has no use for another)}
OF_SPECIES: dict[str, tuple[tuple[object, ...], Callable[[SpeciesPlan], str]]] = {
    "grad_clip_by": (("global_norm",), _unclipped),
    "vf_clip_param": ((math.inf,), _unvalued),
    "rare_action_share": ((None, 0), _unexplored),
    "entropy_over_worlds": ((0,), _unexplored),
    "message_entropy_coeff": ((0,), _certain),
    "message_kl_coeff": ((0,), _mute),
    "message_balance_coeff": ((None, 0), _mute),
    "message_sharpness": ((None, 0), _mute),
}


def _check_recorded(settings: Settings) -> None:
    """Intervals of 0 turn recording off, whatever is said of worlds; worlds of none do not."""
    worlds = settings.conversation_worlds
    intervals = {"conversation_every": settings.conversation_every, "picture_every": settings.picture_every}
    for key, every in intervals.items():
        if not worlds and every not in (0, DEFAULT_EVERY):
            raise UserError(
                f"recording.{key} is {every}, and has no effect: recording.conversation_worlds is 0, so there is no "
                "world to record; at least 1"
            )
