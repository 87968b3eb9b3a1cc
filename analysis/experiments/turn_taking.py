"""Games of several turns, where one message cannot say it all: does the order of messages matter, and who negotiates?

    python -m popcomm.analysis.experiments.turn_taking --out runs/turn_taking [--seeds 5] [--docs docs] [--quick]

A meaning has more parts than one message has room for, so a round is a conversation of several steps. Two attributes
are to be named in one, two or four turns, by a speaker whose listener is mute or talks back; and one of eight
candidates, which the listener alone knows, is to be picked after three turns. Then, on frozen players: what is
understood if the messages of a round come in reverse, or those of the listener go astray; what the order of a round's
messages tells beside the messages; and whether what is said of a meaning hangs on the turn, persistence taken out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments.discrimination import picked_among
from popcomm.analysis.experiments.figures import level
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import mean_interval, mean_shown, paired
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm.channels import MessageKind
from popcomm.cli import documents, schema
from popcomm.language import information, positional_disentanglement
from popcomm.language.basics import mutual_information, sequential_information
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, VERMILLION, card, dress, legend
from popcomm.language.nulls import adjusted_share, share_as_large
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.interference import exchanged
from popcomm.rollout.population import Population

NAME = "turn_taking"
STEPS, QUICK_STEPS = 280_000, 20_000  # environment steps of a run
WORLDS, EPISODE = 128, 30  # steps of an episode with actions, but the last; T is two more
PLAYED = 256  # worlds in which frozen players are asked
SPEAKER = 0  # its seat; the listener has the other
SHUFFLES = 39
LEARNED = 1.2  # times the accuracy of who does not listen, which a game that is learned at all comes to

Array = NDArray[Any]
Record = Mapping[str, Any]


class Game(NamedTuple):
    """A game, and who talks in it."""

    title: str
    task: str
    attributes: int
    values: int
    symbols: int  # a message is one of them
    turns: int
    talks_back: bool
    distractors: int = 1

    @property
    def meanings(self) -> int:
        return int(self.values**self.attributes)


GAMES = {
    "one": Game("one turn", "reconstruct", 2, 5, 5, 1, False),
    "two": Game("two turns", "reconstruct", 2, 5, 5, 2, False),
    "two, answered": Game("two turns, the listener talks back", "reconstruct", 2, 5, 5, 2, True),
    "four": Game("four turns", "reconstruct", 2, 5, 5, 4, False),
    "pick": Game("three turns, one of eight", "pick", 6, 2, 2, 3, False, 7),
    "pick, answered": Game("three turns, one of eight, the listener talks back", "pick", 6, 2, 2, 3, True, 7),
}


def most(game: Game) -> float:
    """The highest accuracy that is possible where nobody talks back.

    Reconstructed: messages that are told apart, over meanings. Picked: the meanings fall into as many cells, of equal
    size c, as there are sequences, and of the distractors, drawn without replacement, X are in the target's cell; the
    target is guessed among 1 + X (hypergeometric).

    >>> most(GAMES["one"]), round(most(GAMES["pick"]), 3)
    (0.2, 0.679)
    """
    cells = min(game.symbols**game.turns, game.meanings)
    if game.task == "reconstruct":
        return cells / game.meanings
    return picked_among(game.meanings, game.meanings // cells, game.distractors)


def guessed(game: Game) -> float:
    """The accuracy of who does not listen.

    >>> guessed(GAMES["one"]), guessed(GAMES["pick"])
    (0.04, 0.125)
    """
    return 1 / (game.meanings if game.task == "reconstruct" else game.distractors + 1)


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    return trials_of(options, train, [{"arm": arm} for arm in GAMES], env_steps=QUICK_STEPS if options.quick else STEPS)


def settings(arm: str, seed: int) -> PopulationPPOConfig:
    """The configuration of a run: the shipped game, with agents that remember the turns before."""
    game = GAMES[arm]
    # adjacency[i][j]: whether the listener (1) hears the speaker (0), and the speaker the listener.
    adjacency = [[False, True], [game.talks_back, False]]
    rounds = EPISODE // game.turns
    own = {
        "environment.env_config": {
            "task": game.task, "attributes": game.attributes, "values": game.values, "turns": game.turns,
            "rounds": rounds, **({"distractors": game.distractors} if game.task == "pick" else {}),
        },
        "communication.messages.vocab_size": game.symbols,
        "communication.messages.length": 1,
        "communication.topology": {"kind": "custom", "adjacency": adjacency},
        "population.agent": "tarmac",
        "population.agent_config": {"hidden": 64},
        "training.minibatch_size": WORLDS // 8,
        "env_runners.num_worlds_per_env_runner": WORLDS,
        "env_runners.rollout_fragment_length": rounds * game.turns + 2,
        "debugging.seed": seed,
    }  # fmt: skip
    overrides = [f"{key}={json.dumps(value)}" for key, value in own.items()]
    return schema.apply(documents.load("referential", overrides), PopulationPPOConfig())


def train(arm: str, seed: int, env_steps: int) -> Record:
    """One run, asked at its end; `seconds` is CPU time of this process."""
    began = time.process_time()
    training, curve = LocalTraining(settings(arm, seed), 64), []
    while training.env_steps < env_steps:
        training.iterate()
        curve.append({"env_steps": training.env_steps, "score": training.runner.statistics.world["accuracy"]})
    asked = examined(training.population(), GAMES[arm], seed)
    thin = curve[:: max(1, len(curve) // 50)]
    return {**asked, "seconds": time.process_time() - began, "curve": thin}


# ---- frozen players ----


class Played(NamedTuple):
    """E rounds of T turns, of a greedy play."""

    said: Array  # [E, T] int64, of the speaker
    answered: Array  # [E, T] int64, of the listener
    meanings: Array  # [E], rows of the world's meanings
    world: Array  # [E]
    accuracy: float


class Instead:
    """Interference: what the speaker is heard to say, whatever it says; messages [S, B, 1] of the steps of a play."""

    def __init__(self, messages: torch.Tensor) -> None:
        self.messages, self.step = messages, 0

    def __call__(self, kind: MessageKind, messages: Any, voice: Any, generator: Any) -> Any:
        messages = messages.clone()
        messages[:, SPEAKER] = self.messages[self.step]
        self.step += 1
        return messages, voice


def astray(kind: MessageKind, messages: Any, voice: Any, generator: Any) -> Any:
    """Interference: what the listener says is heard in another world."""
    others = exchanged(messages, voice & kind.spoken(messages), generator)
    others[:, SPEAKER] = messages[:, SPEAKER]
    return others, voice


def play(population: Population, game: Game, seed: int, interference: Any = None) -> tuple[Played, torch.Tensor]:
    """Whole episodes of PLAYED new worlds, the likeliest choices; the same seed gives the same meanings.

    Returns:
        what was said, and the speaker's messages [S, PLAYED, 1] of all S steps.
    """
    rollout = population.rollout(seed=1000 + seed, greedy=True, worlds=PLAYED)
    rollout.players.interference = interference
    rollout.begin()
    steps = EPISODE // game.turns * game.turns
    said, labels = [], []
    for _ in range(steps + 1):  # one more, of answers
        turn, _ = rollout.step()
        assert turn.sent is not None
        assert turn.seen.labels is not None
        said.append(turn.sent.clone())
        labels.append(turn.seen.labels[:, SPEAKER].clone())
    accuracy = rollout.world.metrics()["accuracy"]
    rollout.close()
    sent, meant = torch.stack(said), torch.stack(labels)
    rounds = sent[:steps, :, :, 0].unflatten(0, (-1, game.turns)).permute(0, 2, 1, 3).flatten(0, 1)  # [E, T, 2]
    where = torch.arange(PLAYED).repeat(steps // game.turns)
    named = meant[: steps : game.turns].flatten()
    columns = (values.numpy() for values in (rounds[..., 0], rounds[..., 1], named, where))
    return Played(*columns, accuracy), sent[:, :, SPEAKER]


def in_reverse(messages: torch.Tensor, turns: int) -> torch.Tensor:
    """The messages [S, B, 1] of a play, those of each round the last one first."""
    whole = len(messages) // turns * turns
    reverse = messages[:whole].unflatten(0, (-1, turns)).flip(1).flatten(0, 1)
    return torch.cat([reverse, messages[whole:]])


def of_others(messages: torch.Tensor) -> torch.Tensor:
    """What is said in another world meanwhile."""
    return messages.roll(1, 1)


def examined(population: Population, game: Game, seed: int) -> Record:
    """What a frozen pair understands, in order, in reverse, and of others; and what its messages tell."""
    played, messages = play(population, game, seed)
    turned, _ = play(population, game, seed, Instead(in_reverse(messages, game.turns)))
    strange, _ = play(population, game, seed, Instead(of_others(messages)))
    unheard = play(population, game, seed, astray)[0].accuracy if game.talks_back else played.accuracy
    return {
        "accuracy": played.accuracy, "reversed": turned.accuracy, "of others": strange.accuracy, "astray": unheard,
        **told(played, population),
    }  # fmt: skip


def told(played: Played, population: Population) -> Record:
    """What a round's messages tell of its meaning, in order and as a bag; and what is order among them."""
    said, worlds = played.said, played.world
    bits = {
        "sequence": information(said, played.meanings, streams=worlds).bits,
        "bag": information(np.sort(said, 1), played.meanings, streams=worlds).bits,
    }
    turns = said.shape[1]
    if turns == 1:
        return {**bits, **dict.fromkeys(("plain", "turn", "turn p", "same", "posdis"))}
    # In the control of this one a world's messages of all rounds change places.
    plain = sequential_information(said.reshape(-1, 1), np.repeat(worlds, turns), _steps_of(played))
    turn, p_value = by_turn(said, played.meanings)
    attributes = _attributes(population)[played.meanings]
    return {
        **bits, "plain": plain.adjusted, "turn": turn, "turn p": p_value,
        "same": float((said[:, 1:] == said[:, :-1]).mean()),
        "posdis": float(positional_disentanglement(attributes, said)),
    }  # fmt: skip


def by_turn(said: Array, meanings: Array, shuffles: int = SHUFFLES, seed: int = 0) -> tuple[float, float]:
    """What the turn tells of the message, given the meaning: I(message; turn | meaning) in bits, and its p-value.

    Adjusted for chance: in the controls the messages of each round change places among themselves. So what persists in
    a round, or follows from its meaning, is in the controls too; 0 for who repeats itself, and for who says the same
    words in any order; log2 T for who never says the same of a meaning in two turns.

    Args:
        said: [E, T].
        meanings: [E].
    """
    rng, turns = np.random.default_rng(seed), said.shape[1]
    meaning = np.repeat(meanings, turns)
    slot = meaning * turns + np.tile(np.arange(turns), len(said))

    def bits(words: Array) -> float:
        flat = words.reshape(-1)
        return mutual_information(slot, flat) - mutual_information(meaning, flat)

    found, controls = bits(said), np.array([bits(rng.permuted(said, axis=1)) for _ in range(shuffles)])
    most = np.log2(turns)
    return float(most * adjusted_share(found, controls.mean(), most)), share_as_large(found, controls)


def _steps_of(played: Played) -> Array:
    """[E * T], when each message was said in its world."""
    rounds, turns = len(played.said) // PLAYED, played.said.shape[1]
    when = np.repeat(np.arange(rounds), PLAYED)[:, None] * turns + np.arange(turns)
    return when.reshape(-1)


def _attributes(population: Population) -> Array:
    assert population.env is not None
    return np.asarray(population.env.make(1, None).meanings)


# ---- measures ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}, in the order of GAMES."""
    return arms_of(records, itemgetter("arm"), GAMES)


def claims(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    found = []
    for arm in ("two", "two, answered", "four"):
        runs = groups.get(arm, [])
        gain = paired(runs, runs, itemgetter("accuracy"), itemgetter("reversed"))
        if gain is None or len(runs) < 2:
            continue
        text = f"Order matters to who listens ({GAMES[arm].title}): accuracy in order less that in reverse"
        found.append(Claim(text, gain.shown(3), gain.paired.low > 0))
        more = paired(runs, runs, itemgetter("sequence"), itemgetter("bag"))
        assert more is not None
        text = f"Messages tell more in their order than as a bag ({GAMES[arm].title}), in bits"
        found.append(Claim(text, more.shown(2), more.paired.low > 0))
        found.append(_turns(arm, runs))
    for arm, text in (("two", "Two turns say more than one can at best"), ("four", "So do four")):
        values = [run["accuracy"] for run in groups.get(arm, [])]
        if len(values) > 1:
            bound = most(GAMES["one"])
            measured = f"{mean_shown(values, 3)} against {bound:.3f}"
            found.append(Claim(text, measured, mean_interval(values).low > bound))
    return found + _negotiated(groups)


def _turns(arm: str, runs: Sequence[Record]) -> Claim:
    values = [run["turn"] for run in runs]
    text = f"What is said of a meaning hangs on the turn ({GAMES[arm].title}): bits, and runs with p at most .05"
    count = sum(run["turn p"] <= 0.05 for run in runs)
    return Claim(text, f"{mean_shown(values, 2)}, {count} of {len(runs)}", mean_interval(values).low > 0)


def _negotiated(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    runs = groups.get("pick, answered", [])
    if len(runs) < 2:
        return []
    values, bound = [run["accuracy"] for run in runs], most(GAMES["pick"])
    text = "Who talks back negotiates: more is picked than can be where nobody does"
    found = [Claim(text, f"{mean_shown(values, 3)} against {bound:.3f}", mean_interval(values).low > bound)]
    lost = paired(runs, runs, itemgetter("accuracy"), itemgetter("astray"))
    assert lost is not None
    text = "What the listener says matters: accuracy less that with its messages gone astray"
    return [*found, Claim(text, lost.shown(3), lost.paired.low > 0)]


# ---- figure and page ----

COLOURS = dict(zip(GAMES, (MUTED, BLUE, GREEN, PURPLE, ORANGE, VERMILLION), strict=True))
WAYS = {"accuracy": "in order", "reversed": "in reverse", "astray": "the listener's astray", "of others": "of others"}


def draw(records: Sequence[Record]) -> Figure:
    """What is understood, as it is said and interfered with; and bits, of bags, sequences and order."""
    groups = grouped(records)
    figure = card(14, 5.2, "Several turns: what order and answers are worth")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    dress(left, "Understood: round points are runs, lines their means", "", "accuracy")
    _accuracies(left, groups)
    dress(right, "What a round's messages tell of its meaning", "as a bag (bits)", "in their order (bits)", grid="both")
    for arm, runs in groups.items():
        x, y = ([run[key] for run in runs] for key in ("bag", "sequence"))
        right.scatter(x, y, s=28, color=COLOURS[arm], label=GAMES[arm].title, alpha=0.8)
    top = max([4.8, *(run["sequence"] for run in records)])
    right.plot([0, top], [0, top], color=MUTED, linewidth=1, linestyle=":")
    legend(right, loc="lower right", fontsize=7)
    return figure


def _accuracies(axes: Axes, groups: Mapping[str, Sequence[Record]]) -> None:
    marks = dict(zip(WAYS, ("o", "v", "s", "x"), strict=True))
    for place, (arm, runs) in enumerate(groups.items()):
        for shift, (way, name) in enumerate(WAYS.items()):
            if way == "astray" and not GAMES[arm].talks_back:
                continue
            values, x = [run[way] for run in runs], place + 0.2 * (shift - 1.5)
            label = name if not any(name == text for text in axes.get_legend_handles_labels()[1]) else None
            axes.scatter([x] * len(values), values, s=22, marker=marks[way], color=COLOURS[arm], label=label)
            axes.plot([x - 0.07, x + 0.07], [np.mean(values)] * 2, color=INK, linewidth=1.6)
        bound = most(GAMES[arm])
        axes.plot([place - 0.42, place + 0.42], [bound, bound], color=MUTED, linestyle="--", linewidth=1)
    if len(groups):
        level(axes, 1 / GAMES["one"].meanings, "a meaning guessed")
        legend(axes, loc="center right", fontsize=7)
    axes.set_xticks(range(len(groups)), [GAMES[arm].title.replace(", ", ",\n") for arm in groups], fontsize=7)
    axes.set_ylim(-0.03, 1.05)


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str, digits: int = 3) -> str:
        values = [run[key] for run in runs]
        return "-" if any(value is None for value in values) else mean_shown(values, digits)

    unlearned = [
        GAMES[arm]
        for arm, runs in groups.items()
        if max(run["accuracy"] for run in runs) < LEARNED * guessed(GAMES[arm])
    ]
    alone = groups.get("pick", [])
    partly = alone if alone and GAMES["pick"] not in unlearned and _falls_short(alone) else []
    return {
        "partly": partly, "unlearned": unlearned, "guessed": guessed,
        "records": records, "groups": groups, "claims": claims(groups), "games": GAMES, "shown": shown, "most": most,
        "shuffles": SHUFFLES, "played": PLAYED, "steps": records[0]["env_steps"],
    }  # fmt: skip


def _falls_short(runs: Sequence[Record]) -> bool:
    """Whether what is picked, by its interval, is less than what is possible where nobody talks back."""
    values = [run["accuracy"] for run in runs]
    return len(values) > 1 and mean_interval(values).high < most(GAMES["pick"])


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
