"""Collapse: is a language dead? What was measured in an iteration goes in; which signs of it hold, in words, comes out.

Pure functions and one small state, `Watch`, which goes over an iteration's `Measures` after the other. Five signs:

- constant_speaker: a speaker uses 1.05 different messages at most (2 ** entropy of its whole messages, mean over
  speakers). The only sign that is a fact at once; all others must hold for PATIENCE iterations in a row.
- deaf_listener: actions hardly change when what is heard is swapped between worlds (mean total variation distance
  below DEAF), in the manner of causal influence (Lowe et al. 2019). It must have been measured ASKED times.
- entropy_zero: speakers' choices have no entropy left, and the return is where it began. The second half is needed
  because a good code that is spoken without fail has no entropy, too.
- entropy_maximum: speakers choose uniformly whatever they perceive, and so tell nothing. (The entropy of what they say
  altogether is never below that of their choices, so it is at its maximum, too.)
- protocol_lost: the return, or the agreement on words, has fallen to less than half of what it had gained. The gain is
  from its start (the mean of its first REFERENCE values) to its smoothed best, and counts only where it is GAIN times
  the noise of single iterations, so that no noise can be lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcomm.language.distributions import entropy
from popcomm.language.drift import whole_messages

Array = NDArray[Any]

SIGNS = ("constant_speaker", "deaf_listener", "entropy_zero", "entropy_maximum", "protocol_lost")

PATIENCE = 25  # iterations in a row
ASKED = 8  # measurements of listening in a row
ONE_MESSAGE = 1.05  # different messages of a speaker; 1 in 110 may be another one
DEAF = 0.01  # of total variation, 0 ... 1
NO_CHOICE, ALL_CHOICE = 0.01, 0.99  # of the most entropy that a message can have
REFERENCE = 5  # values that make the start of a curve
SMOOTH = 10  # values that a curve is smoothed over, exponentially
ROUGH = 50  # values that its noise is measured over
# The best of a thousand smoothed values of pure noise lies 1 to 2 deviations above its start, 4 where values are
# repeated for several iterations because no episode ended (in progress of older versions).
GAIN = 5.0  # deviations of a single iteration's value
NO_GAIN = 2.0
FEWEST_MESSAGES, FEWEST_OF_ONE = 30, 8  # that can show that a speaker always says the same: of all, of one speaker


class Measures(NamedTuple):
    """What one iteration tells; nan: not measured."""

    messages: float = math.nan  # different messages that a speaker uses, 1 or more (`messages_per_speaker`)
    listening: float = math.nan  # total variation of actions under a swap of what is heard, 0 ... 1
    entropy: float = math.nan  # of speakers' choices, as a share of the most
    returns: float = math.nan  # mean return of episodes, of all agents of a world together
    agreement: float = math.nan  # of members on words, 0 ... 1

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Measures:
        """From a line of progress.jsonl."""
        keys = (
            "language/messages_per_speaker",
            "language/listening",
            "language/message_entropy_share",
            "charts/episodic_return",
            "language/agreement",
        )
        values = (row.get(key) for key in keys)
        return cls(*(math.nan if value is None else float(value) for value in values))


class Curve(NamedTuple):
    """A number over the iterations, in what must be known of its past."""

    values: int = 0  # so far
    last: float = 0.0
    start: float = 0.0  # mean of the first REFERENCE
    smoothed: float = 0.0
    best: float = -math.inf  # of the smoothed ones
    changes: int = 0  # values that differ from the one before
    step: float = 0.0  # mean absolute difference of such a value from the one before
    lost: int = 0  # iterations in a row at less than half of the gain

    @property
    def gain(self) -> float:
        """The best above the start, in deviations of a single value; 0 before there is a best."""
        risen = self.best - self.start
        if not math.isfinite(risen) or risen <= 1e-9 * (abs(self.best) + abs(self.start)):
            return 0.0
        return risen / self.deviation if self.step else math.inf

    @property
    def deviation(self) -> float:
        """Of a single value about its trend, if it is normal: a step is 2 / sqrt(pi) of it. A fall is one step only."""
        return self.step * math.sqrt(math.pi) / 2


class Watch(NamedTuple):
    """What the signs must remember of the iterations before: curves, and for how many iterations in a row it was so."""

    returns: Curve = Curve()
    agreement: Curve = Curve()
    listening: float = math.nan
    deaf: int = 0
    asked: int = 0  # of `deaf`, those in which listening was measured anew
    still: int = 0
    noisy: int = 0


class Episode(NamedTuple):
    """A sign that held from one row of a progress to another."""

    sign: str  # one of SIGNS
    first: int
    last: int
    words: str  # what was said of it at the last one


def observe(watch: Watch, measures: Measures) -> tuple[Watch, dict[str, str]]:
    """One iteration more: the state after it, and {sign: what it means in plain words} of the signs that hold."""
    # Where iterations are short, listening is measured in a few of them and stands for the others (progress of older
    # versions repeats it there). That it is exactly 0 every time is no repetition: nobody reads messages at all.
    anew = measures.listening if measures.listening != watch.listening or measures.listening == 0 else math.nan
    listening = watch.listening if math.isnan(measures.listening) else measures.listening
    watch = Watch(
        returns=_along(watch.returns, measures.returns),
        agreement=_along(watch.agreement, measures.agreement),
        listening=listening,
        deaf=_in_a_row(watch.deaf, listening, listening < DEAF),
        asked=_in_a_row(watch.asked, anew, anew < DEAF),
        still=_in_a_row(watch.still, measures.entropy, measures.entropy <= NO_CHOICE),
        noisy=_in_a_row(watch.noisy, measures.entropy, measures.entropy >= ALL_CHOICE),
    )
    returns, agreement = watch.returns, watch.agreement
    held: dict[str, str] = {}
    if measures.messages <= ONE_MESSAGE:
        held["constant_speaker"] = "speakers always say the same"
    if watch.deaf >= PATIENCE and watch.asked >= ASKED:
        held["deaf_listener"] = "listeners do not react to messages"
    if watch.still >= PATIENCE and returns.values >= PATIENCE and returns.gain < NO_GAIN:
        held["entropy_zero"] = "speakers no longer try anything else, and the return has not risen"
    if watch.noisy >= PATIENCE:
        held["entropy_maximum"] = "speakers say anything, whatever they perceive"
    falls = [
        f"{what} fell from {form(curve.best)} to {form(curve.smoothed)}"
        for what, curve, form in (("return per world", returns, _plain), ("agreement", agreement, _share))
        if curve.lost >= PATIENCE
    ]
    if falls:
        held["protocol_lost"] = f"the language was lost: {' and '.join(falls)}"
    return watch, held


def replay(rows: Iterable[Mapping[Any, Any]]) -> Watch:
    """The state after the lines of a progress.jsonl."""
    watch = Watch()
    for row in rows:
        watch, _ = observe(watch, Measures.of(row))
    return watch


def episodes(rows: Iterable[Mapping[Any, Any]]) -> list[Episode]:
    """When which sign held, by the lines of a progress.jsonl; in the order in which they began."""
    watch, running, ended = Watch(), dict[str, Episode](), list[Episode]()
    for place, row in enumerate(rows):
        watch, held = observe(watch, Measures.of(row))
        ended += [running.pop(sign) for sign in list(running) if sign not in held]
        for sign, words in held.items():
            first = running[sign].first if sign in running else place
            running[sign] = Episode(sign, first, place, words)
    return sorted([*ended, *running.values()], key=lambda episode: (episode.first, episode.sign))


def messages_per_speaker(messages: Array, speakers: Array) -> float:
    """How many different messages a speaker uses: 2 ** (the mean over speakers of the entropy of whole messages).

    Speakers count by their messages; one with fewer than FEWEST_OF_ONE can show nothing and is left out.

    Args:
        messages: [M, L] integers, silence included.
        speakers: [M] integers.

    Returns:
        1 (everybody always says the same) or more; nan: fewer than FEWEST_MESSAGES are left.

    >>> messages_per_speaker(np.array([[1, 1], [2, 2]]).repeat(20, 0), np.array([0, 1]).repeat(20))
    1.0
    """
    _, speaker, count = np.unique(speakers, return_inverse=True, return_counts=True)
    enough = (count >= FEWEST_OF_ONE)[speaker]
    if enough.sum() < FEWEST_MESSAGES:
        return math.nan
    words = whole_messages(messages[enough])[0].ravel()
    speaker = speaker[enough]
    pairs = np.unique(speaker * (words.max() + 1) + words, return_counts=True)[1]
    # H(message | speaker) = H(message, speaker) - H(speaker) (Cover & Thomas, eq. 2.14); rounding may go below 0.
    bits = float(entropy(pairs)) - float(entropy(np.bincount(speaker)))
    return 2.0 ** max(0.0, bits)


def _along(curve: Curve, value: float) -> Curve:
    """One value more; one that was not measured, or is not finite, leaves all as it is."""
    if not math.isfinite(value):
        return curve
    values = curve.values + 1
    changes, step = curve.changes, curve.step
    # A value that is repeated was not measured anew.
    if curve.values and value != curve.last:
        changes += 1
        step += (abs(value - curve.last) - step) / min(changes, ROUGH)
    smoothed = curve.smoothed + (value - curve.smoothed) / min(values, SMOOTH)
    best = max(curve.best, smoothed) if values >= SMOOTH else curve.best
    start = curve.start + (value - curve.start) / values if values <= REFERENCE else curve.start
    after = Curve(values, value, start, smoothed, best, changes, step)
    fallen = after.gain >= GAIN and smoothed < (start + best) / 2
    return after._replace(lost=curve.lost + 1 if fallen else 0)


def _in_a_row(before: int, value: float, holds: bool) -> int:
    """How often in a row something held; an iteration in which it was not measured says nothing."""
    if math.isnan(value):
        return before
    return before + 1 if holds else 0


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _share(value: float) -> str:
    return f"{value:.0%}"
