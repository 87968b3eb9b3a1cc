"""What the sections of a report have in common: their questions, and how one is made or said to be missing."""

from __future__ import annotations

from matplotlib.figure import Figure
from popcomm.analysis.page import Chart, Section
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import pictures

# For each picture: the question that it answers, and what to look for in any run.
QUESTIONS = {
    "training_progress": (
        "Does it learn?",
        "A healthy run: the return rises, explained variance approaches 1, the entropies fall slowly but not to "
        "0, and the updates stay small (approx. KL below about 0.02). Where worlds start staggered, or episodes grow, "
        "returns of different lengths are not alike: look at the reward per step. Pale lines are iterations, strong "
        "ones their mean over a few around; the number in a legend is the mean of the last tenth of the iterations.",
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
        "Do symbols have a meaning, and do members speak differently?",
        "A diagonal in the upper part means that symbols stand for what the speaker saw (a code); rows that look "
        "alike mean that they do not. By member, rows that differ are ways of speaking of their own. Bars that reach "
        "the orange mark are what chance gives: labels of other episodes, members dealt to their seats anew.",
    ),
    "temporal_patterns": (
        "What follows what in time?",
        "Blue above the orange band means that a symbol tells something of later ones. That is so in every slow world: "
        "who sees the same for several steps says the same, and what is seen next depends on what is seen now. So it "
        "is no sign of a grammar. A bright diagonal in the matrix is repetition; bright cells off it are symbols "
        "that follow one another.",
    ),
    "topology": (
        "Who listens to whom?",
        "One moment of one world. Look for agents that many thick arrows leave, for pairs that hear only "
        "each other, and for groups without an arrow between them: a language cannot spread there.",
    ),
    "attention_hubs": (
        "Who is listened to, and who passes things on?",
        "Left: a bar over the dashed line is a sender that is listened to more than its neighbours. A member is a hub "
        "(orange) if that is over 0.2, 1.2 times the uniform share, and more than the most favoured one would get if "
        "members were dealt to the seats anew. Right: relays lie on the strongest paths between others, so that "
        "what they hear can spread.",
    ),
    "message_importance": (
        "Whose messages matter?",
        "Bright cells are senders whose messages a receiver acts on: without them its policy would have been as far "
        "from what it was (total variation; 0: the same, 1: nothing in common). A dark row is a sender that nobody "
        "heeds.",
    ),
    "family_tree": (
        "Who has children, and whose lines are left?",
        "Left: a colour that widens is a line that spreads; when one takes all, what is left of the diversity is what "
        "mutation and learning bring. Right: a line above the median has more children. Grey is everybody else.",
    ),
    "speech_of_lines": (
        "Do lines have languages of their own?",
        "Bright blocks along the diagonal, with darker ones between them, are lines that speak in a way of their own. "
        "An even matrix means that what was learned since, by all together, counts for more than descent.",
    ),
}


def drawn(name: str, findings: list[str], headline: str, figure: Figure, chart: Chart | None = None) -> Section:
    question, look = QUESTIONS[name]
    return Section(name, question, look, findings, headline, picture=pictures.png(figure), chart=chart)


def missing(name: str, reason: str) -> Section:
    return Section(name, *QUESTIONS[name], missing=reason)


def no_symbols(run: RunFolder) -> str:
    if run.message_kind == "vectors":
        return "The agents of this run send vectors: there are no symbols to count."
    if run.message_kind is None and run.config:
        return "The agents of this run are silent: there is no language to look at."
    return no_talk(run)


def no_links(run: RunFolder) -> str:
    if run.message_kind is None and run.config:
        return "The agents of this run are silent: nobody listens to anybody."
    return "No recorded message was heard by anybody." if run.talk.size else no_talk(run)


def no_talk(run: RunFolder) -> str:
    if run.talk.size:
        return "The recorded conversations hold no messages of this kind."
    return "No conversation is recorded yet; recording.conversation_every says how often one is."


def numbered(word: str, count: int) -> list[str]:
    return [f"{word} {i}" for i in range(count)]


def counted(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
