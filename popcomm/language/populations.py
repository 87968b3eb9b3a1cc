"""Populations: do their members speak alike, do they understand one another, and is their language easily learned?"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import Messages, as_classes, as_messages, edit_distances, lengths, pairs, sample
from popcomm.language.intervals import UNKNOWN, Interval
from popcomm.language.measured import Measured

Array = NDArray[Any]

EXAMINED = 500  # pairs that a listener is examined on


class Intelligibility(NamedTuple):
    """How well S speakers are understood by L listeners, 0 ... 1. nan is only where `note` says so."""

    matrix: Array  # [S, L] float64, accuracy; nan: the two never met
    met: Array  # [S, L] bool
    mean: float  # over the pairs that met
    least: float  # of these
    diagonal: float  # mean of speaker i with listener i; nan where there are not as many speakers as listeners
    gap: float  # diagonal less the mean of the others; nan likewise
    unseen: float  # mean over the pairs that did not train together; nan: all did, or it was not said
    note: str  # what could not be said, and why


class Teaching(Measured):
    """Area under a fresh listener's accuracy, 0 ... 1."""

    curve: Array = np.zeros(0)  # [lessons + 1] accuracy after 0, 1, ... lessons


def inter_speaker_similarity(messages: ArrayLike, end_symbol: int | None = None) -> float:
    """Mean over inputs and pairs of speakers of 1 - Levenshtein distance / the longer one's length (Rita et al. 2022).

    Args:
        messages: [K, X, L] integers, what each of K speakers says of each of X inputs; -1 for what was not sent.

    Returns:
        0 ... 1; 1: all speak alike, as two who say nothing do.

    Raises:
        UserError: another shape, or fewer than two speakers.
    """
    try:
        array = np.asarray(messages)
    except ValueError as error:
        raise UserError(
            "messages must be equally long, with -1 for what was not sent, as many of each speaker"
        ) from error
    if array.ndim != 3 or array.shape[0] < 2 or not array.shape[1]:
        raise UserError(f"messages must be [speakers, inputs, length] of two speakers or more, and are {array.shape}")
    speakers, inputs = array.shape[:2]
    said = as_messages(array.reshape(speakers * inputs, -1), end_symbol)
    first, second = (rows[:, None] * inputs + np.arange(inputs) for rows in np.triu_indices(speakers, 1))
    first, second = first.ravel(), second.ravel()
    longer = np.maximum(lengths(said)[first], lengths(said)[second])
    edits = edit_distances(said, first, second)
    return float((1.0 - edits / np.maximum(longer, 1)).mean())


def mutual_intelligibility(
    accuracy: ArrayLike,
    speakers: ArrayLike | None = None,
    listeners: ArrayLike | None = None,
    trained: ArrayLike | None = None,
) -> Intelligibility:
    """Who understands whom.

    Args:
        accuracy: [S, L] of all pairs, nan where they never met, as `rollout.crossplay` gives it; or with `speakers` and
            `listeners` [M], whether (or how well) each message was understood, 0 ... 1.
        speakers, listeners: [M] integers 0 and above, who spoke and who listened.
        trained: [S, L] bool, which pairs trained together; None: not known.

    Raises:
        UserError: other shapes, values beyond 0 ... 1, or nobody met anybody.
    """
    right = np.asarray(accuracy, float)
    if (speakers is None) != (listeners is None):
        raise UserError("speakers and listeners belong together: give both, or a matrix of accuracies alone")
    if speakers is not None and listeners is not None:
        right = _by_pair(right, np.asarray(speakers), np.asarray(listeners))
    if right.ndim != 2:
        raise UserError(f"accuracy must be [speakers, listeners], or [M] with both named; its shape is {right.shape}")
    met = ~np.isnan(right)
    if not met.any():
        raise UserError("no speaker met a listener: there is no accuracy")
    if right[met].min() < 0 or right[met].max() > 1:
        raise UserError(f"accuracies must be within 0 ... 1, and reach from {right[met].min()} to {right[met].max()}")
    notes = [] if met.all() else [f"{(~met).sum()} of {met.size} pairs never met and are left out"]
    diagonal = gap = unseen = float("nan")
    own = np.equal.outer(np.arange(right.shape[0]), np.arange(right.shape[1]))
    if right.shape[0] != right.shape[1] or not met[own].any():
        notes.append("nobody listens to itself, so there is no diagonal")
    else:
        diagonal = float(right[own & met].mean())
        if (met & ~own).any():
            gap = diagonal - float(right[met & ~own].mean())
        else:
            notes.append("nobody met anybody else, so there is no gap")
    together = None if trained is None else np.asarray(trained, bool)
    if together is not None and together.shape != right.shape:
        raise UserError(f"trained has the shape {together.shape}, and accuracy {right.shape}")
    if together is None:
        notes.append("which pairs trained together was not said, so there are no unseen ones")
    elif not (apart := met & ~together).any():
        notes.append("all pairs that met trained together, so there are no unseen ones")
    else:
        unseen = float(right[apart].mean())
    each = right[met]
    return Intelligibility(right, met, float(each.mean()), float(each.min()), diagonal, gap, unseen, "; ".join(notes))


def ease_of_teaching(
    meanings: ArrayLike,
    messages: Messages,
    lessons: int = 100,
    lesson: int = 16,
    end_symbol: int | None = None,
    seed: int = 0,
) -> Teaching:
    """How fast a fresh listener learns from the frozen speaker: the area under its accuracy (Li & Bowling 2019).

    The listener is a softmax for each attribute over what stands at each position, weights zero at first, and learns by
    stochastic gradient descent. A lesson is so many messages with their meanings, drawn at random. It is examined after
    each lesson on all pairs (of more than EXAMINED on some), and is right where it has all attributes right.

    Args:
        meanings: [M, A]; messages: [M, L].
        lessons: of the course; the area is the mean over 0 ... lessons, so compare at the same number.
        lesson: pairs of a lesson.

    Returns:
        0 ... 1; where all messages are equal, the share of the commonest guess.
    """
    from scipy.special import softmax  # trainings begin without it

    meant, said = pairs(meanings, messages, end_symbol)
    if lessons < 1 or lesson < 1:
        raise UserError(f"lessons is {lessons} and lesson is {lesson}, and both must be at least 1")
    heard = np.hstack([(column[:, None] == np.unique(column)).astype(np.float32) for column in said.T])
    kinds = [int(column.max()) + 1 for column in meant.T]
    weights = [np.zeros((heard.shape[1], kind), np.float32) for kind in kinds]
    # The step at which one example alone, of L active inputs, is learned at once.
    rate, rng = 2.0 / said.shape[1], np.random.default_rng(seed)
    exam, curve = sample(len(said), EXAMINED, seed), []
    for _ in range(lessons + 1):
        answers = np.stack([(heard[exam] @ w).argmax(1) for w in weights], 1)
        curve.append((answers == meant[exam]).all(1).mean())
        rows = rng.integers(0, len(said), lesson)
        for a, w in enumerate(weights):
            wrong = np.eye(kinds[a], dtype=np.float32)[meant[rows, a]] - softmax(heard[rows] @ w, 1)
            w += rate * heard[rows].T @ wrong
    course = np.array(curve)
    return Teaching(float(course.mean()), curve=course)


def generalisation_gap(seen: ArrayLike, held_out: ArrayLike) -> Measured:
    """Accuracy on combinations that were trained on less that on held-out ones (Chaabouni et al. 2020).

    Args:
        seen: [M] right or wrong (or accuracies 0 ... 1) of combinations of the training; or one accuracy.
        held_out: [M'] of combinations whose parts were trained on, and not together.

    Returns:
        -1 ... 1; 0: new combinations are no harder. interval: 95 % (Welch 1947), as if rows were independent; nan of
        fewer than two rows, or where all are the same.
    """
    first, second = (np.atleast_1d(np.asarray(values, float)).ravel() for values in (seen, held_out))
    for name, values in (("seen", first), ("held_out", second)):
        if not len(values) or not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"{name} must hold accuracies within 0 ... 1, or right and wrong, one at least")
    interval = UNKNOWN
    if min(len(first), len(second)) > 1 and first.var() + second.var() > 0:
        from scipy.stats import ttest_ind

        told = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
        interval = Interval(float(told.low), float(told.high))
    return Measured(first.mean() - second.mean(), interval=interval)


def similarity_of_groups(groups: ArrayLike, inputs: ArrayLike, messages: Messages) -> Array:
    """Rows of a conversation as [K, X, L]: the commonest message of each group on each input that all have a word for.

    Args:
        groups, inputs: [M] integers, who spoke and of what; negative inputs are dropped.
        messages: [M, L].
    """
    said, group, seen = as_messages(messages), as_classes(groups), np.asarray(inputs)
    rows = np.flatnonzero(seen >= 0)
    word, of = as_classes(said), group * (int(seen.max(initial=0)) + 1) + seen
    first, count = np.unique(np.stack([of[rows], word[rows]], 1), axis=0, return_index=True, return_counts=True)[1:]
    most = rows[first[np.lexsort((count, of[rows][first]))]]
    last = np.append(of[most][1:] != of[most][:-1], True)[: len(most)]
    modal = most[last]
    there = np.zeros((int(group.max(initial=0)) + 1, int(seen.max(initial=0)) + 1), np.int64) - 1
    there[group[modal], seen[modal]] = modal
    shared = (there >= 0).all(0)
    return said[there[:, shared]]


def _by_pair(right: Array, speakers: Array, listeners: Array) -> Array:
    """[M] each -> mean by pair [S, L], nan where none."""
    if not right.shape == speakers.shape == listeners.shape or right.ndim != 1 or not len(right):
        raise UserError(
            f"accuracy {right.shape}, speakers {speakers.shape} and listeners {listeners.shape} must be [M], M > 0"
        )
    if min(speakers.min(), listeners.min()) < 0:
        raise UserError("speakers and listeners must be numbered from 0")
    shape = (int(speakers.max()) + 1, int(listeners.max()) + 1)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (speakers, listeners), right)
    np.add.at(count, (speakers, listeners), 1)
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
