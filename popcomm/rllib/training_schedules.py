"""What a schedule drives beside reflexes and topologies: losses of the network, mutation, the pressure of selection."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from popcomm.channels import Channel
from popcomm.channels.kinds import told_apart
from popcomm.checks import share
from popcomm.errors import UserError, unknown
from popcomm.rllib.settings import Settings
from popcomm.schedules import Clock, Gated, Schedule, make_schedule, refuse_load

MUTATION, PRESSURE, LOSS = "mutation", "pressure", "loss/"
# {name: where a config says it}; losses follow, by name.
KEYS = {MUTATION: "survival.mutation_schedule", PRESSURE: "survival.pressure"}
# The rise of a sharpness that a config leaves open, among the losses: no loss that could be given a schedule.
SHARPENING = "sharpening"
# Measures that fades may look at where the world labels what agents perceive.
OF_LABELS = ("agreement", "jargon")


class TrainingSchedules:
    """The schedules of a training, kept by its driver and following its clock.

    Args:
        settings: which say what they drive.
        sharpening: how the sharpness of messages rises that they leave open (`Plan.sharpening`); None: it does not.

    Raises:
        UserError: what is given is no schedule.
    """

    def __init__(self, settings: Settings, sharpening: Schedule | None = None) -> None:
        given: dict[str, Any] = {}
        if settings.survival_strategy is not None:
            given = {MUTATION: settings.mutation_schedule, PRESSURE: settings.survival_pressure}
        losses = settings.loss_schedules or {}
        if not isinstance(losses, Mapping):
            raise UserError(f"training.loss_schedules is {losses!r}, and must be a mapping of losses to schedules")
        given |= {f"{LOSS}{name}": value for name, value in losses.items()}
        # Their own: schedules remember, and the config may make another training.
        self._all = {name: _own(key_of(name), value) for name, value in given.items() if value is not None}
        if sharpening is not None:
            self._all[f"{LOSS}{SHARPENING}"] = sharpening
        self._now = {name: 1.0 for name in self._all}

    @property
    def given(self) -> dict[str, Schedule]:
        """{where a config says it: schedule}."""
        return {key_of(name): schedule for name, schedule in self._all.items() if name != f"{LOSS}{SHARPENING}"}

    def observe(self, clock: Clock) -> None:
        """How far training is, and how well it goes."""
        for name, schedule in self._all.items():
            schedule.observe(clock)
            self._now[name] = schedule.strength(clock)

    def strength(self, name: str) -> float:
        """The present one, in [0, 1]; 1 of what has no schedule."""
        return self._now.get(name, 1.0)

    def losses(self) -> dict[str, float]:
        """{loss of a network: by how much its weight is multiplied now}, of those that have a schedule."""
        return {name.removeprefix(LOSS): value for name, value in self._now.items() if name.startswith(LOSS)}

    def scalars(self) -> dict[str, float]:
        """{schedules/<name>: strength}."""
        return {f"schedules/{name.replace('/', '_')}": value for name, value in self._now.items()}

    def get_state(self) -> dict[str, Any]:
        """What schedules remember."""
        return {name: schedule.get_state() for name, schedule in self._all.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take it back; schedules that were not there then begin anew."""
        for name, schedule in self._all.items():
            if name in state:
                schedule.set_state(state[name])


def schedules_of(settings: Settings, channel: Channel | None) -> dict[str, Schedule]:
    """{where a config says it: schedule}, wherever one can stand; channel: None in silence."""
    found = TrainingSchedules(settings).given
    if channel is not None:
        found |= {f"communication.reflexes: the schedule of {r.name}": r.schedule for r in channel.reflexes}
        if channel.topology.schedule is not None:
            found["communication.topology.schedule"] = channel.topology.schedule
        if channel.vocabulary is not None:
            found["communication.vocabulary.schedule"] = channel.vocabulary.schedule
    return found


def check_measures(settings: Settings, channel: Channel | None, num_labels: int) -> None:
    """Whether schedules by performance look at what the trainer measures: by another name nothing would ever fade."""
    kind = None if channel is None else channel.messages
    if not num_labels:
        missing = "this environment has no labels to agree on"
    elif kind is None or told_apart(kind) is None:
        missing = (
            "all are silent"
            if kind is None
            else f"messages of the kind '{kind.kind}' are no words, or too many, to agree on"
        )
    else:
        missing = ""
    for where, schedule in schedules_of(settings, channel).items():
        known = ["reward", *(() if missing else OF_LABELS)]
        if not isinstance(schedule, Gated) or schedule.measure in known:
            continue
        key = f"{where}: measure"
        if schedule.measure in OF_LABELS:
            raise UserError(f"{key} is '{schedule.measure}', and {missing}; use 'reward'")
        raise unknown(key, schedule.measure, known)


def _own(key: str, value: Any) -> Schedule:
    if isinstance(value, int | float):
        share(key, value)
    return copy.deepcopy(refuse_load(make_schedule(value, key), key))


def key_of(name: str) -> str:
    """Where a config says a schedule."""
    return KEYS.get(name) or f"training.loss_schedules.{name.removeprefix(LOSS)}"
