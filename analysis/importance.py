"""The section on whose messages matter to whom."""

from __future__ import annotations

import numpy as np
from popcomm.analysis.page import Section
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import drawn, missing

from popcomm.language import importance_picture

COLUMN = f"language/{importance_picture.PREFIX}"


def message_importance(run: RunFolder) -> Section:
    """Of the last tenth of the iterations in which listeners were asked."""
    numbers = {key: run.last(key) for key in run.progress if key.startswith(COLUMN)}
    if not any(np.isfinite(value) for value in numbers.values()):
        if run.message_kind is None and run.config:
            return missing("message_importance", "Nobody says anything in this run, so no message matters.")
        asked = "Listeners were not asked about single messages; recording.importance_every says how often they are."
        return missing("message_importance", asked)
    senders, receivers, matrix = importance_picture.pairs(numbers, COLUMN)
    row, column = np.unravel_index(int(np.nanargmax(matrix)), matrix.shape)
    headline = (
        f"Importance: {senders[row]} matters most, to {receivers[column]}, whose policy moves by "
        f"{matrix[row, column]:.2f} where its message is missing."
    )
    mean, removed = run.last("language/importance"), run.last("language/importance_removed")
    worth = run.last("language/value_importance")
    found = [
        headline,
        f"In the mean over all messages it moves by {removed:.3f} so, and by {mean:.3f} with what the sender might "
        f"have said otherwise (little, where senders are sure); what the receiver expects to earn then changes by "
        f"{worth:.3f} deviations of its returns.",
    ]
    figure = importance_picture.message_importance(senders, receivers, matrix)
    return drawn("message_importance", found, headline, figure)
