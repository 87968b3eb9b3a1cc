"""What scripted troops earn in alarm_v0, exactly: the lines that learned ones are held against."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from popcomm.envs.alarm_v0 import AlarmWorld


class References(NamedTuple):
    """Expected reward per agent and step of an episode. Talk is not charged for."""

    forage: float  # all forage always: the best that can be done without knowing anything, where `flee` is less
    flee: float  # all flee always, in one and the same way
    watch: float  # those who see an event flee as fits it, while they see it; all else is foraging
    hear: float  # all flee too in the steps that follow a glimpse: words are heard once, and not remembered
    told: float  # all flee from the step after the first glimpse to the event's end: nothing better is possible


def phase_shares(duration: int, event_rate: float, steps: int) -> np.ndarray:
    """Expected share of an episode's steps that are calm [0], or the j-th of an event [j]: [duration + 1], sum 1.

    An episode opens in calm. The phases are a Markov chain, so the shares are the mean of its distributions at the
    steps 0 ... steps - 1. In long episodes calm has the share 1 / (1 + event_rate * duration), and each step of an
    event event_rate times as much (renewal theorem).

    >>> phase_shares(2, 1.0, 6).tolist()  # calm, first, second, calm, first, second
    [0.3333333333333333, 0.3333333333333333, 0.3333333333333333]
    """
    moves = np.zeros((duration + 1, duration + 1))
    moves[0, 0], moves[0, 1] = 1 - event_rate, event_rate
    moves[np.arange(1, duration), np.arange(2, duration + 1)] = 1.0
    moves[duration, 0] += 1.0
    now, total = np.eye(duration + 1)[0], np.zeros(duration + 1)
    for _ in range(steps):
        total += now
        now = now @ moves
    return total / steps


def references(world: AlarmWorld) -> References:
    """The expected rewards of scripted troops in such a world.

    With c the share of calm steps, e_j that of the j-th steps of events, e their sum, f the share of watchers and g the
    steps of a glimpse: forage = c * forage_reward; flee = e (flight_reward - (E - 1) wrong_penalty) / E
    - c * alarm_penalty; watch = forage + f (e_1 + ... + e_g) flight_reward; in hear and told, whoever is told earns
    flight_reward in steps 2 ... g + 1, and 2 ... duration, and watchers do in 1 ... g as before.
    """
    shares = phase_shares(world.duration, world.event_rate, world.episode_length)
    calm, event = shares[0], shares[1:]
    kinds, watching = world.num_labels, world.watchers / world.num_agents
    forage = calm * world.forage_reward
    guess = (world.flight_reward - (kinds - 1) * world.wrong_penalty) / kinds
    informed = {name: np.zeros(world.duration) for name in ("watch", "hear", "told")}
    for share in informed.values():
        share[: world.glimpse] = watching
    informed["hear"][1 : world.glimpse + 1] = 1.0
    informed["told"][1:] = 1.0
    earned = {name: float(forage + (event * share).sum() * world.flight_reward) for name, share in informed.items()}
    return References(float(forage), float(event.sum() * guess - calm * world.alarm_penalty), **earned)
