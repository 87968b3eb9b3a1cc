"""Plan: what follows from the settings of a config, for all who build on it; no choice is left open in here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gymnasium import spaces

from popcomm.agents.contract import AgentSpec
from popcomm.agents.joint_critic import judges
from popcomm.agents.seating import SeatingRule
from popcomm.channels import Channel, MessageKind, Symbols, message_kind
from popcomm.channels.kinds import can_be_balanced, usual_gradient
from popcomm.channels.messages import reparameterised
from popcomm.envs.layout import WorldLayout
from popcomm.envs.world import Species
from popcomm.errors import UserError
from popcomm.rllib.by_species import of_species
from popcomm.rllib.casting import agent_class, agent_config_of, agents_of, members_of, seating_of
from popcomm.rllib.federated_plan import Federated, federated_of
from popcomm.rllib.joint_plan import JointCriticWays, joint_critic_of
from popcomm.rllib.settings import Settings
from popcomm.rllib.survival_plan import SurvivalPlan, survival_of
from popcomm.rollout.recipes import ChannelRecipe
from popcomm.schedules import Linear

# Worlds in a minibatch for each member's share of a world, where a config leaves it open.
MINIBATCH = 32
# Numbers in a message up to which symbols are relaxed, where a config leaves it open: twice as many are kept of each.
RELAXED = 64
# Gradients that go from receivers' losses to senders.
CARRYING = ("relaxed", "straight_through", "through")
# Those whose symbols become sharp by and by, where a config leaves it open; and between which updates of the learner.
SHARPENED, RISING = ("relaxed", "straight_through"), (200, 600)


@dataclass(frozen=True)
class SpeciesPlan:
    """What follows for one species, whose RLlib module may have settings of its own."""

    settings: Settings  # of its module: its own are in them, and RLlib's `algorithm_config_overrides_per_module`
    species: Species
    spec: AgentSpec  # what its networks are told
    agent_class: type  # of its networks
    agent_config: Mapping[str, object]  # what they are constructed with
    critic: str  # "independent" or "central"
    gradient: str  # how it learns to speak, chosen or not: see `communication`
    credit: str  # what its messages are credited with where they are actions, chosen or not
    quality_weight: float  # of the quality loss, chosen or not; 0: nobody predicts what actions are worth
    balance_weight: float  # of the balance of symbols, chosen or not
    sharpness: float  # the share of it that goes to sharpness, chosen or not
    rise: float | None  # what part of that share there is at first, where it is left open and rises; None: all
    rare_share: float  # of the entropy bonus that keeps actions open, chosen or not; 0 where none is ever ruled out
    over_worlds: float  # share of the entropy bonus that is for what is done in all worlds together
    joint_critic: JointCriticWays | None = None  # how its actions are advised; None: they are not

    @property
    def members(self) -> int:
        """P."""
        return self.spec.members

    @property
    def speaks_by_reinforce(self) -> bool:
        """Whether its messages are actions."""
        return self.gradient == "reinforce" and self.species.speaks


@dataclass(frozen=True)
class Plan:
    """What follows from a config, made by `plan_of` when a trainer, a runner or a learner is made."""

    layout: WorldLayout
    message_kind: MessageKind | None  # that is sent in training; None in silence
    channel: Channel | None
    gradient: str  # how senders learn, chosen or not: see `communication`
    species: Mapping[str, SpeciesPlan]
    seating_rule: SeatingRule
    reads_state: bool  # whether anybody looks at the world's latent state: a central critic, or losses of the agent's
    keeps_message_logp: bool  # of messages that are actions, or are held to what they were
    balanced_block: int  # the fewest worlds whose seats hold the members of every species equally often
    total_worlds: int  # of all runners
    minibatch_size: int | None  # worlds per learner, where it was chosen
    survival: SurvivalPlan | None = None  # who is selected, and how; None: nobody
    federated: Federated | None = None  # when members are averaged, and what they publish; None: never
    joint_critic: JointCriticWays | None = None  # how one is learned, and followed; None: there is none

    @property
    def agent_class(self) -> type:
        """Of the networks, where all species have the same.

        Raises:
            UserError: they have not.
        """
        classes = {species.agent_class for species in self.species.values()}
        if len(classes) > 1:
            raise UserError(f"population.agent is another one for each species: {', '.join(self.species)}")
        return classes.pop()

    @property
    def carries_gradients(self) -> bool:
        """Whether senders learn from their receivers' losses, through messages."""
        return self.message_kind is not None and self.gradient in CARRYING

    @property
    def routed(self) -> bool:
        """Whether anybody hears all others through latents."""
        return any(species.spec.latents for species in self.species.values())

    def worlds_in_minibatch(self, worlds: int) -> int:
        """How many of a learner's worlds make up a gradient step.

        Where `minibatch_size` is None: 32, in whole balanced blocks, and more where members outnumber seats, so that
        each has the rows of 32 worlds in the mean; all of them where there are fewer.
        """
        if self.minibatch_size:
            return self.minibatch_size
        share = max(s.members / s.species.num_seats for s in self.species.values())
        block = self.balanced_block
        return min(worlds, max(block, round(MINIBATCH * max(1.0, share)) // block * block))

    def sharpening(self, settings: Settings) -> Linear | None:
        """How the sharpness of symbols rises where it is left open: by the steps in which RISING updates are made.

        While listeners are deaf, only speakers who say *something* in each world give them what they could begin with.
        Those who began by themselves have agreed by then on what is worth saying (docs/learning_to_talk.md).

        Returns:
            strengths that multiply the share of every species with a `rise`; None where there is none.
        """
        starts = {species.rise for species in self.species.values() if species.rise is not None}
        if not starts:
            return None
        (start,) = starts
        learner = -(-self.total_worlds // max(1, settings.num_learners))
        minibatches = -(-learner // self.worlds_in_minibatch(learner))
        steps = self.total_worlds * settings.rollout_fragment_length / (minibatches * settings.num_epochs)
        begin, end = (round(updates * steps) for updates in RISING)
        return Linear(begin, end, start=start, stop=1.0)


def plan_of(settings: Settings) -> Plan:
    """The plan of a config as it is now: whoever changes the config makes another.

    Raises:
        UserError: an environment, a channel or an agent that does not exist, or that does not fit the others.
    """
    layout = settings.layout
    gradient, kind = gradient_of(settings), messages_of(settings)
    channel = _channel(settings, layout, kind)
    members = {name: members_of(settings, s) for name, s in layout.species.items()}
    seating = seating_of(settings, members)
    species = {
        name: _species_plan(settings_of(settings, name), s, _spec(layout, s, channel, members[name], seating))
        for name, s in layout.species.items()
    }
    rule = SeatingRule(seating, settings.communities, settings.mixing)
    return Plan(
        layout=layout,
        message_kind=kind,
        channel=channel,
        gradient=gradient,
        species=species,
        seating_rule=rule,
        reads_state=any(
            s.critic == "central" or bool(getattr(s.agent_class, "has_auxiliary_losses", True))
            for s in species.values()
        ),
        keeps_message_logp=gradient == "reinforce" or any(s.settings.message_kl_coeff > 0 for s in species.values()),
        balanced_block=math.lcm(*(rule.block(members[name], s.num_seats) for name, s in layout.species.items())),
        total_worlds=max(1, settings.num_env_runners) * settings.num_worlds_per_env_runner,
        minibatch_size=settings.minibatch_size,
        survival=survival_of(settings, layout, members),
        federated=federated_of(settings.federated),
        joint_critic=joint_critic_of(settings.joint_critic),
    )


def settings_of(settings: Settings, species: str) -> Settings:
    """The settings of a species' module; RLlib's own way to them remembers, also of a config that is still changed."""
    own = settings.own_settings(species)
    return settings.copy(copy_frozen=False).update_from_dict(own) if own else settings


def gradient_of(settings: Settings) -> str:
    """How senders learn, chosen or not."""
    kind = message_kind(settings.messages)
    if reparameterised(kind) and settings.message_gradient in (None, "straight_through", "relaxed"):
        return "through"  # each is what the others are for symbols
    if settings.message_gradient is not None:
        return settings.message_gradient
    # Symbols of the user's own have methods that points of the simplex would not have.
    small = type(kind) is Symbols and kind.length * kind.vocab_size <= RELAXED
    if small and all(getattr(agent, "takes_relaxed", False) for agent in agents_of(settings)):
        return "relaxed"
    return "straight_through" if kind is None else usual_gradient(kind)


def messages_of(settings: Settings) -> MessageKind | None:
    """The kind of message that is sent in training; None in silence."""
    kind = message_kind(settings.messages)
    on_simplex = getattr(kind, "on_simplex", None)
    return on_simplex() if on_simplex is not None and gradient_of(settings) == "relaxed" else kind


def gate_of(settings: Settings) -> object:
    """`communication.gate`, or where it was left out the one that networks are known with (IC3Net's)."""
    if settings.channel_gate is not None:
        return settings.channel_gate
    return next((agent.usual_gate for agent in agents_of(settings) if hasattr(agent, "usual_gate")), None)


def surroundings(settings: Settings, plan: Plan, num_worlds: int) -> dict[str, str]:
    """{what: which}, in words, of all that decides the shape and the rules of B worlds and of what is said in them."""
    channel, own = plan.channel, settings.given_species is None  # the environment's own species follow from it
    parts = {
        "environment": getattr(settings.world, "__qualname__", settings.world),
        "env_config": sorted(settings.env_config.items()),
        "num_worlds_per_env_runner": num_worlds,
        "species": None if own else {name: s.species.agents for name, s in plan.species.items()},
        "seats": {name: s.species.num_seats for name, s in plan.species.items()},
        "members": {name: s.members for name, s in plan.species.items()},
        "agent": _alike({name: s.agent_class.__qualname__ for name, s in plan.species.items()}),
        "agent_config": _alike({name: sorted(s.agent_config.items()) for name, s in plan.species.items()}),
        "messages": plan.message_kind,
        "topology": channel and channel.topology,
        "reflexes": channel and [reflex.name for reflex in channel.reflexes],
    }
    if channel is not None and channel.rounds:  # checkpoints of before there were any do not say so
        parts["rounds"] = channel.rounds
    if channel is not None and (channel.gates.names or channel.budget.ranks):
        parts |= {"gate": channel.gates, "budget": channel.budget}
    # Where objects do not say what they are, their address would differ in every process; and symbols of checkpoints of
    # before had no end.
    return {name: re.sub(r" at 0x[0-9a-f]+|, end_symbol=False", "", repr(value)) for name, value in parts.items()}


def _alike(values: dict[str, object]) -> object:
    """The value that all species have, or what each has."""
    first, *others = values.values()
    return first if all(other == first for other in others) else values


def _channel(settings: Settings, layout: WorldLayout, kind: MessageKind | None) -> Channel | None:
    """A channel for worlds of that layout; None in silence."""
    return None if kind is None else channel_recipe(settings, kind).make(layout)


def channel_recipe(settings: Settings, kind: MessageKind) -> ChannelRecipe:
    """A channel for messages of that kind, whatever the worlds."""
    return ChannelRecipe(
        kind,
        settings.channel_topology,
        settings.message_dropout,
        settings.message_noise,
        settings.reflexes,
        settings.channel_capacity,
        settings.channel_inbox,
        settings.channel_rounds,
        gate_of(settings),
        settings.channel_budget,
        settings.vocabulary,
    )


def _spec(layout: WorldLayout, species: Species, channel: Channel | None, members: int, seating: str) -> AgentSpec:
    """What the networks of a species are told."""
    hears = channel is not None and species.hears
    return AgentSpec.of(
        species,
        messages=channel.messages if channel else None,
        inbox_size=channel.inbox_size if channel and hears else 0,
        latents=channel.topology.latents if channel and hears else 0,
        members=members,
        state_size=layout.state_size,
        # In a log of transmissions one more stands for nobody, who publishes words.
        num_agents=layout.num_agents + bool(channel and channel.size),
        sender_obs_size=max(s.glimpse_size for s in layout.species.values()),
        seating=seating,
        rounds=channel.rounds if channel else 0,
        gates=channel.gates.names if channel else (),
        urgency=bool(channel and channel.budget.ranks),
        seat_species=tuple(name for name, s in layout.species.items() for _ in range(s.num_seats)),
    )


def _is_told(settings: Settings, species: Species) -> bool:
    """Whether its actions are no decisions, where answers are learned from: it is told the right ones, or has one."""
    return settings.learn_from == "answers" and (species.has_answers or getattr(species.action_space, "n", 0) == 1)


def _open_sharpness(settings: Settings, gradient: str) -> tuple[float, float | None]:
    """The share that a config leaves open, and what part of it there is at first."""
    first, last = (settings.left_open.get(key) for key in ("message_sharpness", "last_message_sharpness"))
    assert first is not None
    scheduled = "message_sharpness" in (settings.loss_schedules or {})
    if last is None or scheduled or gradient not in SHARPENED:  # None: a config of before there was a last one
        return first, None
    return last, first / last


def _species_plan(settings: Settings, species: Species, spec: AgentSpec) -> SpeciesPlan:
    """settings: of the species' module."""
    gradient, kind = gradient_of(settings), spec.messages
    agent = agent_class(of_species("population.agent", settings.agent, species))
    carries = kind is not None and gradient in CARRYING
    quality, balance, sharpness = settings.quality_coeff, settings.message_balance_coeff, settings.message_sharpness
    open_ones = settings.left_open
    if quality is None:
        able = getattr(agent, "gives_features", False) and settings.learn_from != "answers"
        quality = open_ones["quality_coeff"] if carries and able else 0.0
    if balance is None:
        learned = gradient != "none"  # a control that speaks as it happens to
        balance = open_ones["message_balance_coeff"] if learned and can_be_balanced(kind) else 0.0
    rise = None
    if sharpness is None:
        sharpness, rise = _open_sharpness(settings, gradient if balance > 0 else "none")
    rare = open_ones["rare_action_share"] if settings.rare_action_share is None else settings.rare_action_share
    rare = 0.0 if isinstance(species.action_space, spaces.Box) else rare
    critic = of_species("population.critic", settings.critic, species)
    decides = gradient == "reinforce" or spec.manners or not _is_told(settings, species)
    judged = decides or quality > 0 or critic == "central" or not getattr(agent, "judges_apart", False)
    # Of decisions alone, and of such as have a number each.
    advised = judges(species.action_space) and settings.explores(species)
    return SpeciesPlan(
        settings=settings,
        species=species,
        spec=replace(spec, judged=judged),
        agent_class=agent,
        agent_config=agent_config_of(settings, species),
        critic=critic,
        gradient=gradient,
        # Where nothing else would count, what is heard a step later does.
        credit=settings.message_credit or ("next" if settings.gamma == 0 and not spec.rounds else "step"),
        quality_weight=quality,
        balance_weight=balance,
        sharpness=sharpness,
        rise=rise,
        rare_share=rare,
        over_worlds=settings.entropy_over_worlds,
        joint_critic=joint_critic_of(settings.joint_critic) if advised else None,
    )
