"""Fragment: T steps of B worlds as arrays, one batch per species, whole from the env runner to the learner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from popcomm.channels import MessageKind
from popcomm.channels.messages import reparameterised
from popcomm.envs.world import Species

STATE_IN = "state_in."
EARLIER = "earlier_"
AT_ONCE = 2**16  # values of a fragment that are worked on together, where copies of all would be as large as it
# Arrays of int64, unless messages or actions are real numbers, that hold small numbers.
WHOLE_NUMBERS = ("actions", "answers", "log_sources", "members", "messages", "senders", "sent")
Place = tuple[int, int, int]
A = TypeVar("A", np.ndarray, Tensor)


class Fragment(TypedDict, Generic[A]):
    """The arrays of one species; rows are worlds. N counts its seats, K what each of them hears.

    Rows of `obs`, `values` and `first` count T + 1: the last is what follows the fragment. Rows of `messages` count
    T + 1 too: the first holds what was transmitted one step before the fragment, row t + 1 what was at step t.
    Where messages are exchanged in R rounds within a step, those are of the last round: `senders` at t say who heard
    what row t + 1 of `messages` holds. Of the R - 1 rounds before, arrays have names that begin with EARLIER, and the
    rounds as an axis after the seats.
    Recurrent state at the start has keys of the network's own, after STATE_IN: [B, N, ...] (`carried`).
    """

    obs: A  # [B, T + 1, N, O] float32, or uint8 where they are pictures
    actions: A  # [B, T, N, ...] int64, or float32 of a Box
    action_logp: A  # [B, T, N] float32, nats
    values: A  # [B, T + 1, N] float32, in reward units
    rewards: A  # [B, T, N] float32
    terminated: A  # [B, T, N] bool
    truncated: A  # [B, T, N] bool
    alive: A  # [B, T, N] bool
    first: A  # [B, T + 1, N] bool
    members: A  # [B, T, N] int64
    # Where there is a channel.
    messages: NotRequired[A]  # [B, T + 1, N, ...], as transmitted
    inbox_mask: NotRequired[A]  # [B, T, N, K] bool
    previous_obs: NotRequired[A]  # [B, N, O], one step before the fragment
    senders: NotRequired[A]  # [B, T, N, K] int64; not where there is a log
    # Where there is a log: places in it, and its entries as they were heard (`popcomm.channels.broadcast.air.Heard`).
    slots: NotRequired[A]  # [B, T, N, K] int32
    log_words: NotRequired[A]  # [B, T, L]
    log_sources: NotRequired[A]  # [B, T, L] int64
    log_direct: NotRequired[A]  # [B, T, L] bool
    message_logp: NotRequired[A]  # [B, T, N] float32, nats, of all rounds in which it went out; where it is asked for
    message_noise: NotRequired[A]  # [B, T, N, ...] float32, of reparameterised kinds
    sent: NotRequired[A]  # [B, T, N, ...], where the channel is noisy
    # Where gates or a budget ask how messages are said.
    opens: NotRequired[A]  # [B, T, N] int8, whether the message went out; -1 where nobody decided that
    haste: NotRequired[A]  # [B, T, N] float32, the logit of its priority
    manner_logp: NotRequired[A]  # [B, T, N] float32, nats, of both, of all rounds together
    earlier_messages: NotRequired[A]  # [B, T, N, R - 1, ...], where R is 2 or more; so are all of these
    earlier_senders: NotRequired[A]  # [B, T, N, R - 1, K] int64
    earlier_inbox_mask: NotRequired[A]  # [B, T, N, R - 1, K] bool
    earlier_message_noise: NotRequired[A]  # [B, T, N, R - 1, ...] float32
    earlier_sent: NotRequired[A]  # [B, T, N, R - 1, ...]
    voiced: NotRequired[A]  # [B, T, N] bool, where the world says who may speak
    open_symbols: NotRequired[A]  # [B] int64, how many could be said, the same in all; where a vocabulary grows
    action_mask: NotRequired[A]  # [B, T, N, A] bool, where the world says what is allowed
    answers: NotRequired[A]  # [B, T, N, ...] int64, where they are learned from
    world_state: NotRequired[A]  # [B, T, S] float32, the same array for all species; where somebody reads it
    # What a learner adds.
    advantages: NotRequired[A]  # [B, T, N] float32
    value_targets: NotRequired[A]  # [B, T, N] float32, in reward units
    targets: NotRequired[A]  # [B, T, N] float32, the same in the units of the value network
    worth: NotRequired[A]  # [B, T, N, A] float32, of each action to a joint critic, in deviations of the returns
    message_advantages: NotRequired[A]  # [B, T, N] float32, where messages are credited apart from actions
    known: NotRequired[A]  # [B, T, N] bool, rows whose messages' doing is known, where values are of messages alone


def plain(fragment: Fragment[A]) -> dict[str, A]:
    """The same arrays, for those who look at them by a key that they compute."""
    return cast("dict[str, A]", fragment)


def mapped(fragment: Fragment[np.ndarray] | Fragment[Tensor], change: Callable[..., A]) -> Fragment[A]:
    """The same keys, with what `change` makes of every array."""
    return cast("Fragment[A]", {key: change(values) for key, values in fragment.items()})


def said_in(fragment: Fragment[A]) -> A:
    """What was said at each step of a fragment, before the channel's noise: [B, T, N, ...]."""
    return fragment["sent"] if "sent" in fragment else fragment["messages"][:, 1:]


def parts_of(steps: int, rows: int) -> Iterator[slice]:
    """Steps in parts of at most AT_ONCE values, one step at least. rows: values of a step."""
    many = max(1, AT_ONCE // max(rows, 1))
    return (slice(start, min(start + many, steps)) for start in range(0, steps, many))


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays [B, T, N_s, ...] of species side by side; that of one alone is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 2)


def open_symbols(fragment: Fragment[A]) -> int | None:
    """How many symbols could be said in it; None: all. The clock of all runners stands still within an iteration."""
    return int(fragment["open_symbols"][0]) if "open_symbols" in fragment else None


def carried(fragment: Fragment[A]) -> dict[str, A]:
    """{name: [B, N, ...]}, the recurrent state at the start."""
    return {key.removeprefix(STATE_IN): a for key, a in plain(fragment).items() if key.startswith(STATE_IN)}


@dataclass(frozen=True)
class FragmentLayout:
    """What decides the arrays of a fragment, beside the species' own sizes."""

    num_worlds: int
    length: int
    messages: MessageKind | None
    inbox_size: int
    noisy: bool
    """Whether what was transmitted differs from what was sent, so that both are kept."""
    acts_by_message: bool = False
    """Whether messages are actions (gradient "reinforce"), so that their log-probabilities are kept."""
    takes_turns: bool = False
    """Whether the world says who may speak in a step, so that this is kept."""
    supervised: bool = False
    """Whether actions are learned from the world's answers, so that these are kept."""
    capacity: int = 0
    """L, entries of a world's log of transmissions; 0 where there is none."""
    rounds: int = 0
    """R, in which messages are exchanged within a step; 0: they are heard in the next one."""
    manners: bool = False
    """Whether it is decided if messages go out, or how urgent they are."""
    open_symbols: int | None = None
    """How many symbols may be said; None: all, always."""


def action_array(space: spaces.Space, leading: tuple[int, ...]) -> np.ndarray:
    """An empty array for actions: int64 [*leading] or [*leading, k] if discrete, float32 [*leading, d] for a Box."""
    if isinstance(space, spaces.Box):
        return np.empty((*leading, *space.shape), np.float32)
    return np.empty((*leading, *space.shape), np.int64)


def allocate(species: Species, layout: FragmentLayout) -> Fragment[np.ndarray]:
    """Empty arrays for one species."""
    b, t, n = layout.num_worlds, layout.length, species.num_seats
    seen = np.uint8 if species.obs_dtype == torch.uint8 else np.float32
    arrays: Fragment[np.ndarray] = {
        "obs": np.empty((b, t + 1, n, species.obs_size), seen),
        "actions": action_array(species.action_space, (b, t, n)),
        "action_logp": np.empty((b, t, n), np.float32),
        "values": np.empty((b, t + 1, n), np.float32),
        "rewards": np.empty((b, t, n), np.float32),
        "terminated": np.empty((b, t, n), np.bool_),
        "truncated": np.empty((b, t, n), np.bool_),
        "alive": np.empty((b, t, n), np.bool_),
        "first": np.empty((b, t + 1, n), np.bool_),
        "members": np.empty((b, t, n), np.int64),
    }
    if layout.messages is not None:
        _allocate_messages(arrays, layout.messages, species, layout)
    if species.has_action_mask:
        actions = species.action_space
        size = int(actions.n) if isinstance(actions, spaces.Discrete) else int(actions.nvec.sum())
        arrays["action_mask"] = np.empty((b, t, n, size), np.bool_)
    if layout.supervised and species.has_answers:
        arrays["answers"] = action_array(species.action_space, (b, t, n))
    return arrays


def _allocate_messages(
    arrays: Fragment[np.ndarray], kind: MessageKind, species: Species, layout: FragmentLayout
) -> None:
    """Add empty arrays for what one species says and hears."""
    b, t, n = layout.num_worlds, layout.length, species.num_seats
    dtype = torch.empty(0, dtype=kind.dtype).numpy().dtype
    arrays["messages"] = np.empty((b, t + 1, n, *kind.shape), dtype)
    if layout.acts_by_message and species.speaks:
        arrays["message_logp"] = np.empty((b, t, n), np.float32)
    if reparameterised(kind) and species.speaks:
        arrays["message_noise"] = np.empty((b, t, n, *kind.noise_shape), np.float32)  # type: ignore[attr-defined]
    if layout.capacity:
        arrays["slots"] = np.empty((b, t, n, layout.inbox_size), np.int32)
        arrays["log_words"] = np.empty((b, t, layout.capacity), dtype)
        arrays["log_sources"] = np.empty((b, t, layout.capacity), np.int64)
        arrays["log_direct"] = np.empty((b, t, layout.capacity), np.bool_)
    else:
        arrays["senders"] = np.empty((b, t, n, layout.inbox_size), np.int64)
    arrays["inbox_mask"] = np.empty((b, t, n, layout.inbox_size), np.bool_)
    arrays["previous_obs"] = np.empty((b, n, species.obs_size), arrays["obs"].dtype)
    if layout.open_symbols is not None:
        arrays["open_symbols"] = np.full(b, layout.open_symbols, np.int64)
    if layout.takes_turns:
        arrays["voiced"] = np.empty((b, t, n), np.bool_)
    if layout.noisy:
        arrays["sent"] = np.empty((b, t, n, *kind.shape), dtype)
    if layout.manners and species.speaks:
        arrays["opens"] = np.empty((b, t, n), np.int8)
        arrays["haste"], arrays["manner_logp"] = (np.empty((b, t, n), np.float32) for _ in range(2))
    if layout.rounds > 1:
        plain(arrays).update(_earlier(arrays, (b, t, n, layout.rounds - 1)))


def _earlier(arrays: Fragment[np.ndarray], leading: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Empty arrays [B, T, N, R - 1, ...] for what is said and heard in the rounds before the last."""
    keys = ("messages", "senders", "inbox_mask", "message_noise", "sent", "opens", "haste")
    kept = {key: values for key, values in plain(arrays).items() if key in keys}
    return {EARLIER + key: np.empty((*leading, *v.shape[3:]), v.dtype) for key, v in kept.items()}


def as_tensors(arrays: Fragment[np.ndarray]) -> Fragment[Tensor]:
    """The same memory as torch tensors."""
    return mapped(arrays, torch.from_numpy)


class Steps:
    """Arrays [B, T, ...] as [T, B, ...], copied when first asked for: the rows of a step are then a view."""

    def __init__(self, arrays: Fragment[Tensor]) -> None:
        self.arrays = plain(arrays)
        self._known: dict[str, Tensor] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.arrays

    def at(self, t: int, key: str) -> Tensor:
        """[B, ...], row t."""
        if key not in self._known:
            self._known[key] = self.arrays[key].transpose(0, 1).contiguous()
        return self._known[key][t]

    def said_at(self, t: int, before: int = 0) -> Tensor:
        """[B, N, ...], what was said at step t, before the channel's noise, so many rounds before the last."""
        return self.of_round(t, "sent" if "sent" in self else "messages", before)

    def of_round(self, t: int, key: str, before: int) -> Tensor:
        """[B, N, ...], a row of what was said in step t or heard of it, so many rounds before the last."""
        if before:
            return self.at(t, EARLIER + key)[:, :, -before]
        if key == "messages":  # its last T rows
            t += self.arrays[key].shape[1] - self.arrays["alive"].shape[1]
        return self.at(t, key)


def as_batch(fragments: Mapping[str, Fragment[np.ndarray]], env_steps: int) -> MultiAgentBatch:
    """The batch that travels by reference to the learners."""
    return MultiAgentBatch({name: SampleBatch(arrays) for name, arrays in fragments.items()}, env_steps=env_steps)


def packed(batch: MultiAgentBatch) -> MultiAgentBatch:
    """For the way to the learners: symbols, seats, members and actions in one byte or two, where these hold them.

    `widened` undoes it. Most of a fragment with messages are such numbers, and int64 has eight bytes for each.
    """
    parts = {
        name: SampleBatch({key: _small(array) if key in WHOLE_NUMBERS else array for key, array in part.items()})
        for name, part in batch.policy_batches.items()
    }
    return MultiAgentBatch(parts, env_steps=batch.env_steps())


def _small(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.int64 or not array.size:
        return array
    least, most = int(array.min()), int(array.max())
    for kind in (np.uint8, np.int16):
        if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def widened(key: str, values: Tensor) -> Tensor:
    """An array of `packed` as the learner computes with it."""
    return values.long() if key in WHOLE_NUMBERS and values.dtype in (torch.uint8, torch.int16) else values


def not_finite(fragments: Mapping[str, Fragment[np.ndarray]], keys: Sequence[str]) -> tuple[str, str, Place] | None:
    """The first number of those arrays that is not finite: its species, its key, and where it is: world, step, seat.

    None where all are, which costs a sum.
    """
    for name, fragment in fragments.items():
        arrays = plain(fragment)
        for key in keys:
            # Large numbers may have no finite sum.
            if math.isfinite(arrays[key].sum()) or np.isfinite(arrays[key]).all():
                continue
            world, step, seat = np.argwhere(~np.isfinite(arrays[key]))[0, :3].tolist()
            return name, key, (world, step, seat)
    return None


def nbytes(batch: MultiAgentBatch) -> int:
    """Bytes of all arrays of a batch; one that several species share counts once."""
    arrays = {id(array): array for part in batch.policy_batches.values() for array in part.values()}
    return sum(array.nbytes for array in arrays.values())


def take_rows(batches: Sequence[MultiAgentBatch], start: int, stop: int) -> dict[str, Fragment[np.ndarray]]:
    """Rows start ... stop - 1 of the batches joined along the worlds; copies only where a joint is crossed.

    What species share in the batches they share here.
    """
    names = batches[0].policy_batches.keys()
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    shared: dict[int, np.ndarray] = {}
    offset = 0
    for batch in batches:
        rows = len(next(iter(next(iter(batch.policy_batches.values())).values())))
        low, high = max(start - offset, 0), min(stop - offset, rows)
        offset += rows
        if low >= high:
            continue
        for name in names:
            for key, array in batch.policy_batches[name].items():
                parts[name].setdefault(key, []).append(shared.setdefault(id(array), array[low:high]))
    joined: dict[tuple[int, ...], np.ndarray] = {}
    for keys in parts.values():
        for pieces in keys.values():
            name_of = tuple(map(id, pieces))
            if name_of not in joined:
                joined[name_of] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return {
        name: cast("Fragment[np.ndarray]", {key: joined[tuple(map(id, pieces))] for key, pieces in keys.items()})
        for name, keys in parts.items()
    }
