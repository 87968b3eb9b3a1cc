"""The K nearest others of every agent, for a batch of worlds at once."""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.channels.links import Links

# Above this many agents a k-d tree beats the distance matrix on CPU (measured on one core for k = 4 and 8).
TREE_FROM_AGENTS = 96
# Numbers in one chunk of the distance matrix: 8 MiB of float32 stays in the cache of most machines.
CHUNK_ELEMENTS = 2**21


def nearest(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """Whom every seat has nearest, nearest first; masked where fewer than k others are present.

    Args:
        positions: [B, N, D] float32.
        present: [B, N] bool.
        k: K.
        torus: the world's extent along each of the D axes where it wraps round, or None.
    """
    if positions.device.type == "cpu" and positions.shape[1] >= TREE_FROM_AGENTS:
        return nearest_by_tree(positions, present, k, torus)
    return nearest_by_matrix(positions, present, k, torus)


def nearest_by_matrix(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """K nearest by squared distances, [chunk, N, N] at a time (receivers are chunked too when N is large)."""
    worlds, n, _ = positions.shape
    receivers = max(1, min(n, CHUNK_ELEMENTS // n))
    step = max(1, CHUNK_ELEMENTS // (receivers * n))
    chunks = [
        _nearest_chunk(positions[b : b + step], present[b : b + step], i, min(i + receivers, n), k, torus)
        for b in range(0, worlds, step)
        for i in range(0, n, receivers)
    ]
    per_world = -(-n // receivers)
    rows = [
        Links(*(torch.cat(parts, 1) for parts in zip(*chunks[j : j + per_world], strict=True)))
        for j in range(0, len(chunks), per_world)
    ]
    return Links(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


def _nearest_chunk(
    positions: Tensor, present: Tensor, start: int, stop: int, k: int, torus: tuple[float, ...] | None
) -> Links:
    distance = torch.zeros((), device=positions.device)
    for axis in range(positions.shape[-1]):
        x = positions[..., axis]
        gap = (x[:, start:stop, None] - x[:, None, :]).abs_()
        if torus is not None:
            gap = torch.minimum(gap, torus[axis] - gap)
        distance = distance + gap.square_()
    distance.masked_fill_(~present.unsqueeze(1), torch.inf)
    seats = torch.arange(start, stop, device=positions.device)
    distance[:, seats - start, seats] = torch.inf
    values, senders = distance.topk(k, dim=-1, largest=False)
    return Links(senders, values.isfinite())


def nearest_by_tree(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """K nearest by one k-d tree over all worlds, which a far coordinate of their own keeps apart: O(N log N)."""
    worlds, n, axes = positions.shape
    points = positions.reshape(worlds * n, axes).double()
    span = torch.tensor(torus, dtype=torch.float64) if torus is not None else None
    if span is None:
        points = points - points.amin(0)
    else:
        points = points % span
        # The remainder of a tiny negative number rounds to the extent itself, which the tree refuses.
        points = torch.where(points < span, points, 0.0)
    far = 4.0 * float(axes**0.5) * (max(torus) if torus is not None else float(points.max()) + 1.0)
    world = torch.arange(worlds).repeat_interleave(n)
    apart = torch.cat([points, (far * world).unsqueeze(1).double()], 1).numpy()
    here = present.reshape(-1).nonzero().squeeze(1)
    box = None if torus is None else [*torus, 0.0]
    from scipy.spatial import cKDTree  # trainings begin without it

    tree = cKDTree(apart[here.numpy()], boxsize=box, balanced_tree=False, compact_nodes=False)
    # Column k + 1 is what is left when a point finds itself; a missing neighbour has the index len(here).
    found = torch.as_tensor(tree.query(apart, k=k + 1)[1])
    missing = found == len(here)
    seats = torch.cat([here, here.new_zeros(1)])[found]
    own = seats == torch.arange(worlds * n).unsqueeze(1)
    real = ~missing & ~own & (world[seats] == world.unsqueeze(1))
    order = (~real).to(torch.int8).sort(dim=1, stable=True).indices[:, :k]
    senders, mask = seats.gather(1, order), real.gather(1, order)
    senders = torch.where(mask, senders % n, 0)
    return Links(senders.view(worlds, n, k), mask.view(worlds, n, k))
