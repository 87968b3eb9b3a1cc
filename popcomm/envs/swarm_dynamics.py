"""The laws of motion on a torus, as pure functions on planes [2, B, N]: one contiguous [B, N] for each axis.

Planes keep every operation contiguous, and both neighbour laws cost O(N): crowding goes over counts in cells, cohesion
over the mean. So the time for one agent does not grow with the swarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BELOW_ONE = 1.0 - 2.0**-23  # float32: times any size it is below that size


class Crowd(NamedTuple):
    """How crowded it is where an agent stands."""

    density: Tensor  # [B, N] float32, the others around it, in agents per cell
    gradient: Tensor  # [2, B, N] float32, of the density, per unit of length


def crowding(planes: Tensor, size: float, cells: int) -> Crowd:
    """Density of the others and its gradient, from counts in `cells` x `cells` cells centred on the nodes of a mesh.

    The density at agent i is the sum over the others j of w(x_i - c_j) w(y_i - d_j), where (c_j, d_j) is the centre of
    the cell that j is in and w, over cell widths, is the quadratic spline of the triangular-shaped cloud (Hockney &
    Eastwood 1988): w(0) = 3/4, w(1/2) = 1/2, w(1) = 1/8, 0 from 3/2 on. So it is smooth in the agent's own position,
    its gradient is the exact derivative, and nobody is pushed by itself. Counts are whole numbers, so the order in
    which a GPU adds them up does not matter.

    Args:
        planes: [2, B, N] float32 in [0, size).
        size: extent of the torus, in units of length.
        cells: nodes along each axis, at least 3. Memory is O(B (N + cells^2)).
    """
    _, worlds, n = planes.shape
    device = planes.device
    scaled = planes * (cells / size)
    nearest = scaled.round()
    nodes = wrap(nearest + torch.arange(-1.0, 2.0, device=device).view(3, 1, 1, 1), cells)  # [3, 2, B, N]
    weights, slopes = _cloud(scaled.sub_(nearest))

    # [3 rows, 3 columns, B, N]; float32 counts the nodes of one world without error.
    index = torch.add(nodes[:, 0], nodes[:, None, 1], alpha=cells).to(torch.int64)
    index.add_(torch.arange(0, worlds * cells * cells, cells * cells, device=device).unsqueeze(1))
    counts = torch.zeros(worlds * cells * cells, device=device)
    counts.scatter_add_(0, index[1, 1].view(-1), torch.ones(worlds * n, device=device))
    others = counts.index_select(0, index.view(-1)).view(index.shape)
    others[1, 1].sub_(1.0)

    columns = others.unbind(1)
    rows = _dot(columns, weights[:, 0])  # [3 rows, B, N], interpolated along x
    gradient = torch.empty_like(planes)
    gradient[0] = _dot(_dot(columns, slopes[:, 0]), weights[:, 1])
    gradient[1] = _dot(rows, slopes[:, 1])
    return Crowd(_dot(rows, weights[:, 1]), gradient.mul_(cells / size))


def _cloud(offset: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [3, ...] of the nodes before, at and after the nearest one, and their slopes; offset in [-1/2, 1/2]."""
    weights = torch.empty(3, *offset.shape, device=offset.device)
    slopes = torch.empty_like(weights)
    torch.sub(offset, 0.5, out=slopes[0])
    torch.mul(offset, -2.0, out=slopes[1])
    torch.add(offset, 0.5, out=slopes[2])
    torch.mul(slopes, slopes, out=weights).mul_(0.5)
    weights[1].mul_(-0.5).add_(0.75)  # (2 offset)^2 / 2 becomes 3/4 - offset^2
    return weights, slopes


def _dot(parts: Sequence[Tensor] | Tensor, factors: Tensor) -> Tensor:
    """Sum over i of parts[i] * factors[i], three of each."""
    return (parts[0] * factors[0]).addcmul_(parts[1], factors[1]).addcmul_(parts[2], factors[2])


def attraction(circle: Tensor, resultant: Tensor) -> Tensor:
    """Pull of every agent towards all others: the mean over j of sin(angle_j - angle_i), per axis (Kuramoto 1975).

    On a circle the mean over pairs is exact from the mean over agents, so it costs O(N).

    Args:
        circle: [4, B, N] float32, cosines of the two axes, then sines.
        resultant: [4, B] float32, its mean over agents.

    Returns:
        [2, B, N] float32 in [-1, 1].
    """
    mean = resultant.unsqueeze(-1)
    return (circle[:2] * mean[2:]).addcmul_(circle[2:], mean[:2], value=-1)


def limit_speed(velocity: Tensor, max_speed: float) -> Tensor:
    """Shorten velocities [2, B, N] in place to at most `max_speed`; the heading stays."""
    squared = velocity[0].square().addcmul_(velocity[1], velocity[1])
    # The floor only keeps the division finite: at rest the factor is clamped to 1 anyway.
    return velocity.mul_(squared.clamp_(min=1e-12).rsqrt_().mul_(max_speed).clamp_(max=1.0))


def wrap(planes: Tensor, size: float) -> Tensor:
    """Bring positions back into [0, size), in place.

    >>> wrap(torch.tensor([-1.0, 0.0, 10.0, 23.5]), 10.0).tolist()
    [9.0, 0.0, 0.0, 3.5]
    """
    planes.sub_(planes.div(size).floor_(), alpha=size)
    # float32 rounds -1e-9 + size up to `size`, and takes what is one rounding below `size` to just below 0.
    return planes.clamp_(0.0, size * BELOW_ONE)


def shortest(displacement: Tensor, size: float) -> Tensor:
    """The shortest way round the torus, in place: every component in [-size / 2, size / 2].

    >>> shortest(torch.tensor([9.0, -6.0, 2.0]), 10.0).tolist()
    [-1.0, 4.0, 2.0]
    """
    return displacement.sub_(displacement.mul(1.0 / size).round_(), alpha=size)


def on_circle(planes: Tensor, size: float) -> Tensor:
    """Positions [2, ...] as points on two circles: [4, ...], the cosines of both axes, then the sines."""
    angle = planes * (2.0 * math.pi / size)
    circle = torch.empty(4, *planes.shape[1:], device=planes.device)
    torch.cos(angle, out=circle[:2])
    torch.sin(angle, out=circle[2:])
    return circle
