"""The sections of a report: for each picture, the numbers of this run and what they mean, or why it is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from popcomm.analysis.collapses import collapses
from popcomm.analysis.history import History
from popcomm.analysis.page import Section
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import basics, drift, drift_picture, pictures

# Fewer symbols than this for each of the vocabulary's cannot show that one of them is unused.
SYMBOLS_PER_ENTRY = 5
# A symbol this common leaves the others nothing to say.
COLLAPSED = 0.9
LAGS = (1, 2, 3, 4, 6, 8)
SHUFFLES = 3  # of the control of drift, a mean over positions and labels

# For each picture: the question that it answers, and what to look for in any run.
QUESTIONS = {
    "training_progress": (
        "Does it learn?",
        "A healthy run: the return rises, explained variance approaches 1, the entropies fall slowly but not to "
        "0, and the updates stay small (approx. KL below about 0.02). Pale lines are iterations, strong ones "
        "their mean over a few around; the number in a legend is the mean of the last few.",
    ),
    "symbol_use": (
        "Which symbols are used?",
        "A bright column is a symbol said all the time, a grey one a symbol that is never said; rows that differ "
        "mean that positions have roles of their own. A vocabulary used less than 70% is a sign of "
        "specialisation, or of collapse when one symbol takes it all. Natural languages lie near the dotted line "
        "of Zipf's law.",
    ),
    "vocabulary_over_training": (
        "Does the vocabulary settle?",
        "Left: rows that light up and go dark are symbols that came into use and were given up. Right: a line that "
        "falls under the dotted one and stays there is a language that has settled. The line for the same label is "
        "about the language alone; the other one also moves when there is something else to talk about.",
    ),
    "symbol_specialisation": (
        "Do symbols have a meaning, and do speakers have dialects?",
        "A diagonal in the upper part means that symbols stand for what the speaker saw (a code); rows that look "
        "alike mean that they do not. By speaker, rows that differ are dialects. Bars well beyond the orange mark"
        " of chance are real differences, bars that reach it come from few messages.",
    ),
    "temporal_patterns": (
        "Is there order in time?",
        "Blue above the orange band means that the order of symbols carries information, the mark of a temporal "
        "grammar or simply of a slow world: who sees the same for several steps says the same. A bright diagonal "
        "in the matrix is repetition; bright cells off it are symbols that call for one another.",
    ),
    "topology": (
        "Who listens to whom?",
        "One moment of one world. Look for agents that many thick arrows leave (hubs), for pairs that hear only "
        "each other, and for groups without an arrow between them: a language cannot spread there.",
    ),
    "attention_hubs": (
        "Who leads, and who passes things on?",
        "Left: a bar over the dashed line is a sender that is listened to more than its neighbours; over 0.2 on "
        "one neighbour as well, it is a hub. Right: relays lie on the strongest paths between others, so that "
        "what they hear can spread; a hub that is no relay is heard but does not listen.",
    ),
}


def all_sections(run: RunFolder) -> list[Section]:
    """Every section of the report, in the order of the page."""
    makers = (
        training_progress,
        symbol_use,
        vocabulary_over_training,
        symbol_specialisation,
        temporal_patterns,
        topology,
        attention_hubs,
    )
    return [make(run) for make in makers]


def training_progress(run: RunFolder) -> Section:
    iterations = len(run.progress)
    if not iterations or not any(key in run.progress for panel in pictures.PANELS for key in panel.lines):
        return _missing("training_progress", "No iteration is finished yet: progress.jsonl holds no measurement.")
    findings, headline = [], ""
    key = "charts/agent_episodic_return"
    returns = run.progress.get(key, pd.Series(dtype=float)).dropna()
    if iterations < 10:
        findings.append(f"Only {_count(iterations, 'iteration')} so far: too few to see a trend.")
    elif len(returns) >= 10:
        tenth = max(1, len(returns) // 10)
        first, last = returns.head(tenth).mean(), returns.tail(tenth).mean()
        headline = f"Return per agent: {first:.3g} in the first tenth of the run, {last:.3g} in the last."
        findings.append(headline)
    else:
        findings.append("No episode has ended yet, so there is no return.")
    if np.isfinite(r2 := run.last("losses/world_r2")):
        findings.append(f"The agents' world model explains {r2:.0%} of the variance of the world's state (R²).")
    fallen, at_the_end = collapses(run)
    findings += fallen
    headline = " ".join(filter(None, [headline, at_the_end]))
    return _drawn("training_progress", findings, headline, pictures.training_progress(run.progress))


def symbol_use(run: RunFolder) -> Section:
    symbols = run.talk.symbols
    if symbols is None:
        return _missing("symbol_use", _no_symbols(run))
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
    return _drawn("symbol_use", findings, headline, pictures.symbol_use(counts))


def vocabulary_over_training(run: RunFolder) -> Section:
    if run.talk.symbols is None:
        return _missing("vocabulary_over_training", _no_symbols(run))
    history = History.read(run.path)
    if len(history.env_steps) < 2:
        return _missing("vocabulary_over_training", "Only one conversation is recorded: there is no other to compare.")
    size = max(run.vocab_size, int(history.symbols.max()) + 1)
    counts = drift.symbol_counts(history.symbols, size, history.checkpoint)
    measured = {"all that is said": _over_positions(drift.drift(counts, shuffles=SHUFFLES))}
    if len(np.unique(history.labels[history.labels >= 0])) > 1:
        counted = drift.symbol_counts(history.symbols, size, history.checkpoint, history.labels)
        measured["on the same label"] = _over_positions(drift.drift(counted, labelled=True, shuffles=SHUFFLES))
    name, found = list(measured.items())[-1]
    above, away = found.consecutive_above_chance, found.to_last_above_chance
    since = drift.stable_from(above, drift.SETTLED, history.env_steps[:-1])
    if since is None:
        verdict = f"it has not settled (a drift under {drift.SETTLED} bits)"
    else:
        verdict = f"it stays under {drift.SETTLED} bits from {since:,} environment steps on"
    headline = f"Over training: {name}, symbols drifted {above[-1]:.3f} bits above chance at the last step; {verdict}."
    findings = [
        headline,
        f"The first of {len(history.env_steps)} checkpoints is {away[0]:.3f} bits from the last one, above chance. "
        "These are means over the positions of a message; 0 bits is the same use of symbols, 1 bit none in common.",
    ]
    shares = counts.sum(1) / counts.sum((1, 2))[:, None]
    figure = drift_picture.vocabulary_over_training(history.env_steps, shares, measured)
    return _drawn("vocabulary_over_training", findings, headline, figure)


def symbol_specialisation(run: RunFolder) -> Section:
    talk = run.talk
    if talk.symbols is None:
        return _missing("symbol_specialisation", _no_symbols(run))
    groups, findings, headline = {}, [], ""
    if (talk.labels >= 0).sum() < 2:
        findings.append("What the speakers saw was not recorded as a label, so symbols cannot be set against it.")
    else:
        told = basics.label_information(talk.symbols, talk.labels)
        classes = int(talk.labels.max()) + 1
        most = float(basics.entropy(np.bincount(talk.labels[talk.labels >= 0])))
        verdict = "the symbols have meaning" if told.above_chance else "no more than chance"
        headline = (
            f"Meaning: position {told.position + 1} tells {told.adjusted:.2f} (above chance) of the {most:.2f} bits in "
            f"what its speaker saw: {verdict}."
        )
        findings.append(headline)
        found = basics.specialisation(talk.symbols[:, [told.position]], talk.labels, run.vocab_size, classes)
        groups[f"By what the speaker saw (label), position {told.position + 1}"] = (found, _numbered("label", classes))
    agent, names = talk.agents
    if len(names) > 1:
        who = "member" if talk.by_member else "seat"
        found = basics.specialisation(talk.symbols, agent, run.vocab_size, len(names))
        far = int(np.nanargmax(found.divergence - found.chance))
        findings.append(
            f"The {who} most unlike the others is {names[far]}: {found.divergence[far]:.3f} bits from the population, "
            f"{found.chance[far]:.3f} by chance; on average {np.nanmean(found.divergence):.3f}, by chance "
            f"{np.nanmean(found.chance):.3f}."
        )
        groups[f"By speaker ({who}), all positions"] = (found, names)
    if not groups:
        return _missing("symbol_specialisation", "One speaker and no labels: there is nothing to compare.")
    return _drawn("symbol_specialisation", findings, headline, pictures.symbol_specialisation(groups))


def temporal_patterns(run: RunFolder) -> Section:
    talk = run.talk
    if talk.symbols is None:
        return _missing("temporal_patterns", _no_symbols(run))
    steps = talk.column("step")
    measured = {lag: basics.sequential_information(talk.symbols, talk.streams, steps, lag) for lag in LAGS}
    measured = {lag: found for lag, found in measured.items() if found.samples >= 2}
    if 1 not in measured:
        return _missing("temporal_patterns", "No speaker was recorded for two steps in a row.")
    one = measured[1]
    against = f"{one.bits:.3f} bits with the one before, {one.chance:.3f} when steps are shuffled"
    verdict = "order carries information" if one.above_chance else "no order beyond chance"
    headline = f"Time: a symbol shares {against}: {verdict}."
    follows = basics.transitions(talk.symbols, talk.streams, steps, run.vocab_size)
    again = np.trace(follows) / follows.sum()
    findings = [
        headline,
        f"The next symbol at the same position is the same one again in {again:.0%} of {follows.sum():,} cases.",
    ]
    figure = pictures.temporal_patterns(list(measured), list(measured.values()), follows)
    return _drawn("temporal_patterns", findings, headline, figure)


def topology(run: RunFolder) -> Section:
    talk = run.talk
    if talk.links is None:
        return _missing("topology", _no_links(run))
    now = talk.snapshot()
    agent, names = talk.agents
    number = "member" if talk.by_member else "seat"
    label = [names[i].split(" ")[-1] for i in agent[now.rows]]
    where = ", ".join(f"{name} {talk.column(name)[now.rows[0]]}" for name in ("iteration", "world", "step"))
    findings = [f"At {where}, {_count(len(now.rows), 'agent')} exchange {_count(len(now.links), 'message')}."]
    is_hub = None
    if now.weights is None:
        findings.append("These agents report no attention weights, so all arrows are alike.")
    else:
        is_hub = basics.hubs(*_received(run))[agent[now.rows]]
        top = int(now.weights.argmax())
        sender, listener = (label[i] for i in now.links[top])
        findings.append(
            f"The heaviest arrow runs from {number} {sender} to {number} {listener}: {now.weights[top]:.2f} of the "
            "listener's attention."
        )
    figure = pictures.topology(
        now.links,
        len(now.rows),
        now.weights,
        None if talk.positions is None else talk.positions[now.rows],
        talk.torus,
        talk.table["species"].take(now.rows).to_pylist() if len(talk.species) > 1 else None,
        is_hub,
        label,
        f"Who listens to whom (numbers: {number})",
    )
    return _drawn("topology", findings, "", figure)


def attention_hubs(run: RunFolder) -> Section:
    talk, links = run.talk, run.talk.links
    if links is None:
        return _missing("attention_hubs", _no_links(run))
    if links.weights is None:
        reason = "These agents report no attention weights: nobody is a hub or a relay by attention."
        return _missing("attention_hubs", reason)
    received, inbox = _received(run)
    _, names = talk.agents
    sender, listener = talk.heard
    known = listener >= 0
    relay = basics.betweenness(
        basics.attention_matrix(sender[known], listener[known], links.weights[known], len(names))
    )
    who = "member" if talk.by_member else "seat"
    count = int(basics.hubs(received, inbox).sum())
    top, through = int(np.nanargmax(received)), int(relay.argmax())
    headline = (
        f"Hubs: {count or 'none'} of {len(names)}; {who} {names[top]} gets most, {received[top]:.2f} of its listeners' "
        f"attention, {received[top] * inbox:.2f} times the uniform share of {1 / inbox:.2f}."
    )
    favourite = f"A listener's favourite neighbour has {links.top_attention:.2f} of its attention on average."
    if 1 / inbox > basics.HUB_WEIGHT:
        favourite += f" Among {inbox:.3g} neighbours the uniform share is over 0.2 already, so look at the ratio."
    if relay[through] > 0:
        passes = f"{relay[through]:.0%} of the strongest paths between two others run through {who} {names[through]}."
    else:
        passes = "Nobody is a relay: all strongest paths are direct."
    figure = pictures.attention_hubs(received, relay, names, inbox, who)
    return _drawn("attention_hubs", [headline, favourite, passes], headline, figure)


def _over_positions(found: drift.Drift) -> drift.Drift:
    """Drift [C - 1, L] -> [C - 1]: the mean over positions; nan where a checkpoint shares no label with the other."""
    return drift.Drift(*(values.mean(1) for values in found))


def _received(run: RunFolder) -> tuple[np.ndarray, float]:
    """(mean weight that each agent gets [A], the inbox size whose inverse is the uniform weight)."""
    links = run.talk.links
    assert links is not None
    assert links.weights is not None
    return basics.received_weight(run.talk.heard[0], links.weights, len(run.talk.agents[1])), links.inbox_size


def _drawn(name: str, findings: list[str], headline: str, figure: Figure) -> Section:
    question, look = QUESTIONS[name]
    return Section(name, question, look, findings, headline, picture=pictures.png(figure))


def _missing(name: str, reason: str) -> Section:
    return Section(name, *QUESTIONS[name], missing=reason)


def _no_symbols(run: RunFolder) -> str:
    if run.message_kind == "vectors":
        return "The agents of this run send vectors: there are no symbols to count."
    if run.message_kind is None and run.config:
        return "The agents of this run are silent: there is no language to look at."
    return _no_talk(run)


def _no_links(run: RunFolder) -> str:
    if run.message_kind is None and run.config:
        return "The agents of this run are silent: nobody listens to anybody."
    return "No recorded message was heard by anybody." if run.talk.size else _no_talk(run)


def _no_talk(run: RunFolder) -> str:
    if run.talk.size:
        return "The recorded conversations hold no messages of this kind."
    return "No conversation is recorded yet; recording.conversation_every says how often one is."


def _numbered(word: str, count: int) -> list[str]:
    return [f"{word} {i}" for i in range(count)]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
