"""The K nearest others of every agent, for a batch of worlds at once.

Near is a small squared distance in float64; of equally far ones the lower seat comes first. The distance matrix and the
k-d tree find the same, on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from popcomm.channels.links import Links

# Above this many agents a k-d tree beats the distance matrix on CPU (measured on one core for k = 4 and 8).
TREE_FROM_AGENTS = 96
# Numbers in one chunk of the distance matrix: 1 MiB of float64 stays in a core's own cache.
CHUNK_ELEMENTS = 2**17
# 256 MiB: a GPU wants few and large steps.
CHUNK_ELEMENTS_OF_GPU = 2**25
# From here on one sort of all is cheaper than a search for the least of all, over and over.
SORT_FROM_K = 16
# Distances that the tree may have rounded to one another, relative to them.
ROUNDING = 1e-12


def nearest(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """Whom every seat has nearest, nearest first; masked where fewer than k others are present.

    Args:
        positions: [B, N, D] float32. On a GPU all of it happens there.
        present: [B, N] bool.
        k: K.
        torus: the world's extent along each of the D axes where it wraps round, or None.
    """
    if positions.device.type == "cpu" and positions.shape[1] >= TREE_FROM_AGENTS:
        return nearest_by_tree(positions, present, k, torus)
    return nearest_by_matrix(positions, present, k, torus)


def nearest_by_matrix(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """K nearest by the distances of all, [chunk, N, N] at a time (receivers are chunked too when N is large)."""
    worlds, n, _ = positions.shape
    points = _wrapped(positions, torus)
    elements = CHUNK_ELEMENTS if points.device.type == "cpu" else CHUNK_ELEMENTS_OF_GPU
    receivers = max(1, min(n, elements // n))
    step = max(1, elements // (receivers * n))
    rows = []
    for b in range(0, worlds, step):
        near, heard = points[b : b + step], present[b : b + step]
        chunks = [_nearest_chunk(near, heard, i, min(i + receivers, n), k, torus) for i in range(0, n, receivers)]
        rows.append(Links(*(torch.cat(parts, 1) for parts in zip(*chunks, strict=True))))
    return Links(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


def _nearest_chunk(
    points: Tensor, present: Tensor, start: int, stop: int, k: int, torus: tuple[float, ...] | None
) -> Links:
    distance = _squared(points.unsqueeze(1), points[:, start:stop].unsqueeze(2), torus)
    distance.masked_fill_(~present.unsqueeze(1), torch.inf)
    seats = torch.arange(start, stop, device=points.device)
    distance[:, seats - start, seats] = torch.inf
    return _least(distance, k)


def _wrapped(positions: Tensor, torus: tuple[float, ...] | None) -> Tensor:
    """[B, N, D] float64, within the extent where the world wraps round."""
    points = positions.double()
    if torus is None:
        return points
    # Axis by axis, for numbers need not be brought to a GPU. The remainder of a tiny negative number rounds to the
    # extent itself, which the tree refuses.
    rest = [points[..., axis] % span for axis, span in enumerate(torus)]
    return torch.stack([x.masked_fill(x >= span, 0.0) for x, span in zip(rest, torus, strict=True)], -1)


def _squared(one: Tensor, other: Tensor, torus: tuple[float, ...] | None) -> Tensor:
    """Squared distances [...] of points [..., D], axis by axis: the same bits wherever it is asked."""
    distance = None
    for axis in range(one.shape[-1]):
        gap = (one[..., axis] - other[..., axis]).abs_()
        if torus is not None:
            torch.minimum(gap, torus[axis] - gap, out=gap)
        distance = gap.square_() if distance is None else distance.add_(gap.square_())
    assert distance is not None
    return distance


def _least(distance: Tensor, k: int) -> Links:
    """The k least of each row, the first of equal ones first, which `topk` does not promise.

    Args:
        distance: [..., N], spoilt afterwards; inf for whom nobody hears.
    """
    if k >= SORT_FROM_K:
        far, seats = (values[..., :k] for values in distance.sort(dim=-1, stable=True))
    else:
        least = []
        for _ in range(k):
            least.append(distance.min(-1, keepdim=True))
            distance.scatter_(-1, least[-1].indices, torch.inf)
        far, seats = (torch.cat(parts, -1) for parts in zip(*least, strict=True))
    mask = far.isfinite()
    return Links(torch.where(mask, seats, 0), mask)


def nearest_by_tree(positions: Tensor, present: Tensor, k: int, torus: tuple[float, ...] | None = None) -> Links:
    """K nearest by one k-d tree over all worlds, which a far coordinate of their own keeps apart: O(N log N)."""
    worlds, n, axes = positions.shape
    points = _wrapped(positions, torus)
    flat = points.view(worlds * n, axes)
    far = 4.0 * float(axes**0.5) * (max(torus) if torus is not None else float(flat.max() - flat.min()) + 1.0)
    world = torch.arange(worlds).repeat_interleave(n)
    apart = torch.cat([flat, (far * world).unsqueeze(1).double()], 1).numpy()
    here = present.reshape(-1).nonzero().squeeze(1)
    box = None if torus is None else [*torus, 0.0]
    from scipy.spatial import cKDTree  # trainings begin without it

    tree = cKDTree(apart[here.numpy()], boxsize=box, balanced_tree=False, compact_nodes=False)
    # One more than k, for a point finds itself, and one to see who is as far as the last; a missing neighbour has the
    # index len(here), and becomes the seat -1.
    found = torch.as_tensor(tree.query(apart, k=k + 2)[1])
    seats = torch.cat([here, here.new_full((1,), -1)])[found].sort(dim=1).values
    own = torch.arange(worlds * n).unsqueeze(1)
    real = (seats >= 0) & (seats != own) & (seats // n == world.unsqueeze(1))
    distance = _squared(flat[seats], flat.unsqueeze(1), torus).masked_fill_(~real, torch.inf)
    distance, order = distance.sort(dim=1, stable=True)
    senders, mask = seats.gather(1, order)[:, :k] % n, distance[:, :k].isfinite()
    links = Links(torch.where(mask, senders, 0).view(worlds, n, k), mask.view(worlds, n, k))
    # Who is as far as the last may be one of many, of whom the tree gave any.
    last, after = distance[:, k - 1], distance[:, k]
    return _settled(links, ((after - last) <= ROUNDING * after).nonzero().squeeze(1), points, present, torus)


def _settled(links: Links, rows: Tensor, points: Tensor, present: Tensor, torus: tuple[float, ...] | None) -> Links:
    """Links in which some receivers hear those whom they hear by the distances of all. rows: [R], N worlds + seats."""
    _, n, k = links.senders.shape
    for part in rows.split(max(1, CHUNK_ELEMENTS // n)):
        world, seat = part // n, part % n
        distance = _squared(points[world], points[world, seat].unsqueeze(1), torus)
        distance.masked_fill_(~present[world], torch.inf).scatter_(1, seat.unsqueeze(1), torch.inf)
        for values, settled in zip(links, _least(distance, k), strict=True):
            values[world, seat] = settled
    return links
