"""The agent contract: what a network is told at construction, what it gets in a step, and what it gives back.

An agent is a plain torch module for P members at once. Its constructor takes an `AgentSpec` and keyword arguments (the
`agent_config` of `.population()`); every parameter and buffer of it has the members as its first axis when
`spec.members` > 1, but for those whose `owners()` it tells. Tensors are member-major, [P, R, ...]: R rows of each of
the P members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple, Protocol, runtime_checkable

from gymnasium import spaces
from torch import Tensor

from popcomm.channels.mailbox import Inbox
from popcomm.channels.messages import MessageKind
from popcomm.envs.sight import Sighted
from popcomm.envs.world import Species, flat_box


@dataclass(frozen=True)
class AgentSpec(Sighted):
    """What a network must know of its place in the world."""

    obs_size: int  # O, numbers in an observation
    action_space: spaces.Space  # Discrete, MultiDiscrete or Box
    messages: MessageKind | None  # what it sends and hears; None in the silent ablation
    inbox_size: int  # K, the most messages heard in a step; 0 in silence
    members: int = 1  # P
    state_size: int = 0  # S, numbers in the world's latent state; 0 where there is none
    num_agents: int = 1  # N, seats of the world: senders are 0 ... N - 1; one more where words have nobody as sender
    sender_obs_size: int = 0  # the largest `glimpse` of any species: what a listener may try to reconstruct
    speaks: bool = True  # whether this species sends messages at all
    hears: bool = True  # whether it receives any
    latents: int = 0  # above 0: it gets a RoutedInbox, and hears all others through so many summaries
    species: str = ""  # its name, which is that of its RLlib module
    num_seats: int = 1  # N_s, seats of the species in a world
    seat_species: tuple[str, ...] = ()  # [N], the species of every seat, in the order of `senders`
    # What an agent observes, in its own form: pictures keep their shapes and Dicts their entries. `obs` is
    # `gymnasium.spaces.flatten` of it, O numbers, with pictures scaled to [0, 1]. None when it is made becomes a Box of
    # O numbers.
    observation_space: spaces.Space | None = None
    seating: str = "shuffled"  # how members come to seats (`popcomm.agents.seating.SeatingRule`)
    # R, messages that are exchanged on one observation before anybody acts: `forward` is then called R + 1 times in a
    # step, its state going on from call to call. In the first nothing is heard, and of the last nothing is said.
    rounds: int = 0
    gates: tuple[str, ...] = ()  # "receiver", "sender": which gates it has (`popcomm.agents.gates`)
    urgency: bool = False  # whether its messages have a priority
    judged: bool = True  # whether anybody reads its values; else those of networks that judge apart are zeros

    def __post_init__(self) -> None:
        space = self.observation_space
        numbers = 0 if space is None else spaces.flatdim(space)
        if space is None or (numbers != self.obs_size and space == flat_box(numbers)):  # or one of a replaced size
            object.__setattr__(self, "observation_space", flat_box(self.obs_size))
        elif numbers != self.obs_size:
            raise ValueError(f"{space} has {numbers} numbers, and obs_size is {self.obs_size}")

    @property
    def observation_form(self) -> spaces.Space | None:
        return self.observation_space

    @property
    def sends(self) -> MessageKind | None:
        """The kind of message it sends; None if it never does: such a network has no message head."""
        return self.messages if self.speaks else None

    @property
    def receives(self) -> MessageKind | None:
        """The kind of message it hears; None if it never does: such a network gets no inbox."""
        return self.messages if self.hears else None

    @property
    def manners(self) -> bool:
        """Whether it decides if a message goes out, or how urgent it is."""
        return self.sends is not None and ("sender" in self.gates or self.urgency)

    @property
    def action_params_size(self) -> int:
        """Numbers that the action head puts out: logits, or means followed by log standard deviations."""
        return action_params_size(self.action_space)

    @classmethod
    def of(cls, species: Species, **rest: Any) -> AgentSpec:
        return cls(
            obs_size=species.obs_size,
            observation_space=species.structure,
            species=species.name,
            num_seats=species.num_seats,
            action_space=species.action_space,
            speaks=species.speaks,
            hears=species.hears,
            **rest,
        )


def action_params_size(space: spaces.Space) -> int:
    """Numbers in `action_logits` for an action space (RLlib's order for each of its distributions)."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box):
        return 2 * int(space.shape[0])
    raise TypeError(f"actions of type {type(space).__name__} are not supported; use Discrete, MultiDiscrete or Box")


def whole_worlds(rows: Tensor, spec: AgentSpec) -> Tensor:
    """What a collective sees, world by world: [P, R, ...] -> [G, W, N_s, ...], W worlds of each of G networks.

    With fixed seating G = P / N_s teams of members, one member on each seat; otherwise G = P, one member on all seats.
    Padding rows are whole worlds, too.
    """
    if spec.seating == "fixed" and spec.members > 1:
        return rows.unflatten(0, (-1, spec.num_seats)).transpose(1, 2)
    return rows.unflatten(1, (-1, spec.num_seats))


def member_rows(worlds: Tensor, spec: AgentSpec) -> Tensor:
    """The inverse of `whole_worlds`: [G, W, N_s, ...] -> [P, R, ...]."""
    if spec.seating == "fixed" and spec.members > 1:
        return worlds.transpose(1, 2).flatten(0, 1)
    return worlds.flatten(1, 2)


class AgentOutput(NamedTuple):
    """What a network gives back in a step."""

    action_logits: Tensor  # [P, R, A]
    message: Tensor | None  # [P, R, *params_shape] of the message kind; None in silence
    value: Tensor  # [P, R], in the units of normalised returns
    state: dict[str, Tensor]  # {name: [P, R, ...]}, the recurrent state after the step
    aux: dict[str, Tensor]  # {name: [P, R, ...]}, whatever its own losses and the logs want ("attention": [P, R, K])
    # [P, R, *message shape], the message itself, from networks that speak symbol by symbol: `message` then holds the
    # distribution of every symbol given those before it in `said`.
    said: Tensor | None = None
    # [P, R, 3], whether and how urgently it speaks (`popcomm.agents.gates.Manner`), where `spec.manners` asks for it.
    manner: Tensor | None = None


def later(obs: Tensor) -> tuple[Tensor, Tensor]:
    """Action logits [P, R, 0] and values [P, R, 0] in place of those that are made for all steps at once."""
    nothing = obs.new_empty(*obs.shape[:2], 0)
    return nothing, nothing


def decides_later(agent: Any) -> bool:
    """Whether its forward takes `undecided`; one that was overridden without it decides in every step."""
    return "undecided" in signature(agent.forward).parameters


def sees_first(agent: Any) -> bool:
    """Whether its forward takes `seen`; one that was overridden without it sees for itself in every step."""
    return "seen" in signature(agent.forward).parameters


class AuxiliaryBatch(NamedTuple):
    """Targets for a network's own losses; the steps of a fragment are joined along the rows."""

    obs: Tensor  # [P, R, O], as it was kept: pictures are bytes, which `spec.numbers` scales and `spec.glimpse` pools
    next_obs: Tensor  # [P, R, O], likewise
    next_mask: Tensor  # [P, R] bool, where next_obs belongs to the same life
    actions: Tensor  # [P, R] int64 or [P, R, k] int64 / float32
    inbox: Inbox | None  # [P, R, K, ...], differentiable where the gradient setting says so
    sender_obs: Tensor | None  # [P, R, K, sender_obs_size], a `glimpse` of what the sender saw when it spoke; padded
    sender_obs_mask: Tensor | None  # [P, R, K, sender_obs_size] bool, the numbers that are real
    world_state: Tensor | None  # [P, R, S]
    mask: Tensor  # [P, R] bool, rows that an agent lived
    # ([P, R, *params_shape], said [P, R, ...] or None) of every round of a step but the last, which is in the outputs.
    earlier: tuple[tuple[Tensor, Tensor | None], ...] = ()
    # [P, R], differentiable: `expense` of what was said (`MessageKind`), where the unroll has it anyway.
    expense: Tensor | None = None


@runtime_checkable
class Agent(Protocol):
    """The contract. `outputs` of the losses are AgentOutputs whose rows are joined over steps as the batch's are.

    A network that speaks symbol by symbol has `autoregressive = True`, and its forward takes three more keywords:
    `said` [P, R, *message shape], a message that was sent, whose distribution is wanted; or, where `said` is None,
    `generator` to sample one with, or `greedy=True` for the likeliest symbol each time. It returns the message in
    `said`. Where its vocabulary grows (`communication.vocabulary`) there is a fourth, `open_symbols`: it says none but
    0 ... open_symbols - 1.

    Optional: `auxiliary_weights: dict[str, float]` (a loss without an entry counts once);
    `has_auxiliary_losses = False`, which saves the gathering of targets for losses that are not there;
    `pays_for_messages = True` of those whose losses look at the batch's `expense`;
    `diagnostics(batch, outputs) -> dict of scalars` for numbers that are logged only; and
    `auxiliary_counts(batch) -> {name: [P]}`, over how many entries a loss is a mean where that is not the real rows, so
    that several learners' means can be put together exactly. `hears_routed = True` on the class of those that can hear
    through a routed channel, whose forward gets a RoutedInbox where `spec.latents` is above 0. `gives_features = True`
    on the class of those whose `aux` has "features" [P, R, features_size], all that the policy acts on, with gradients:
    what an action is worth is then learned from them (`popcomm.agents.quality`). `takes_relaxed = True` on the class of
    those that read messages by the kind's `straight_through` alone, as MessageEncoder does, so that symbols may be
    points of the simplex in training. `undecided`, one more keyword of forward: where it is True, `action_logits`
    and `value` are `later(obs)`, and the trainer gets them for the rows of all steps at once from
    `decide(obs, aux) -> (action_logits, value)`. No step waits for them, and their layers run once instead of T times.
    `decides_unseen = True` where `decide` does not look at obs, which is empty then. `seen`, another one: where it is
    given it is the rows of a step in `see(obs) -> [P, R, ...]`, what is made of observations alone, which the trainer
    asks for of all steps at once; forward then does not look at obs for that. `judges_apart = True` on the class of
    those whose values' gradient reaches nothing but what makes values, and which give zeros where `spec.judged` is
    False.
    `gates_messages = True` on the class of those that have the gates that `spec.gates` names, and a `manner` where
    `spec.manners` (`popcomm.agents.gates`); how open a receiver's gates are is "openness" [P, R, K] in `aux`, 0
    in slots without a message.
    `usual_gate = "sender"` (or another kind) on the class of those that have it where `communication.gate` is left out.
    `shared_parts: tuple[str, ...]`, names of submodules that are one and the same in the networks of all species of its
    class (`popcomm.rllib.sharing`); on the class, too, be it empty.
    `without_gradient: tuple[str, ...]`, names of parameters that are meant to have none: `agent_api_test` of
    `popcomm.agents.testing`, which holds an agent against all this, asks for one on every other.

    `collective = True` on the class of those that are one network of all seats of a species. They see whole worlds
    (`whole_worlds`, `member_rows`) and need a seating that has them: "worlds", where a member sits on all seats of a
    world; "fixed" with members = seats x teams, where row r of all members of a team is the same world and step; or one
    member. With "worlds", what is normalised and clipped for each member is so over all seats; with "fixed", for each
    seat. Their parameters need no axis of members; those that have none and no owners are the whole network's, which is
    then clipped as one.

    Networks whose rows come and go have `owners() -> {parameter: [axis 0] int64 member}` for the parameters whose first
    axis is not the members: gradients are clipped, and left out where they are not finite, for each owner. To grow they
    have three more methods, and their layers `popcomm.agents.reindex.take_sizes`: `watch(on)`, whether the gradients
    that follow are looked at (in the first pass over a batch they are); `growth_statistics() -> Tensor`, what was seen
    since the watch began or since it was last asked, as sums that can be added up over updates and learners; and
    `grow(sums, generator) -> {parameter: [rows] int64}` after such a step, which rows the parameters are to have now
    (`popcomm.agents.reindex.reindex`; -1: a new one), or nothing, and then the sums go on. Random choices are the
    generator's, so that all learners make the same; buffers that go with the rows are the network's own to change.
    `grows_by_iteration = True` on the class of those that are asked only once an iteration, at the end of its first
    epoch. `seat_members = True` on that of collectives for which seating "shuffled" is to stand for "fixed", and one
    member for one on every seat. `measures() -> {"group/name": number}` is logged after every iteration.
    `inherit(parents: [P]) -> {parameter: [rows] int64}` says the same of those parameters where member p is to become
    what member parents[p] is (-1: what one begins with). Selection needs it of those with owners, and has no crossover
    and no lessons for them.
    """

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """Recurrent state {name: [P, rows, ...]} at the start of an episode; an empty dict if it keeps none.

        An agent without state is trained on all steps of a fragment at once when messages carry no gradient.
        """
        ...

    def forward(self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor]) -> AgentOutput:
        """obs [P, R, O] float32, pictures in [0, 1], inbox [P, R, K, ...] -> AgentOutput."""
        ...

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """{name: [P] losses}, one number per member: the mean over the member's real rows."""
        ...
