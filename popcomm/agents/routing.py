"""Every agent of a world hears all others through M latents: a dense inbox at a cost that is linear in the agents.

Agent j's message gives a key k_j and a value v_j, listener i has a query q_i, and each head has learned latents
Q [M, D]. As in FLARE (arXiv 2508.12594), with a scale s and separately for each head,

    A = softmax over the agents that speak of s Q K^T   [M, N]   the latents gather what is said,
    W = softmax over the latents of s q Q^T             [N, M]   and every listener reads the latents,

so R = W A [N, N] has rows that sum to one, and a rank of at most M. FLARE reads with the keys, q = k; here a listener
asks with what it knows. An agent's own message is taken out of its row, and the row is normalised again:

    out_i = sum over j != i of R_ij v_j / (1 - R_ii) = ((W (A V))_i - R_ii v_i) / (1 - R_ii),  R_ii = sum_m W_im A_mi.

R is never formed: time and memory are O(N M). This does not approximate softmax attention (`attend_all`), where each
pair has a weight exp(s q_i k_j) of its own: more latents bring other functions, not a limit in which the two agree.

Tensors of the functions are [P, W, N, H, D]: P members, W worlds, N agents in each, H heads of width D.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from popcomm.agents.population import PopulationLinear
from popcomm.checks import whole
from popcomm.errors import UserError

# Where a row of R is nearly all own message, dividing by the rest enlarges float32's rounding, 6e-8 of the values, to
# a tenth of them at this bound. A listener with less than this left for others hears a mixture that fades to zero.
LEAST_REST = 1e-6
ABSENT = -1e9  # added to the scores of who is silent: exp gives exactly 0, and, unlike with -inf, no NaN where all are
LATENT_STD = 0.1  # FLARE's


def route(queries: Tensor, keys: Tensor, values: Tensor, latents: Tensor, present: Tensor, scale: float) -> Tensor:
    """What each agent hears of all others through the latents (the module's equations).

    The own value never counts. The own key still does where M > 1: it has a part in A, hence in how much of each latent
    is others' and so in the weights among the others. Listeners need not speak: who is absent hears too.

    Args:
        queries: [P, W, N, H, D] float, of the listeners.
        keys: [P, W, N, H, D] float, of the messages.
        values: [P, W, N, H, D] float, of the messages.
        latents: [P, H, M, D] float.
        present: [W, N] or [P, W, N] bool, who speaks.
        scale: s, on all scores; see `default_scale`.

    Returns:
        [P, W, N, H, D]; zeros, with zero gradients, where no other agent speaks.

    Raises:
        UserError: shapes that do not fit, or a mask that is not boolean.
    """
    _check_shapes(present, latents, queries=queries, keys=keys, values=values)
    agents, heads = keys.shape[2:4]
    hears = _others_speak(present, keys).repeat_interleave(heads, 0).view(-1, agents, 1)
    rows = [_by_head(_wide(x)) for x in (queries, keys, values)]
    # The written gradient wants one dtype throughout, and bfloat16 is too coarse for 1 - R_ii.
    with torch.autocast(queries.device.type, enabled=False):
        out = _Route.apply(
            *rows, _factor(_wide(latents), scale), _absent_scores(present, _wide(keys)), hears.to(rows[0].dtype)
        )
    return out.unflatten(0, (-1, heads)).permute(0, 2, 3, 1, 4)


def _wide(x: Tensor) -> Tensor:
    """float32 at least."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def heard_weights(queries: Tensor, keys: Tensor, latents: Tensor, present: Tensor, scale: float) -> Tensor:
    """How much of what is heard comes from each sender, at linear cost: a large weight marks a hub.

    The column means of the routing matrix without its diagonal, R_ij / (1 - R_ii), over heads and over the listeners
    for whom anyone else speaks.

    Args:
        queries: [P, W, N, H, D] float, of the listeners.
        keys: [P, W, N, H, D] float, of the messages.
        latents: [P, H, M, D] float.
        present: [W, N] or [P, W, N] bool, who speaks.
        scale: s, on all scores.

    Returns:
        [P, W, N]: sums to one over the senders of a world, or to zero where nobody hears anybody.

    Raises:
        UserError: as `route`.
    """
    _check_shapes(present, latents, queries=queries, keys=keys)
    members, worlds, agents, heads, _ = keys.shape
    gather, read = _weights(_by_head(queries), _by_head(keys), _factor(latents, scale), _absent_scores(present, keys))
    hears = _others_speak(present, keys)
    own = (gather * read).sum(-1)
    gain = hears.repeat_interleave(heads, 0).view_as(own) / (1 - own).clamp(min=LEAST_REST)
    # sum over i of gain_i R_ij, less the term i = j.
    heard = torch.bmm(gather, torch.bmm(read.mT, gain.unsqueeze(-1))).squeeze(-1) - gain * own
    heard = heard.view(members, heads, worlds, agents).mean(1)
    return heard / hears.sum(-1, keepdim=True).clamp(min=1)


def attend_all(queries: Tensor, keys: Tensor, values: Tensor, present: Tensor, scale: float) -> Tensor:
    """Softmax attention of each agent over all others' messages: one weight per pair, in O(N^2) time, O(N) memory.

    Args:
        queries: [P, W, N, H, D] float, of the listeners.
        keys: [P, W, N, H, D] float, of the messages.
        values: [P, W, N, H, D] float, of the messages.
        present: [W, N] or [P, W, N] bool, who speaks.
        scale: s, on all scores; D^-0.5 is usual (Vaswani 2017).

    Returns:
        [P, W, N, H, D]; zeros, with zero gradients, where no other agent speaks.

    Raises:
        UserError: shapes that do not fit, or a mask that is not boolean.
    """
    _check_shapes(present, None, queries=queries, keys=keys, values=values)
    members, worlds, agents, _, width = keys.shape
    q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (queries, keys, values))
    if not present.all():
        # One more number in queries and keys silences the absent; a mask of them would be [W, N, N].
        silence = torch.zeros_like(present, dtype=k.dtype).masked_fill_(~present, ABSENT / scale)
        silence = silence.expand(members, worlds, agents).reshape(-1, 1, agents, 1).expand(-1, k.shape[1], -1, -1)
        q, k, v = F.pad(q, (0, 1), value=1.0), torch.cat([k, silence], -1), F.pad(v, (0, 1))
    # With the listeners in reverse order the own message lies on an antidiagonal, and a mask that depends on i + j
    # alone is a view of 2N - 1 numbers: 0.88 of the time with an [N, N] mask, 1.02 of that without one (1,024 agents).
    line = q.new_zeros(2 * agents - 1)
    line[agents - 1] = ABSENT
    others = line.as_strided((agents, agents), (1, 1))
    out = F.scaled_dot_product_attention(q.flip(-2), k, v, others, scale=scale).flip(-2)[..., :width]
    out = out.transpose(1, 2).unflatten(0, (members, worlds))
    return out * _others_speak(present, keys)[..., None, None]


def default_scale(width: int) -> float:
    """The scale of the scores for heads of that width, by the later rule of FLARE's authors: 1 up to 8, then D^-0.5."""
    return 1.0 if width <= 8 else width**-0.5


def _by_head(x: Tensor) -> Tensor:
    """[P, W, N, H, D] -> [P H, W, N, D]: heads before worlds, so that one product scores the agents of all worlds."""
    return x.permute(0, 3, 1, 2, 4).flatten(0, 1)


def _factor(latents: Tensor, scale: float) -> Tensor:
    """[P, H, M, D] -> [P H, D, M], times the scale. Contiguous: the product takes 1.7 times as long with the view."""
    return (latents * scale).flatten(0, 1).mT.contiguous()


def _absent_scores(present: Tensor, like: Tensor) -> Tensor:
    """What is added to the scores of each agent as a speaker: [P H, W N, 1]."""
    members, worlds, agents, heads, _ = like.shape
    added = torch.zeros_like(present, dtype=like.dtype).masked_fill_(~present, ABSENT)
    return added.expand(members, worlds, agents).reshape(members, -1, 1).repeat_interleave(heads, 0)


def _others_speak(present: Tensor, like: Tensor) -> Tensor:
    """[P, W, N]: 1 where anyone else speaks, else 0, in the dtype of `like`."""
    others = present.sum(-1, keepdim=True) > present
    return others.to(like.dtype).expand(like.shape[:3])


def _weights(queries: Tensor, keys: Tensor, factor: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
    """A^T and W, [P H W, N, M] each."""
    heads, worlds, agents, _ = keys.shape
    gather = torch.baddbmm(absent, keys.flatten(1, 2), factor).view(heads * worlds, agents, -1)
    read = torch.bmm(queries.flatten(1, 2), factor).view(heads * worlds, agents, -1)
    return gather.softmax(1), read.softmax(2)


class _Route(torch.autograd.Function):
    """The routing of queries, keys and values [P H, W, N, D].

    The gradient is written out because autograd's makes a new [N, M] array for each factor of R_ii and of both
    softmaxes, where these are written in place: forward and backward took 1.4 times as long (4,096 agents, one thread).
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, factor: Tensor, absent: Tensor, hears: Tensor
    ) -> Tensor:
        gather, read = _weights(queries, keys, factor, absent)
        said = values.flatten(0, 1)
        held = torch.bmm(gather.mT, said)
        own = (gather * read).sum(-1, keepdim=True)
        rest = (1 - own).clamp_(min=LEAST_REST)
        gain = hears / rest
        out = torch.bmm(read, held).addcmul_(own, said, value=-1).mul_(gain)
        ctx.save_for_backward(queries, keys, said, factor, gather, read, held, own, rest, gain, out)
        return out.view(values.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, said, factor, gather, read, held, own, rest, gain, out = ctx.saved_tensors
        heads, _, latents = factor.shape
        grad = grad.flatten(0, 1) * gain
        # Of (Y - R_ii v) / (1 - R_ii) with respect to R_ii; the denominator is constant where it is clamped.
        to_own = (grad * (out * (rest > LEAST_REST) - said)).sum(-1, keepdim=True)
        to_held = torch.bmm(read.mT, grad)
        to_values = torch.bmm(gather, to_held).addcmul_(own, grad, value=-1)
        to_read = torch.bmm(grad, held.mT.contiguous()).addcmul_(gather, to_own)
        to_read = _before_softmax_(to_read, read, 2).view(heads, -1, latents)
        to_queries = torch.bmm(to_read, factor.mT)
        to_factor = torch.bmm(queries.flatten(1, 2).mT, to_read)
        del to_read  # before another array of its size
        to_gather = torch.bmm(said, to_held.mT.contiguous()).addcmul_(read, to_own)
        to_gather = _before_softmax_(to_gather, gather, 1).view(heads, -1, latents)
        to_keys = torch.bmm(to_gather, factor.mT)
        to_factor.baddbmm_(keys.flatten(1, 2).mT, to_gather)
        return *(x.view(keys.shape) for x in (to_queries, to_keys, to_values)), to_factor, None, None


def _before_softmax_(grad: Tensor, weights: Tensor, dim: int) -> Tensor:
    """The gradient of a softmax's scores, written over that of its weights."""
    grad.mul_(weights)
    return grad.addcmul_(weights, grad.sum(dim, keepdim=True), value=-1)


class _Hearing(nn.Module):
    """Queries from the listeners' states; keys x + W x and values x from the encoded messages x, of which head h has
    the h-th part, as in SymbolicAgent."""

    def __init__(self, members: int, dim: int, num_heads: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if num_heads < 1 or dim < 1 or dim % num_heads:
            raise UserError(f"num_heads is {num_heads}, and must divide dim = {dim}")
        self.num_heads, self.width = num_heads, dim // num_heads
        self.query = PopulationLinear(members, dim, dim, generator=generator)
        self.key = PopulationLinear(members, dim, dim, generator=generator)

    def _queries_keys(self, hidden: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.query(hidden)), self._split(said + self.key(said))

    def _split(self, x: Tensor) -> Tensor:
        """[P, W, N, C] -> [P, W, N, H, D]."""
        return x.unflatten(-1, (self.num_heads, self.width))


class RoutedHearing(_Hearing):
    """All agents of a world hear all others through latents, in time linear in their number.

    Args:
        members: P, each with weights and latents of its own.
        dim: C, numbers in a state, in an encoded message and in the context.
        num_heads: H; divides dim.
        num_latents: M, for each head.
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: heads that do not divide dim, or no latents.
    """

    def __init__(
        self, members: int, dim: int, num_heads: int, num_latents: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(members, dim, num_heads, generator)
        whole("num_latents", num_latents, 1)
        latents = torch.randn(members, num_heads, num_latents, self.width, generator=generator)
        self.latents = nn.Parameter(LATENT_STD * latents)

    def forward(self, hidden: Tensor, said: Tensor, present: Tensor) -> Tensor:
        """hidden [P, W, N, C] the listeners' states, said [P, W, N, C] the encoded messages of all agents, present
        [W, N] or [P, W, N] bool who speaks -> context [P, W, N, C], zeros where no other agent speaks."""
        queries, keys = self._queries_keys(hidden, said)
        scale = default_scale(self.width)
        return route(queries, keys, self._split(said), self.latents, present, scale).flatten(-2)

    def heard_weights(self, hidden: Tensor, said: Tensor, present: Tensor) -> Tensor:
        """What `forward` takes -> [P, W, N], the share of each sender in what the listeners hear (`heard_weights`)."""
        return heard_weights(*self._queries_keys(hidden, said), self.latents, present, default_scale(self.width))


class ExactHearing(_Hearing):
    """The reference for RoutedHearing: softmax attention over all others, in time that grows with their square.

    Args:
        members: P, each with weights of its own.
        dim: C, numbers in a state, in an encoded message and in the context.
        num_heads: H; divides dim.
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: heads that do not divide dim.
    """

    def forward(self, hidden: Tensor, said: Tensor, present: Tensor) -> Tensor:
        """As RoutedHearing: hidden, said [P, W, N, C], present [W, N] or [P, W, N] bool -> context [P, W, N, C]."""
        queries, keys = self._queries_keys(hidden, said)
        return attend_all(queries, keys, self._split(said), present, self.width**-0.5).flatten(-2)


def _check_shapes(present: Tensor, latents: Tensor | None, **rows: Tensor) -> None:
    shape = rows["keys"].shape
    for name, x in rows.items():
        if x.dim() != 5 or x.shape != shape:
            raise UserError(
                f"{name} have shape {list(x.shape)}, and must have [P, W, N, H, D] as the keys {list(shape)}"
            )
    if present.dtype != torch.bool:
        raise UserError(f"present has dtype {present.dtype}, and must be torch.bool")
    if present.shape not in (shape[:3], shape[1:3]):
        raise UserError(f"present has shape {list(present.shape)}, and must have [W, N] = {list(shape[1:3])}")
    if latents is not None:
        members, _, _, heads, width = shape
        if latents.dim() != 4 or (*latents.shape[:2], latents.shape[3]) != (members, heads, width):
            must = f"[{members}, {heads}, M, {width}]"
            raise UserError(f"latents have shape {list(latents.shape)}, and must have [P, H, M, D] = {must}")
