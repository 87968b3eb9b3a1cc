"""Why an attempt at a training failed: a process or a node was lost, or what is trained raised an error of its own.

A lost machine is no reason why another attempt should fail. Code that raised would raise again.
"""

from __future__ import annotations

from ray.exceptions import RayActorError, RayError, RayTaskError, UnserializableException, UserCodeException

from popcomm.errors import LostError
from popcomm.rllib.harvest import NoSamplesError, SamplingError

# Of Ray, for what code raised and Ray could not bring along.
RAISED_BY_CODE = (UnserializableException, UserCodeException)
# Whose text ends with the traceback of another process, and so with a class and what it said.
WITH_TRACEBACK = (NoSamplesError, RayError, SamplingError)


def is_loss(error: BaseException) -> bool:
    """Whether a process, a node, or what one of them held was lost; else code of an environment, an agent or a callback
    raised, or a config does not fit it."""
    if isinstance(error, RayTaskError):
        return is_loss(error.cause)
    if isinstance(error, NoSamplesError):
        # Samples that fail to come may be late, or their runners lost, unless an environment raised.
        return error.__cause__ is None or is_loss(error.__cause__)
    if isinstance(error, RayActorError):
        return not error.actor_init_failed  # its constructor raised
    # RayError itself stands for an error that could not be pickled.
    of_ray = isinstance(error, RayError) and type(error) is not RayError and not isinstance(error, RAISED_BY_CODE)
    return isinstance(error, LostError) or of_ray


def says_what_is_lost(error: BaseException) -> bool:
    """Whether a loss is told in words of popcomm's own."""
    return isinstance(error, (LostError, NoSamplesError))


def last_line(error: BaseException) -> str:
    """What an error says last, with its class.

    >>> last_line(ValueError("no road:\\n  from a to b\\n"))
    'ValueError: from a to b'
    """
    said = error.cause if isinstance(error, RayTaskError) else error
    lines = [" ".join(line.split()) for line in str(said).splitlines() if line.strip()]
    if isinstance(said, WITH_TRACEBACK) and lines:
        return lines[-1]
    return ": ".join([type(said).__name__, *lines[-1:]])
