"""Attention: which senders are listened to most (hubs), and through whom messages run (relays)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A neighbour with more weight than this is a hub; among few neighbours all of them have as much, so a hub must also
# stand out of the uniform share by HUB_RATIO.
HUB_WEIGHT = 0.2
HUB_RATIO = 1.2
LENGTH_SCALE = 10**12  # lengths of links, 1 / weight, are compared to so many parts of one


def top_attention(weights: Array, mask: Array | None = None) -> float:
    """Mean over listeners of their largest neighbour weight: [..., K] -> 0 ... 1, and 1 / K where attention is uniform.

    Args:
        weights: [..., K], one listener's weights in a row.
        mask: [..., K] bool, which messages are real; a listener that hears nobody is left out. nan: all hear nobody.
    """
    real = np.ones(weights.shape, bool) if mask is None else mask
    hears = real.any(-1)
    return float(np.where(real, weights, 0.0).max(-1)[hears].mean()) if hears.any() else float("nan")


def received_weight(senders: Array, weights: Array, num_agents: int) -> Array:
    """Mean weight that each sender gets from those who hear it: links [E], [E] -> [N]; nan: nobody hears it."""
    heard = np.bincount(senders, minlength=num_agents)
    total = np.bincount(senders, weights, minlength=num_agents)
    return np.divide(total, heard, out=np.full(num_agents, np.nan), where=heard > 0)


def hubs(received: Array, inbox_size: float) -> Array:
    """Which senders are hubs: a weight over 0.2, and at least 1.2 times the uniform share 1 / K: [N] -> [N] bool."""
    known = np.nan_to_num(received, nan=0.0)
    return (known > HUB_WEIGHT) & (known * inbox_size >= HUB_RATIO)


def attention_matrix(senders: Array, receivers: Array, weights: Array, num_agents: int) -> Array:
    """Share of each listener's attention that went to each sender: links [E] -> [N (sender), N (listener)].

    Columns sum to one; that of an agent that heard nobody is zero.
    """
    codes = senders.astype(np.int64) * num_agents + receivers
    total = np.bincount(codes, weights, minlength=num_agents**2).reshape(num_agents, num_agents)
    heard = total.sum(0, keepdims=True)
    return np.divide(total, heard, out=np.zeros(total.shape), where=heard > 0)


def betweenness(weights: Array, max_sources: int = 512, seed: int = 0) -> Array:
    """Relays: the share of shortest paths between two others that run through an agent: [N, N] -> [N] in 0 ... 1.

    weights[i, j] > 0 is a link from i to j of length 1 / weight (Newman 2001). Brandes 2001, by networkx; with more
    than `max_sources` agents that many sources are drawn, and the sum is scaled up (Brandes & Pich 2007). Fewer than
    three agents have nobody between them: 0.
    """
    import networkx

    n = len(weights)
    if n < 3:
        return np.zeros(n)
    links = np.argwhere((weights > 0) & ~np.eye(n, dtype=bool))
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(n))
    # Whole numbers, so that paths of the same length are equal whatever the order of their sums.
    graph.add_weighted_edges_from(
        ((i, j, round(LENGTH_SCALE / float(weights[i, j]))) for i, j in links.tolist()), "length"
    )
    sources = max_sources if n > max_sources else None
    found = networkx.betweenness_centrality(graph, k=sources, weight="length", seed=seed)
    return np.array([found[agent] for agent in range(n)], float)
