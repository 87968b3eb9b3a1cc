"""What does privacy cost, and what does it keep from attackers? Return and attacks against epsilon.

    python -m popcomm.analysis.experiments.privacy_utility --out runs/privacy [--seeds 5] [--docs docs] [--quick]

Two ways to be private in colour_digit_v0, each at several epsilons and without noise. Messages: vectors with the
Gaussian mechanism, learned through the channel; the attacker names the observation that a message was made of. Updates:
federated averaging of members that learn to understand what they hear, which nobody learns to say, since gradients
through messages would tell more than updates do; the attacker tells, from what a member published in a round, which
digits it saw.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments.figures import level
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import difference, mean_interval
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.privacy_attacks import Overheard, over_rounds, rebuilt
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of
from scipy.stats import norm
from torch import Tensor

from popcomm.channels import Vectors
from popcomm.language.drawing import BLUE, MUTED, ORANGE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig

NAME = "privacy_utility"
PLAYER, STEPS_OF_EPISODE, COLOURS, DELTA = "player", 2, 2, 1e-5
DIGITS = {"messages": 4, "updates": 16}
# The last of each is no privacy at all: vectors as they are, and updates that are clipped and no more.
EPSILONS: dict[str, tuple[float | None, ...]] = {
    "messages": (1, 3, 10, 30, 100, None),
    "updates": (10, 100, 1000, 10_000, None),
}
STEPS = {"messages": 12_800, "updates": 76_800}  # environment steps of a run
QUICK_STEPS = 2_048
CLIPS = {"messages": 1.0, "updates": 0.5}
WORLDS = {"messages": 64, "updates": 256}
MEMBERS, EVERY, HIDDEN, FRAGMENT = 64, 1, 16, 6
STEPS_OF_WORLD = 4  # in an iteration: of a fragment's rows every third is empty, as an episode of two steps is over
ORACLE = 2.0
TITLES = {"messages": "noised messages", "updates": "federated averaging"}

Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    arms = [
        {"way": way, "epsilon": epsilon, "env_steps": QUICK_STEPS if options.quick else STEPS[way]}
        for way in EPSILONS
        for epsilon in EPSILONS[way]
    ]
    return trials_of(options, train, arms)


def settings(way: str, epsilon: float | None, seed: int, env_steps: int) -> PopulationPPOConfig:
    """The configuration of a run."""
    config = (
        PopulationPPOConfig()
        .environment("colour_digit_v0", env_config={"digits": DIGITS[way]})
        .training(lr=4e-3, gamma=0.95, entropy_coeff=0.02, num_epochs=2)
        .env_runners(num_worlds_per_env_runner=WORLDS[way], rollout_fragment_length=FRAGMENT)
        .debugging(seed=seed)
    )
    budget = {} if epsilon is None else {"epsilon": epsilon, "delta": DELTA}
    if way == "messages":
        hidden = {"privacy": {**budget, "clip": CLIPS[way], "messages": STEPS_OF_EPISODE}} if budget else {}
        return config.communication(messages={"kind": "vectors", "size": 2, **hidden}).population(
            agent="mlp", agent_config={"hidden": 2 * HIDDEN}, members=1
        )
    rounds = {"rounds": max(1, env_steps // (EVERY * STEPS_OF_WORLD * WORLDS[way]))} if budget else {}
    return (
        config.communication(messages={"kind": "vectors", "size": 8}, gradient="none")
        .population(agent="mlp", agent_config={"hidden": HIDDEN}, members=MEMBERS)
        .training(federated={"every": EVERY, "clip": CLIPS[way], **budget, **rounds}, lr=1e-2, num_epochs=4)
    )


def train(way: str, epsilon: float | None, seed: int, env_steps: int) -> Record:
    """One run, measured and attacked; `seconds` is CPU time of all of it."""
    training, began = LocalTraining(settings(way, epsilon, seed, env_steps), 512), time.process_time()
    told = _messages(training, env_steps) if way == "messages" else _updates(training, env_steps)
    return {"score": float(training.evaluate(False)[0].mean()), **told, "seconds": time.process_time() - began}


def _messages(training: LocalTraining, env_steps: int) -> dict[str, float]:
    while training.env_steps < env_steps:
        training.iterate()
    kind, agent = training.plan.message_kind, training.learner.networks[PLAYER].agent
    assert isinstance(kind, Vectors)
    return {"attack": rebuilt(agent, kind, observations(DIGITS["messages"]))}


def _updates(training: LocalTraining, env_steps: int) -> dict[str, float]:
    learner, digits = training.learner, DIGITS["updates"]
    assert learner.federation is not None
    heard = learner.federation = Overheard(learner.federation, learner.networks[PLAYER].agent.first.weight)
    lived: list[NDArray[np.bool_]] = []
    saw = np.zeros((MEMBERS, digits), bool)
    while training.env_steps < env_steps:
        training.iterate()
        saw |= digits_seen(training.fragment.policy_batches[PLAYER], digits)
        if len(heard.heard) > len(lived):
            lived.append(saw)
            saw = np.zeros_like(saw)
    # Of a digit alone: the colour and the step are seen by all.
    candidates = F.pad(torch.eye(digits), (COLOURS, STEPS_OF_EPISODE))
    found = over_rounds(heard.heard, candidates, lived)
    parameters = list(learner.networks[PLAYER].parameters())
    return {
        "attack": found["auc"],
        "attack_on_mean": found["auc_of_mean"],
        "seen": float(np.mean(lived)),
        "weights": sum(p.numel() for p in parameters) // MEMBERS,
        "rounds": heard.rounds[PLAYER],
        "sigma": heard.federated.sigma,
    }


def observations(digits: int) -> Tensor:
    """[2 D, O], all that a player can see in the first step of an episode."""
    colour, digit = (x.flatten() for x in torch.meshgrid(torch.arange(COLOURS), torch.arange(digits), indexing="ij"))
    first = F.one_hot(torch.zeros_like(digit), STEPS_OF_EPISODE)
    return torch.cat([F.one_hot(colour, COLOURS), F.one_hot(digit, digits), first], -1).float()


def digits_seen(fragment: Mapping[str, NDArray[Any]], digits: int) -> NDArray[np.bool_]:
    """[P, D], which digits each member saw in a fragment, in steps from which it learns."""
    alive = fragment["alive"]
    seen = fragment["obs"][:, :-1][alive][:, COLOURS : COLOURS + digits].argmax(-1)
    found = np.zeros((MEMBERS, digits), bool)
    found[fragment["members"][alive], seen] = True
    return found


# ---- measures ----


def grouped(records: Sequence[Record], way: str) -> dict[float | None, list[Record]]:
    """{epsilon: its runs by seed}, in the order of EPSILONS."""
    return arms_of([r for r in records if r["way"] == way], lambda r: r["epsilon"], EPSILONS[way])


def chance(way: str) -> float:
    """What an attacker comes to who knows nothing."""
    return 0.5 if way == "updates" else 1 / (COLOURS * DIGITS[way])


def most_named(epsilon: float) -> float:
    """The share of messages whose source any attacker can name: exp(epsilon) / (exp(epsilon) + M - 1), and delta.

    None of M sources, alike likely, makes a message more than exp(epsilon) times as likely as another does, but for
    delta; summed over all pairs of them that is the bound.
    """
    return float(1 / (1 + (COLOURS * DIGITS["messages"] - 1) * np.exp(-epsilon)) + DELTA)


def most_ranked(sigma: float) -> float:
    """The AUC that any attacker on one update can come to: Phi(clip / sigma).

    A seen digit that scores above one that was not seen tells a life from that with the two digits exchanged, and of
    two updates, 2 clip apart at most under normal noise, the best test names the right one so often.
    """
    return float(norm.cdf(CLIPS["updates"] / sigma))


def claims(records: Sequence[Record]) -> list[Claim]:
    """Of both ways: the attack succeeds without noise, and fails at the smallest epsilon; and what that costs."""
    found = []
    for way, title in TITLES.items():
        groups = grouped(records, way)
        open_, closed = groups.get(None, []), groups.get(EPSILONS[way][0], [])
        seeds = sorted({r["seed"] for r in open_} & {r["seed"] for r in closed})
        if len(seeds) < 2:
            continue
        low = EPSILONS[way][0]
        least, none = mean_interval([r["attack"] for r in open_]), chance(way)
        text = f"{title}: without noise the attack does better than chance ({none:.3g})"
        found.append(Claim(text, f"{np.mean([r['attack'] for r in open_]):.3f} {least.shown(3)}", least.low > none))
        worst = float(np.mean([r["attack"] for r in closed]))
        text = f"{title}: at epsilon {low:g} it comes to chance, within a tenth of what it gained"
        gained = float(np.mean([r["attack"] for r in open_])) - none
        found.append(Claim(text, f"{worst:.3f}", worst - none < 0.1 * gained))
        cost = difference(*([r["score"] for r in runs if r["seed"] in seeds] for runs in (open_, closed)))
        text = f"{title}: that costs return ({len(seeds)} seeds)"
        found.append(Claim(text, cost.shown(3), cost.paired.low > 0))
    return found


# ---- figure and page ----


def draw(records: Sequence[Record]) -> Figure:
    """Return and attack against epsilon, every seed a point."""
    figure = card(12, 4.8, "What privacy costs, and what it keeps")
    for axes, (way, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        groups = grouped(records, way)
        places = {epsilon: place for place, epsilon in enumerate(groups)}
        dress(axes, title[0].upper() + title[1:], "epsilon", "share")
        for key, label, colour, scale in (
            ("score", "return, of what is earned when all is told", BLUE, ORACLE),
            ("attack", "attack: AUC" if way == "updates" else "attack: observations named right", ORANGE, 1.0),
        ):
            points = [(places[e], r[key] / scale) for e, runs in groups.items() for r in runs]
            axes.scatter(*zip(*points, strict=True), s=12, color=colour, alpha=0.5)
            means = [np.mean([r[key] / scale for r in runs]) for runs in groups.values()]
            axes.plot(list(places.values()), means, color=colour, linewidth=2.4, label=label)
        level(axes, chance(way), "attack by chance", colour=MUTED)
        axes.set_xticks(list(places.values()), ["none" if e is None else f"{e:g}" for e in places])
        legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    def shown(runs: Sequence[Record], key: str) -> str:
        values = [r[key] for r in runs]
        return f"{np.mean(values):.3f} {mean_interval(values).shown(3)}"

    return {
        "records": records,
        "groups": {way: grouped(records, way) for way in TITLES},
        "claims": claims(records),
        "titles": TITLES,
        "shown": shown,
        "chance": chance,
        "most_named": most_named,
        "most_ranked": most_ranked,
        "digits": DIGITS,
        "members": MEMBERS,
        "every": EVERY,
        "clips": CLIPS,
        "delta": DELTA,
        "steps": STEPS,
    }


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
