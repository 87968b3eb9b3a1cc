"""Probes: how much of the world's state is in messages, asked after training, of episodes that no probe has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from popcomm.language.nulls import share_as_large

Array = NDArray[Any]

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
SHIFTS = 39  # controls; the smallest p-value is 1 / (SHIFTS + 1)
HIDDEN, EPOCHS, BATCH, PATIENCE, RATE = 64, 40, 256, 5, 2e-3
FLAT = 1e-8  # variance below which a number of the state does not vary


class Probed(NamedTuple):
    """What a ridge regression came to on episodes that it had not seen."""

    r2: Array  # [D], of each number of the state
    mean: float  # of those that vary, as `agents.losses.r_squared` has it
    control: float  # the mean over the controls
    highest: float  # of the controls
    p_value: float  # share of the controls, and of the data themselves, that are as high


def one_hot(messages: Array, symbols: int) -> Array:
    """[..., N, L] integers -> [..., N * L * V] float32: what stands at each position of what each seat said."""
    told = messages[..., None] == np.arange(symbols)
    return told.reshape(*messages.shape[:-2], -1).astype(np.float32)


def parts_of(episodes: int) -> tuple[Array, Array, Array]:
    """Episodes to fit on, to choose a probe by, and to examine it with: three fifths, a fifth, a fifth; [e] each."""
    first, second = (round(episodes * share) for share in (0.6, 0.8))
    every = np.arange(episodes)
    return every[:first], every[first:second], every[second:]


def shifted(episodes: int, shifts: int) -> Array:
    """[shifts, E], for each episode another one whose state takes the place of its own: within each of `parts_of`.

    Steps stay in their order, so that how slowly messages and states change, and how both change in the course of an
    episode, is as it was.
    """
    steps = np.arange(1, shifts + 1)[:, None]
    return np.concatenate([part[(part - part[0] + 1 + (steps - 1) % (len(part) - 1)) % len(part)]
                           for part in parts_of(episodes)], 1)  # fmt: skip


def r_squared(predicted: Array, state: Array) -> Array:
    """1 - squared error / squared deviation from the mean: [..., D] each -> [D]; 0 of what does not vary."""
    flat = state.reshape(-1, state.shape[-1]).astype(np.float64)
    error = ((predicted.reshape(flat.shape) - flat) ** 2).sum(0)
    spread = ((flat - flat.mean(0)) ** 2).sum(0)
    return np.where(spread > FLAT * len(flat), 1 - error / np.maximum(spread, FLAT), 0.0)


def mean_of(r2: Array, state: Array) -> float:
    """Over the numbers that vary; 0 where none does."""
    varying = state.reshape(-1, state.shape[-1]).var(0) > FLAT
    return float(r2[varying].mean()) if varying.any() else 0.0


def ridge(features: Array, state: Array, shifts: int = SHIFTS) -> Probed:
    """A ridge regression from what was said in a step to the state of the world in it, and the same on controls.

    The penalty is chosen on episodes of their own, of each control by itself, from PENALTIES.

    Args:
        features: [E, T, F], E episodes of T steps, at least 10.
        state: [E, T, D].
        shifts: controls, in which episodes have the states of others (`shifted`).
    """
    episodes, _, size = state.shape
    fit, choose, ask = parts_of(episodes)
    orders = np.concatenate([np.arange(episodes)[None], shifted(episodes, shifts)])
    states = state[orders].transpose(1, 2, 0, 3).reshape(episodes, -1, len(orders) * size)  # [E, T, (1 + shifts) D]
    x, y = (values[fit].reshape(-1, values.shape[-1]).astype(np.float64) for values in (features, states))
    centre, level = x.mean(0), y.mean(0)
    gram, moments = (x - centre).T @ (x - centre), (x - centre).T @ (y - level)
    best, found = np.full(len(orders), -np.inf), np.zeros((len(orders), size))
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), moments)
        scores = [
            r_squared((features[part] - centre) @ weights + level, states[part]).reshape(len(orders), size)
            for part in (choose, ask)
        ]
        better = scores[0].mean(1) > best
        best, found = np.where(better, scores[0].mean(1), best), np.where(better[:, None], scores[1], found)
    means = np.array([mean_of(row, state[ask]) for row in found])
    controls = means[1:]
    return Probed(found[0], means[0], float(controls.mean()), float(controls.max()), share_as_large(means[0], controls))


def network(features: Array, state: Array, seed: int = 0) -> Array:
    """The same with a hidden layer: [D] R2 of a perceptron that stops when other episodes get no better.

    Args:
        features: [E, T, F] float32; state: [E, T, D].
    """
    chance = torch.Generator().manual_seed(seed)
    parts = [
        tuple(torch.from_numpy(v[part].reshape(-1, v.shape[-1]).astype(np.float32)) for v in (features, state))
        for part in parts_of(len(state))
    ]
    (x, y), (x_choose, y_choose), (x_ask, _) = parts
    level, scale = y.mean(0), y.std(0).clamp_min(FLAT**0.5)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        probe = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, y.shape[1]))
    optimizer = torch.optim.Adam(probe.parameters(), RATE)
    best, kept, waited = float("inf"), torch.zeros(0), 0
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=chance).split(BATCH):
            loss = ((probe(x[rows]) - (y[rows] - level) / scale) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = float(((probe(x_choose) - (y_choose - level) / scale) ** 2).mean())
            waited += 1
            if error < best:
                best, kept, waited = error, probe(x_ask) * scale + level, 0
        if waited == PATIENCE:
            break
    return r_squared(kept.numpy(), state[parts_of(len(state))[2]].reshape(kept.shape))


def of_group(r2: Sequence[float], group: slice) -> float:
    """The mean of some numbers of the state."""
    return float(np.mean(np.asarray(r2, float)[group]))
