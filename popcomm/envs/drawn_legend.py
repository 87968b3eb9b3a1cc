"""The legend under a picture: the part that pictures of different environments share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

# Of a marker in the legend, as it is drawn in the picture.
OUTLINED: dict[str, Any] = {"linestyle": "none", "markeredgecolor": "#000000", "markeredgewidth": 0.5}


def legend_below(figure: Figure, handles: Sequence[Any], **look: Any) -> None:
    """All handles in one row below. look: what matplotlib's legend takes, in place of what is usual here."""
    usual: dict[str, Any] = {"fontsize": 7.5, "frameon": False, "handletextpad": 0.4, "columnspacing": 1.0}
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), **usual | look)
