"""Speaking: do speakers have a choice of messages, and do they use it?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from popcomm.channels import MessageKind, Symbols, Words
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.envs.world import Species
from popcomm.language.collapse import messages_per_speaker
from popcomm.rllib.fragment import Fragment, joined, said_in

# Messages of one iteration that are looked at.
SAMPLE = 4096
OPEN = 40.0  # a logit of what is sure


def speaking(
    fragments: Mapping[str, Fragment[np.ndarray]],
    speakers: Sequence[Species],
    labels: Sequence[Tensor],
    kind: MessageKind,
) -> dict[str, float]:
    """What speakers do with their messages in a fragment.

    A speaker is a member, or a seat where all seats have the same weights. Where the world labels what agents perceive,
    only what was said of something counts: who has nothing to tell may well say the same each time.

    Args:
        fragments: {species: arrays of `fragment.allocate`}.
        speakers: the species that speak, one at least.
        labels: T of [B, N] int64, or none.
        kind: of the messages; with an alphabet.

    Returns:
        {"messages_per_speaker": how many different messages, silence included; left out where there are too few
        messages to tell, "voiced": share of the steps of agents that live in which they may speak; left out where they
        always may}
    """
    arrays = [fragments[s.name] for s in speakers]
    result = {}
    if any("voiced" in a for a in arrays):
        lived = sum(a["alive"].sum() for a in arrays)
        spoke = sum((a["alive"] & a.get("voiced", True)).sum() for a in arrays)
        result["voiced"] = float(spoke / max(lived, 1))
    worlds, steps = arrays[0]["alive"].shape[:2]
    enough = -(-SAMPLE // (steps * sum(s.num_seats for s in speakers)))
    rows = np.unique(np.linspace(0, worlds - 1, min(worlds, enough)).astype(int))
    counts = np.concatenate([(a["alive"] & a.get("voiced", True))[rows] for a in arrays], 2)
    seats = np.concatenate([np.arange(s.start, s.stop) for s in speakers])
    if labels:
        told = counts & (torch.stack([step[rows][:, seats] for step in labels], 1).cpu().numpy() >= 0)
        counts = told if told.any() else counts
    said = torch.from_numpy(joined([said_in(a)[rows] for a in arrays])[counts])
    messages = (kind.as_symbols(said) if kind.shape else said.unsqueeze(1)).numpy()
    different = messages_per_speaker(messages, _who(arrays, rows, seats)[counts])
    return result if math.isnan(different) else {"messages_per_speaker": different, **result}


def _who(arrays: Sequence[Fragment[np.ndarray]], rows: np.ndarray, seats: np.ndarray) -> np.ndarray:
    """A number for the speaker of each message, [B', T, N_s]: its member's, or its seat's below all of them."""
    parts, offset, done = [], 0, 0
    for a in arrays:
        members = a["members"][rows]
        there = seats[done : done + members.shape[2]]
        several = int(a["members"].max()) + 1
        # Members of different species are different.
        parts.append(members + offset if several > 1 else np.broadcast_to(-1 - there, members.shape))
        offset, done = offset + several, done + members.shape[2]
    return np.concatenate(parts, 2)


def most_entropy(kind: MessageKind) -> float:
    """The most entropy (nats) that a whole message can have; nan: a kind without an alphabet or a choice.

    It is what equal logits give. Words of bits are not all equally likely then, but their bits are drawn blindly, and
    the speak gate is open.
    """
    if kind.alphabet is None:
        return math.nan
    if isinstance(kind, Symbols | RelaxedSymbols) and kind.ends:  # that the end is likelier where less may follow
        return math.log(kind.count)
    params = torch.zeros(1, *kind.params_shape)
    if isinstance(kind, Words) and kind.vocab is None and kind.speak_gate:
        params[..., -1] = OPEN
    return float(kind.entropy(params)) or math.nan  # bits without noise have no distribution
