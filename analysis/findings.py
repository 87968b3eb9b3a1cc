"""The sections of a report on learning and symbols: for each picture what it says of this run, or why it is missing."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from popcomm.analysis import closer, gates, graphs, importance, lineages, listeners, members
from popcomm.analysis.collapses import collapses
from popcomm.analysis.page import Section
from popcomm.analysis.run_folder import Conversations, RunFolder
from popcomm.analysis.sections import counted, drawn, missing, no_symbols, numbered

from popcomm.language import basics, drift, drift_picture, pictures

# Fewer symbols than this for each of the vocabulary's cannot show that one of them is unused.
SYMBOLS_PER_ENTRY = 5
RETURN, LENGTH = "charts/agent_episodic_return", "charts/episodic_length"
ALIKE = 0.05  # lengths that differ by no more than this share are alike
# A symbol this common leaves the others nothing to say.
COLLAPSED = 0.9
LAGS = (1, 2, 3, 4, 6, 8)
SHUFFLES = 5  # of the control of drift, a mean over positions and labels
CONTROLS = 99  # of what symbols tell of what was seen
ORDERED = 5_000  # symbols that are looked at for their order


# Names are a user's, and a "$" in one begins no formula.
@matplotlib.rc_context({"text.parse_math": False})
def all_sections(run: RunFolder, data: dict[str, Any]) -> list[Section]:
    """Every section of the report, in the order of the page.

    Args:
        data: what the sections that one can look into have to show, of `closer.data_of`.
    """
    makers = (
        training_progress,
        symbol_use,
        vocabulary_over_training,
        symbol_specialisation,
        temporal_patterns,
        listeners.topology,
        listeners.attention_hubs,
        importance.message_importance,
        graphs.learned_graph,
        gates.gates,
    )
    first, *others = (make(run) for make in makers)
    return [first, *closer.sections(run, data), *others, *lineages.sections(run)]


def training_progress(run: RunFolder) -> Section:
    iterations = len(run.progress)
    if not iterations or not any(key in run.progress for panel in pictures.PANELS for key in panel.lines):
        return missing("training_progress", "No iteration is finished yet: progress.jsonl holds no measurement.")
    findings, headline = [], ""
    if iterations < 10:
        findings.append(f"Only {counted(iterations, 'iteration')} so far: too few to see a trend.")
    elif len(run.measured(RETURN)) >= 10:
        headline = _returns(run)
        findings.append(headline)
    else:
        findings.append("No episode has ended yet, so there is no return.")
    if np.isfinite(r2 := run.last("losses/world_r2")):
        findings.append(f"The agents' world model explains {r2:.0%} of the variance of the world's state (R²).")
    fallen, at_the_end = collapses(run)
    findings += fallen
    headline = " ".join(filter(None, [headline, at_the_end]))
    # The measures of the language have their numbers in the sections on it; those of members are lists.
    ends = {key: run.last(key) for key in run.progress if not key.startswith(("language/", "member/"))}
    return drawn("training_progress", findings, headline, pictures.training_progress(run.progress, ends=ends))


def _returns(run: RunFolder) -> str:
    """How the return per agent changed; by the step as well, where episodes were not equally long."""
    first, last = run.first(RETURN), run.last(RETURN)
    short, long = run.first(LENGTH), run.last(LENGTH)
    alike = not np.isfinite(short) or abs(short - long) <= ALIKE * max(short, long)
    if alike:
        return f"Return per agent: {first:.3g} in the first tenth of the run, {last:.3g} in the last."
    return (
        f"Return per agent and 100 steps: {100 * first / short:.3g} in the first tenth of the run, "
        f"{100 * last / long:.3g} in the last. (Episodes had {short:.3g} steps there and {long:.3g} here, so their "
        f"returns, {first:.3g} and {last:.3g}, are not alike.)"
    )


def symbol_use(run: RunFolder) -> Section:
    symbols = run.talk.symbols
    if symbols is None:
        return missing("symbol_use", no_symbols(run))
    counts = basics.symbol_counts(symbols, run.vocab_size)
    pooled = counts.sum(0)
    share = basics.vocabulary_used(symbols, run.vocab_size, basics.USED_SHARE / run.vocab_size)
    used, bits = round(share * run.vocab_size), float(basics.entropy(pooled))
    headline = f"Vocabulary: {used} of {run.vocab_size} symbols in use ({share:.0%})"
    if symbols.size < SYMBOLS_PER_ENTRY * run.vocab_size:
        headline += f", counted on only {symbols.size} symbols, too few to call any unused."
    elif share < pictures.FEW_SYMBOLS:
        headline += ", under 70%: the language has specialised on a part of it."
    else:
        headline += ", not under 70%: no specialisation on a part of it."
    findings = [
        headline,
        f"In use is what is said more than a tenth as often as it would be if all symbols were equally common. The "
        f"entropy is {bits:.2f} of {np.log2(run.vocab_size):.2f} bits per symbol, that of {2**bits:.1f} equally common "
        f"ones; {int((pooled > 0).sum())} were said at least once.",
    ]
    if (top := pooled.max() / pooled.sum()) > COLLAPSED:
        findings.append(f"Symbol {pooled.argmax()} makes up {top:.0%} of all: the speakers say hardly anything.")
    return drawn("symbol_use", findings, headline, pictures.symbol_use(counts))


def vocabulary_over_training(run: RunFolder) -> Section:
    if run.talk.symbols is None:
        return missing("vocabulary_over_training", no_symbols(run))
    history = run.history
    if len(history.env_steps) < 2:
        return missing("vocabulary_over_training", "Only one conversation is recorded: there is no other to compare.")
    size = max(run.vocab_size, int(history.symbols.max()) + 1)
    counts = drift.symbol_counts(history.symbols, size, history.checkpoint)
    said = (history.symbols, size, history.checkpoint, history.streams)
    measured = {"all that is said": _over_positions(drift.drift_of_streams(*said, shuffles=SHUFFLES))}
    if len(np.unique(history.labels[history.labels >= 0])) > 1:
        by_label = drift.drift_of_streams(*said, history.labels, shuffles=SHUFFLES)
        measured["on the same label"] = _over_positions(by_label)
    name, found = list(measured.items())[-1]
    above, away = found.consecutive_above_chance, found.to_last_above_chance
    headline = f"Over training: {_drifted(name, above, history.env_steps)}."
    far = f"is {away[0]:.3f} bits from the last one, above chance"
    far = "has no label in common with the last one" if np.isnan(away[0]) else far
    findings = [
        headline,
        f"The first of {len(history.env_steps)} checkpoints {far}. "
        "These are means over the positions of a message; 0 bits is the same use of symbols, 1 bit none in common.",
    ]
    shares = counts.sum(1) / counts.sum((1, 2))[:, None]
    figure = drift_picture.vocabulary_over_training(history.env_steps, shares, measured)
    return drawn("vocabulary_over_training", findings, headline, figure)


def _drifted(name: str, above: np.ndarray, env_steps: np.ndarray) -> str:
    """The last step's drift of [C - 1] and since when there is little of it; or why that is not known."""
    if np.isnan(above[-1]):
        return f"{name}, the drift at the last step is not known, as the last two checkpoints have no label in common"
    since = drift.stable_from(above, drift.SETTLED, env_steps[:-1])
    if since is None:
        verdict = f"it has not settled (a drift under {drift.SETTLED} bits)"
    else:
        verdict = f"it stays under {drift.SETTLED} bits from {since:,} environment steps on"
    return f"{name}, symbols drifted {above[-1]:.3f} bits above chance at the last step; {verdict}"


def symbol_specialisation(run: RunFolder) -> Section:
    talk = run.talk
    if talk.symbols is None:
        return missing("symbol_specialisation", no_symbols(run))
    groups, findings, headline = {}, [], ""
    if (talk.labels >= 0).sum() < 2:
        findings.append("What the speakers saw was not recorded as a label, so symbols cannot be set against it.")
    else:
        told = basics.label_information(
            talk.symbols, talk.labels, shuffles=CONTROLS, streams=talk.episodes, seats=talk.column("sender")
        )
        classes = int(talk.labels.max()) + 1
        most = float(basics.entropy(np.bincount(talk.labels[talk.labels >= 0])))
        verdict = "the symbols have meaning" if told.above_chance else "no more than chance"
        headline = (
            f"Meaning: position {told.position + 1} tells {told.adjusted:.2f} (above chance) of the {most:.2f} bits in "
            f"what its speaker saw: {verdict} (p = {told.p_value:.2f})."
        )
        findings += [headline, "Chance is what symbols share with labels of other episodes, in their order in time."]
        found = _by_label(run, told.position, classes)
        groups[f"By what the speaker saw (label), position {told.position + 1}"] = (found, numbered("label", classes))
    names = talk.agents[1]
    why_not = members.incomparable(talk) if len(names) > 1 else ""
    if why_not:
        findings.append(f"{why_not} So nothing is said of dialects.")
    elif len(names) > 1:
        found = members.specialisation(talk, run.vocab_size)
        far = int(np.nanargmax(found.divergence - found.chance))
        own = "a way of speaking of its own" if found.p_value <= basics.LEVEL else "no more than chance"
        findings.append(
            f"The member most unlike the others is {names[far]}: {found.divergence[far]:.3f} bits from the population, "
            f"{found.chance[far]:.3f} if members are dealt to their seats anew: {own} (p = {found.p_value:.2f}). On "
            f"average they are {np.nanmean(found.divergence):.3f} bits from it, {np.nanmean(found.chance):.3f} so."
        )
        groups["By member, all positions"] = (found, names)
    if not groups:
        return missing("symbol_specialisation", "One speaker and no labels: there is nothing to compare.")
    return drawn("symbol_specialisation", findings, headline, pictures.symbol_specialisation(groups))


def _by_label(run: RunFolder, position: int, classes: int) -> basics.Specialisation:
    """How symbols at a position differ between labels; by chance: with the labels of other episodes."""
    talk = run.talk
    assert talk.symbols is not None
    order = np.lexsort((talk.column("sender"), talk.episodes))
    symbols, labels = talk.symbols[order][:, [position]], talk.labels[order]
    sizes = np.unique(talk.episodes, return_counts=True)[1]
    return basics.specialisation(
        symbols, labels, run.vocab_size, classes, deal=lambda rng: labels[basics.displaced(sizes, rng)]
    )


def temporal_patterns(run: RunFolder) -> Section:
    talk = run.talk
    if talk.symbols is None:
        return missing("temporal_patterns", no_symbols(run))
    steps = talk.column("step")
    measured = {lag: basics.sequential_information(talk.symbols, talk.streams, steps, lag) for lag in LAGS}
    measured = {lag: found for lag, found in measured.items() if found.samples >= 2}
    if 1 not in measured:
        return missing("temporal_patterns", "No speaker was recorded for two steps in a row.")
    one = measured[1]
    follows = basics.transitions(talk.symbols, talk.streams, steps, run.vocab_size)
    again = np.trace(follows) / follows.sum()
    findings = [
        f"A symbol shares {one.bits:.3f} bits with the one before it at its position, {one.chance:.3f} when steps are "
        f"shuffled; it is the same one again in {again:.0%} of {follows.sum():,} cases. How much of this is order of "
        "the language, and how much what there was to see, these numbers cannot tell.",
        *_order(talk, steps),
    ]
    figure = pictures.temporal_patterns(list(measured), list(measured.values()), follows)
    return drawn("temporal_patterns", findings, "", figure)


def _order(talk: Conversations, steps: np.ndarray) -> list[str]:
    """Whether symbols have an order beyond what was seen and what stays; nothing where it is not known what was."""
    assert talk.symbols is not None
    if len(np.unique(talk.labels[talk.labels >= 0])) < 2:
        return []
    told = basics.sequential_information(
        talk.symbols, talk.streams, steps, shuffles=CONTROLS, labels=talk.labels, cap=ORDERED, keep_stays=True
    )
    if told.samples < 2:
        return []
    verdict = "there is an order beyond that of what was seen" if told.above_chance else "no more than chance"
    return [
        f"In two steps in which the speaker sees the same it is {told.bits:.3f} bits, and {told.chance:.3f} where "
        f"messages change places only among such steps and stay as long as they do: {verdict} (p = {told.p_value:.2f})."
    ]


def _over_positions(found: drift.Drift) -> drift.Drift:
    """Drift [C - 1, L] -> [C - 1]: the mean over positions; nan where a checkpoint shares no label with the other."""
    return drift.Drift(*(values.mean(1) for values in found))
