"""Survival inside one training: who lives on, who has children, and what these inherit. Pure verbs on explicit state.

fitness -> `lived`; select -> `chosen`; reproduce -> `succeeded`, with `mutate`, `crossed` and `inherited` for what is
inherited; lineage -> `lineage.rows`. No Ray in here: the trainer carries it out (`popcomm/rllib/survival.py`).
"""

from popcomm.evolution.age_limit import AgeLimit
from popcomm.evolution.generation import NOBODY, Generation, check_sources, lived, succeeded
from popcomm.evolution.lineage import COLUMNS, family_tree, measures
from popcomm.evolution.making import STRATEGIES, chosen, make_strategy, rehearse
from popcomm.evolution.meetings import Meetings
from popcomm.evolution.novelty import Novelty, novelty
from popcomm.evolution.strategy import COPY, NEWBORNS, Strategy, Traits, ranked, shared
from popcomm.evolution.top_k import TopK
from popcomm.evolution.tournament import Tournament
from popcomm.evolution.truncation import Truncation
from popcomm.evolution.variation import crossed, inherited, mates_of, mutate, taught_by_the_living

__all__ = [
    "COLUMNS",
    "COPY",
    "NEWBORNS",
    "NOBODY",
    "STRATEGIES",
    "AgeLimit",
    "Generation",
    "Meetings",
    "Novelty",
    "Strategy",
    "TopK",
    "Tournament",
    "Traits",
    "Truncation",
    "check_sources",
    "chosen",
    "crossed",
    "family_tree",
    "inherited",
    "lived",
    "make_strategy",
    "mates_of",
    "measures",
    "mutate",
    "novelty",
    "ranked",
    "rehearse",
    "shared",
    "succeeded",
    "taught_by_the_living",
]
