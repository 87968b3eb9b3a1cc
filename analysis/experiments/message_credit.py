"""What is a message to be credited with? Four credits of messages that are learned as actions, at equal samples.

    python -m popcomm.analysis.experiments.message_credit --out runs/message_credit [--seeds 5] [--docs docs] [--quick]

Every seat sees one of a few kinds and must name, a step later, the kind that one other seat saw; all hear all, and all
are paid the mean. So it is known whose messages matter to whom, and what is measured of a trained population
(`popcomm.rollout.importance`) is held against it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from popcomm.analysis.experiments.figures import level, of_runs, seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.planted_edges import planted_sources
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of
from scipy.stats import rankdata
from torch import Tensor

from popcomm.agents.contract import AgentSpec
from popcomm.agents.mlp import MLPAgent
from popcomm.agents.population import PopulationLinear
from popcomm.channels import Inbox
from popcomm.envs.episodic_world import EpisodicWorld
from popcomm.envs.world import Species
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, card, dress, heatmap, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.importance import message_importance

NAME = "message_credit"
SEATS, KINDS, SYMBOLS = 5, 3, 3
STEPS, QUICK_STEPS = 40_000, 6_000  # environment steps of a run
LOOKS, WORLDS, FRAGMENT = 12, 64, 12
TITLES = {
    "step": "from its own step on (`step`)",
    "next": "from the next step on (`next`)",
    "receivers": "what became of those who heard it (`receivers`)",
    "counterfactual": "beside what its sender would have said otherwise (`counterfactual`)",
}
CREDITS = tuple(TITLES)
COLOURS = {"step": MUTED, "next": ORANGE, "receivers": GREEN, "counterfactual": BLUE}
ENOUGH = 0.95  # AUC

Record = Mapping[str, Any]


class AskedWorld(EpisodicWorld):
    """N seats see one of K kinds each, and must name a step later what one other seat saw; all are paid the mean.

    Who must name whose kind is drawn once, from `layout_seed`. Observation [K + N + 2]: the kind (one-hot; zeros in the
    second step), who I am, and the step (one-hot; zeros when it is over).
    """

    name, kept = "asked", (*EpisodicWorld.kept, "kinds")

    def __init__(
        self, num_worlds: int = 1, device: Any = "cpu", seats: int = SEATS, kinds: int = KINDS, layout_seed: int = 0
    ) -> None:
        super().__init__(num_worlds, device, 2)
        self.num_labels = kinds
        self.sources = planted_sources(seats, seats, layout_seed)
        self.species = {"seat": Species("seat", 0, seats, kinds + seats + 2, spaces.Discrete(kinds))}
        self._kinds: Tensor | None = None

    def _begin(self, worlds: Tensor) -> None:
        drawn = torch.randint(self.num_labels, (self.num_worlds, self.num_agents), generator=self._generator)
        self._kinds = self._renewed(self._kinds, drawn, worlds)

    def _play(self, actions: dict[str, Tensor], spoken: Tensor | None) -> tuple[Tensor, Tensor]:
        assert self._kinds is not None
        answering = self._age == 1
        right = (actions["seat"] == self._kinds[:, self.sources]).float().mean(1, keepdim=True)
        return (right * answering.unsqueeze(1)).repeat(1, self.num_agents), answering

    def _labels(self) -> Tensor:
        assert self._kinds is not None
        return torch.where((self._age == 0).unsqueeze(1), self._kinds, -1)

    def _observe(self) -> dict[str, Tensor]:
        assert self._kinds is not None
        seen = F.one_hot(self._kinds, self.num_labels) * (self._age == 0).view(-1, 1, 1)
        who = torch.eye(self.num_agents).expand(self.num_worlds, -1, -1)
        step = F.one_hot(self._age, 3)[:, :2].unsqueeze(1).expand(-1, self.num_agents, -1)
        return {"seat": torch.cat([seen, who, step], -1).float()}


class BySlot(MLPAgent):
    """An MLPAgent that knows from whom it hears: what stands in each slot of the inbox has weights of its own.

    Args:
        spec: what the network must know of its place.
        hidden: width of every hidden layer.
    """

    def __init__(self, spec: AgentSpec, hidden: int = 32) -> None:
        super().__init__(spec, hidden)
        self.heard = PopulationLinear(spec.members, spec.inbox_size * hidden, 2 * hidden, bias=False)

    def _pool(self, inbox: Inbox, state: Tensor, aux: dict[str, Tensor]) -> Tensor:
        """[P, R, K hidden]."""
        return (self.activation(self.encoder(inbox)) * inbox.mask.unsqueeze(-1)).flatten(-2)


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    arms = [{"credit": credit} for credit in CREDITS]
    return trials_of(options, train, arms, env_steps=QUICK_STEPS if options.quick else STEPS)


def settings(credit: str, seed: int) -> PopulationPPOConfig:
    """The configuration of a run; who must name whose kind is another one for every seed."""
    return (
        PopulationPPOConfig()
        .environment(AskedWorld, env_config={"layout_seed": seed})
        .communication(
            messages={"kind": "symbols", "vocab_size": SYMBOLS, "length": 1},
            topology={"kind": "full"},
            gradient="reinforce",
            credit=credit,
        )
        .population(agent=BySlot, members=SEATS, seating="fixed")
        .training(
            lr=3e-3, gamma=0.9, lambda_=0.9, entropy_coeff=0.01, message_entropy_coeff=0.01, num_epochs=4,
            minibatch_size=WORLDS, message_balance_coeff=0.0,
        )
        .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=FRAGMENT)
        .debugging(seed=seed)
    )  # fmt: skip


def train(credit: str, seed: int, env_steps: int) -> Record:
    """One run, measured on its way and at its end; `seconds` is CPU time of its iterations."""
    training = LocalTraining(settings(credit, seed), 256)
    curve, seconds = learned(training, env_steps)
    found = message_importance(training.population(), num_steps=12, seed=seed)
    known = matters(seed)
    return {
        "score": curve[-1]["score"],
        "auc": auc(found.replaced, known),
        "auc_removed": auc(found.removed, known),
        "auc_value": auc(found.value_replaced, known),
        "curve": curve,
        "importance": found.removed,
        "matters": known,
        "seconds": seconds,
    }


def learned(training: LocalTraining, env_steps: int) -> tuple[list[dict[str, float]], float]:
    """Train to so many steps: shares of the kinds that are named right on the way, and the CPU time of iterations."""
    curve, seconds, began = [], 0.0, time.process_time()
    for steps in training.looks(env_steps, LOOKS):
        seconds += time.process_time() - began
        curve.append({"env_steps": steps, "score": training.greedy()})
        began = time.process_time()
    return curve, seconds


# ---- measures ----


def matters(layout_seed: int, seats: int = SEATS) -> NDArray[np.bool_]:
    """[N (sender), N (receiver)], whose kind each must name."""
    found = np.zeros((seats, seats), bool)
    found[planted_sources(seats, seats, layout_seed).numpy(), np.arange(seats)] = True
    return found


def auc(values: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """How likely a pair that matters has a higher value than one that does not: the area under the ROC curve.

    Pairs with nan do not count; the statistic of Mann and Whitney (1947), ties as halves.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875
    """
    real = np.isfinite(values)
    ranks, truth = rankdata(values[real]), known[real]
    positive, negative = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{credit: its runs by seed}, in the order of CREDITS."""
    return arms_of(records, lambda r: r["credit"], CREDITS)


def area(record: Record) -> float:
    """The mean score over the training."""
    return float(np.mean([point["score"] for point in record["curve"]]))


def claims(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    found: list[Claim] = []
    ours = groups.get("counterfactual", [])
    for other in ("step", "next", "receivers"):
        text = f"Counterfactual credit learns faster than `{other}`: mean score over the training ({{seeds}} seeds)"
        found += outdone(text, ours, groups.get(other, []), area, least=2)
    learned = [r for runs in groups.values() for r in runs if r["score"] > 0.9]
    if learned:
        least = min(r["auc_removed"] for r in learned)
        text = f"Importance of missing messages finds who mattered: AUC {ENOUGH} in all {len(learned)} runs above 0.9"
        found.append(Claim(text, f"at least {least:.3f}", least >= ENOUGH))
    return found


# ---- figure and page ----


def draw_scores(axes: Axes, groups: Mapping[str, Sequence[Record]], colours: Mapping[str, str], kinds: int) -> None:
    """Curves of all arms, and the chance of one in so many kinds."""
    dress(axes, "Kinds named right", "environment steps", "share, likeliest choices")
    for arm, runs in groups.items():
        seeds_and_mean(axes, of_runs(runs), colours[arm], "-", arm)
    level(axes, 1 / kinds, "guessed", place="right")
    legend(axes, loc="best")


def draw(records: Sequence[Record]) -> Figure:
    """Scores over the training, every seed thin; and the importance found in a run beside what is known."""
    figure = card(12, 4.6, "What a message is credited with")
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    draw_scores(left, grouped(records), COLOURS, KINDS)
    shown = max(records, key=lambda r: r["score"])
    title = f"Importance: {shown['credit']}, seed {shown['seed']}; x: it matters"
    dress(right, title, "receiver", "sender", grid=None)
    heatmap(right, np.array(shown["importance"], float), "total variation distance", vmin=0)
    for sender, receiver in np.argwhere(np.array(shown["matters"], bool)):
        edge = withStroke(linewidth=2.5, foreground="white")  # to be seen on dark and on light
        right.text(receiver, sender, "x", ha="center", va="center", color=INK, fontweight="bold", path_effects=[edge])
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)
    return {
        "records": records, "groups": groups, "claims": claims(groups), "titles": TITLES, "shown": shown,
        "seats": SEATS, "kinds": KINDS, "chance": 1 / KINDS, "steps": records[0]["env_steps"],
    }  # fmt: skip


def shown(runs: Sequence[Record], key: str) -> str:
    """The mean of the runs in a measure, with its interval."""
    return mean_shown([area(r) if key == "area" else r[key] for r in runs], 3, "+")


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
