"""What the sections of a report have in common: their questions, and how one is made or said to be missing."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.figure import Figure
from popcomm.analysis.page import Section, Table
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import pictures


class Question(NamedTuple):
    """What a section is about, in any run."""

    title: str  # the question that its picture answers
    look: str  # what to look for
    computed: str  # how the picture was made
    change: str = ""  # what would change the section's sentence in the summary


QUESTIONS = {
    "training_progress": Question(
        "Does it learn?",
        "A healthy run: the return rises, explained variance approaches 1, the entropies fall slowly but not to 0, "
        "and the updates stay small (approx. KL below about 0.02). Where worlds start staggered, or episodes grow, "
        "returns of different lengths are not alike: look at the reward per step. Pale lines are iterations, strong "
        "ones their mean over a few around; the number in a legend is the mean of the last tenth of the iterations.",
        "From progress.jsonl, which has a line for each iteration: returns are means over the episodes that ended in "
        "it, losses means over its updates.",
        "other seeds, as this is one run",
    ),
    "curves": Question(
        "What does one measure do?",
        "Choose a measure, and point at its curve for the number there.",
        "From progress.jsonl; curves of many iterations have every so-manyth of them.",
    ),
    "conversation": Question(
        "Who says what to whom?",
        "Choose a world and an episode, and move through its steps. A reading that agrees with what the speaker saw "
        "is a word of the language that was understood; what the hearers did a step later is beside it.",
        "The newest episodes, as they were recorded. A reading is the label that went with the message most often in "
        "other episodes than its own: with the whole message, or with the one position that is read rightly most "
        "often.",
    ),
    "symbol": Question(
        "When is a symbol said?",
        "Choose a symbol. One that stands for a thing goes with few labels; one that all say all the time goes with "
        "none.",
        "Counted over the episodes of the conversation browser, all positions together; over training, over all "
        "recorded conversations in up to ten parts.",
    ),
    "exchanges": Question(
        "Who hears whom, and how often?",
        "Point at an arrow, or tap it, for its counts. Arrows that are missing are pairs that never met within "
        "earshot.",
        "Counted over all recorded messages that the line under the title tells of; a hearer is whoever got a "
        "message, whether it listened or not.",
    ),
    "pair": Question(
        "How do two of them differ?",
        "Choose two. Symbols that one says far more often than the other stand first; below is what each says of the "
        "same thing.",
        "Counted over the episodes of the conversation browser; the distance is the Jensen-Shannon divergence between "
        "the two's symbols, all positions together, of which few messages make too much.",
    ),
    "symbol_use": Question(
        "Which symbols are used?",
        "A bright column is a symbol said all the time, a grey one a symbol that is never said; rows that differ mean "
        "that positions have roles of their own. A vocabulary used less than 70% is a sign of specialisation, or of "
        "collapse when one symbol takes it all. Natural languages lie near the dotted line of Zipf's law.",
        "Counted over all recorded messages that the line under the title tells of; entropy is that of relative "
        "frequencies.",
        "messages of another time, or of more worlds",
    ),
    "vocabulary_over_training": Question(
        "Does the vocabulary settle?",
        "Left: rows that light up and go dark are symbols that came into use and were given up. Right: a line that "
        "falls under the dotted one and stays there is a language that has settled. The line for the same label is "
        "about the language alone; the other one also moves when there is something else to talk about.",
        "Of all recorded conversations, in up to ten parts: Jensen-Shannon divergence between the symbols of two "
        "parts, less that of whole episodes dealt to the two at random. Where messages vary in length, that one was "
        "over counts like a symbol.",
        "a longer run",
    ),
    "symbol_specialisation": Question(
        "Do symbols have a meaning, and do members speak differently?",
        "A diagonal in the upper part means that symbols stand for what the speaker saw (a code); rows that look "
        "alike mean that they do not. By member, rows that differ are ways of speaking of their own. Bars that reach "
        "the orange mark are what chance gives: labels of other episodes, members dealt to their seats anew.",
        "Relative frequencies of symbols in the recorded messages of each row; distances are Jensen-Shannon "
        "divergences from all rows together, and information is corrected as the page on the language says.",
        "labels of something else that speakers see, or more episodes",
    ),
    "temporal_patterns": Question(
        "What follows what in time?",
        "Blue above the orange band means that a symbol tells something of later ones. That is so in every slow "
        "world: who sees the same for several steps says the same, and what is seen next depends on what is seen now. "
        "So it is no sign of a grammar. A bright diagonal in the matrix is repetition; bright cells off it are "
        "symbols that follow one another.",
        "Plug-in mutual information of the symbols of one speaker at one position, some steps apart; the band is the "
        "same after steps were shuffled.",
    ),
    "topology": Question(
        "Who listens to whom?",
        "One moment of one world. Look for agents that many thick arrows leave, for pairs that hear only each other, "
        "and for groups without an arrow between them: a language cannot spread there.",
        "The newest recorded moment with most links; weights are what the listeners' attention gave to each message.",
    ),
    "attention_hubs": Question(
        "Who is listened to, and who passes things on?",
        "Left: a bar over the dashed line is a sender that is listened to more than its neighbours. A member is a hub "
        "(orange) if that is over 0.2, 1.2 times the uniform share, and more than the most favoured one would get if "
        "members were dealt to the seats anew. Right: relays lie on the strongest paths between others, so that what "
        "they hear can spread.",
        "Left: means over all recorded links. Right: betweenness in the graph of mean attention, a path being as long "
        "as the sum of 1 / attention.",
        "members dealt to other seats, or more recorded steps",
    ),
    "message_importance": Question(
        "Whose messages matter?",
        "Bright cells are senders whose messages a receiver acts on: without them its policy would have been as far "
        "from what it was (total variation; 0: the same, 1: nothing in common). A dark row is a sender that nobody "
        "heeds.",
        "Listeners' networks answered again, with each message taken away; means over the last tenth of the iterations "
        "in which they were asked.",
        "more iterations in which listeners are asked (recording.importance_every), or other seeds",
    ),
    "learned_graph": Question(
        "Which links were learned?",
        "A line that falls to 0 is a link that was shut: its price was higher than what it was good for. One that "
        "comes back was needed after all. What is shut when the graph is pruned stays so, and costs nothing any more.",
        "Strengths of the links (weights of those who hear) after every iteration; 0 is a link that is shut.",
        "another price (communication.topology), or other seeds",
    ),
    "gates": Question(
        "Who lets in what, and who may speak?",
        "Dark cells are senders that a receiver shuts out. A short bar is a sender that keeps silent where it might "
        "speak, or whose messages yield to more urgent ones.",
        "Means over the last tenth of the iterations: of receivers' gates over all numbers of all messages, of "
        "senders' over the steps in which they may speak, of priorities over what was said. More than eight seats "
        "stand for their species.",
        "runs with and without the gates, over several seeds",
    ),
    "family_tree": Question(
        "Who has children, and whose lines are left?",
        "Left: a colour that widens is a line that spreads; when one takes all, what is left of the diversity is what "
        "mutation and learning bring. Right: a line above the median has more children. Grey is everybody else.",
        "From lineage.parquet, which has a row for each member of each generation.",
        "another seed, or another pressure of selection",
    ),
    "speech_of_lines": Question(
        "Do lines have languages of their own?",
        "Bright blocks along the diagonal, with darker ones between them, are lines that speak in a way of their own. "
        "An even matrix means that what was learned since, by all together, counts for more than descent. It is of how "
        "alike they speak, and not of who understands whom, which only play between them tells.",
        "Bhattacharyya coefficient of two members' symbols at a position on the same label: a mean over positions, "
        "and over labels of which both of them spoke five times at least. Of the newest conversations, what those who "
        "live said in their own lives.",
    ),
}


def drawn(name: str, findings: list[str], headline: str, figure: Figure, **beside: Any) -> Section:
    """A section with its picture; what else it has is `Section`'s."""
    about = QUESTIONS[name]
    return Section(
        name, about.title, about.look, findings, headline, picture=pictures.png(figure), computed=about.computed,
        change=about.change, **beside,
    )  # fmt: skip


def missing(name: str, reason: str) -> Section:
    about = QUESTIONS[name]
    return Section(name, about.title, about.look, missing=reason)


def closer(name: str, findings: list[str], table: Table | None, **beside: Any) -> Section:
    """A section that one can look into."""
    about = QUESTIONS[name]
    return Section(name, about.title, about.look, findings, computed=about.computed, table=table, **beside)


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
