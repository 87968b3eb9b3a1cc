"""A run folder made by hand: a code for labels, an order in time, two hubs, and parts that can be left out.

Where there are as many members as seats, and one species, they are dealt to the seats of each world anew; otherwise
they keep their seats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from popcomm.channels import KNearest
from popcomm.language import progress
from popcomm.language.recording import conversation_path, heard_by, write_conversations

SIZE = 10.0
HUBS = (3, 7)


def make_run(
    folder: Path,
    kind: str | None = "symbols",
    iterations: int = 40,
    steps: int = 24,
    worlds: int = 4,
    agents: int = 10,
    k: int = 4,
    vocab: int = 64,
    attention: bool = True,
    species: tuple[str, ...] = ("swarm",),
    positions: bool = True,
    conversations: bool = True,
    members: int | None = None,
    length: int = 5,
) -> Path:
    """Write config.yaml, progress.jsonl and one part of conversations; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    messages = {
        "symbols": {"kind": "symbols", "vocab_size": vocab, "length": length},
        "vectors": {"kind": "vectors", "size": 8},
    }
    config = {
        "environment": {"env": "swarm_v0", "env_config": {"num_agents": agents}},
        "communication": {
            "messages": messages.get(kind or ""),
            "topology": {"kind": "k_nearest", "k": k},
            "gradient": "straight_through",
        },
        "population": {"agent": "symbolic", "members": members or agents},
        "training": {"lr": 0.001, "gamma": 0.99, "clip_param": 0.2},
        "debugging": {"seed": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for iteration in range(1, iterations + 1):
        progress.append(folder / "progress.jsonl", _measured(iteration, iterations, agents, kind, attention))
    if conversations:
        columns = _talk(kind, steps, worlds, agents, k, vocab, attention, species, members or agents, length)
        columns |= {
            "iteration": np.full(len(columns["sender"]), iterations),
            "env_steps": np.full(len(columns["sender"]), iterations * 4096),
        }
        if not positions:
            columns.pop("position")
        write_conversations(conversation_path(folder, iterations), columns, (SIZE, SIZE) if positions else None)
    return folder


def _measured(iteration: int, last: int, agents: int, kind: str | None, attention: bool) -> dict[str, float]:
    rng = np.random.default_rng(iteration)
    done = iteration / max(last, 2)
    learned = 1 - np.exp(-4 * done)
    noise = rng.normal(size=12)
    row = {
        "iteration": iteration,
        "env_steps": iteration * 4096,
        "agent_steps": iteration * 4096 * agents,
        "time_s": 2.4 * iteration,
        "charts/agent_episodic_return": float("nan") if iteration < 3 else -4 + 9 * learned + 0.4 * noise[0],
        "charts/SPS": 1700 + 60 * noise[1],
        "charts/agent_SPS": (1700 + 60 * noise[1]) * agents,
        "losses/policy_loss": -0.01 + 0.004 * noise[2],
        "losses/value_loss": 0.8 * np.exp(-3 * done) + 0.05 + 0.02 * abs(noise[3]),
        "losses/entropy": 1.6 - 0.9 * learned + 0.02 * noise[4],
        "losses/approx_kl": 0.008 + 0.002 * noise[5],
        "losses/clipfrac": 0.09 + 0.02 * noise[6],
        "losses/explained_variance": -6 if iteration == 1 else 0.9 * learned + 0.02 * noise[7],
    }
    row["charts/episodic_return"] = row["charts/agent_episodic_return"] * agents
    if kind is not None:
        row |= {
            "losses/message_entropy": 20.8 - 9 * learned,
            "losses/world_model": 1.1 - 0.7 * learned,
            "losses/world_r2": 0.7 * learned,
        }
        row |= {"losses/reconstruction": 0.9 - 0.5 * learned, "losses/prediction": 0.5 - 0.3 * learned}
    if kind == "symbols":
        row |= {
            "language/symbol_entropy": 6 - 1.7 * learned + 0.03 * noise[8],
            "language/vocabulary_used": 1 - 0.4 * learned,
        }
        row |= {"language/mutual_information": 1.3 * learned + 0.05 * noise[9]}
    if kind is not None and attention:
        row |= {"language/top_attention": 0.25 + 0.2 * learned + 0.01 * noise[10]}
    return row


def _talk(
    kind: str | None, steps: int, worlds: int, agents: int, k: int, vocab: int, attention: bool,
    species: tuple[str, ...], members: int, length: int,
) -> dict:  # fmt: skip
    rng = np.random.default_rng(0)
    shape = (worlds, steps, agents)
    grid = [a.ravel() for a in np.meshgrid(*map(np.arange, shape), indexing="ij")]
    walk = rng.uniform(0, SIZE, (worlds, 1, agents, 2)) + np.cumsum(rng.normal(0, 0.15, (*shape, 2)), 1)
    place = np.mod(walk, SIZE).astype(np.float32)
    cell = (place // (SIZE / 4)).astype(int)
    label = np.where(rng.random(shape) < 0.6, cell[..., 0] * 4 + cell[..., 1], -1)
    who = np.tile((np.arange(agents) * members) // agents, (worlds, 1))  # member on each seat
    dealt = members == agents and len(species) == 1
    if dealt:
        who = np.random.default_rng(1).permuted(who, axis=1)
    odd = who if dealt else np.tile(np.arange(agents), (worlds, 1))  # whose ways go with whom
    member = np.broadcast_to(who[:, None], shape).ravel()
    columns = {
        "world": grid[0], "episode": np.zeros_like(grid[0]), "step": grid[1], "sender": grid[2], "member": member,
        "species": [species[seat * len(species) // agents] for seat in grid[2]],
        "label": label.ravel(), "observation": rng.normal(size=(place[..., 0].size, 6)).astype(np.float32),
        "position": place.reshape(-1, 2), "action": rng.integers(0, 5, (place[..., 0].size, 1)),
        "reward": rng.normal(size=place[..., 0].size),
    }  # fmt: skip
    if kind == "symbols":
        columns["symbols"] = _symbols(rng, label, vocab, length, odd).reshape(-1, length)
    if kind == "vectors":
        columns["vector"] = rng.normal(size=(place[..., 0].size, 8)).astype(np.float32)
    if kind is not None:
        columns["message_entropy"] = rng.uniform(8, 12, place[..., 0].size)
        columns["receivers"], columns["weights"] = _heard(rng, place, k, attention, odd)
    return columns


def _symbols(rng: np.random.Generator, label: np.ndarray, vocab: int, length: int, odd: np.ndarray) -> np.ndarray:
    """Position 1 is Zipf noise, 2 a code for the label, 3 a chain in time; member 4 has a dialect. [W, T, N, L]."""
    zipf = 1 / np.arange(1, vocab + 1) ** 1.1
    zipf[int(0.6 * vocab) :] = 0
    symbols = rng.choice(vocab, (*label.shape, length), p=zipf / zipf.sum())
    if length > 1:
        clear = (label >= 0) & (rng.random(label.shape) < 0.8)
        symbols[..., 1] = np.where(clear, (label * 2 + 3) % vocab, symbols[..., 1])
    if length > 2:
        for t in range(1, label.shape[1]):
            goes_on = rng.random(label.shape[::2]) < 0.6
            symbols[:, t, :, 2] = np.where(
                goes_on, (symbols[:, t - 1, :, 2] * 3 + 1) % (vocab // 4), symbols[:, t, :, 2]
            )
    return np.where((odd == 4)[:, None, :, None], (symbols + 5) % vocab, symbols)


def _heard(
    rng: np.random.Generator, place: np.ndarray, k: int, attention: bool, odd: np.ndarray
) -> tuple[list, list | None]:
    """Receivers and weights row by row; nothing is heard after the last step."""
    worlds, steps, agents, _ = place.shape
    flat = torch.as_tensor(place.reshape(-1, agents, 2))
    links = KNearest(k).connect(torch.ones(flat.shape[:2], dtype=torch.bool), flat, (SIZE, SIZE))
    senders, mask = links.senders.numpy(), links.mask.numpy().copy()
    heard = odd.repeat(steps, 0)[np.arange(len(senders))[:, None, None], senders]
    logits = rng.normal(0, 0.4, senders.shape) + 1.5 * np.isin(heard, HUBS)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mask.reshape(worlds, steps, agents, k)[:, -1] = False
    return heard_by(senders, mask, weights if attention else None)
