"""A tiny agent whose rows come and go, and two learners in this process, for tests of what learners do with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.reindex import take_sizes


class Budding(nn.Module):
    """Each member decides by the sum over its own hidden units, of which it may get more.

    A unit u of member m adds leave[u] tanh(enter[u] . o) to what m puts out. What grows is decided by the slope of the
    loss at what a member puts out: the member whose slopes add up to most gets a unit more, until there are `most`
    units. A new unit takes the first layer of another, drawn at random, and adds nothing yet.
    """

    has_auxiliary_losses = False

    def __init__(self, spec: AgentSpec, units: int = 2, most: int = 10, patience: int = 1) -> None:
        super().__init__()
        self.spec, self.most, self.patience = spec, most, patience
        count = spec.members * units
        self.enter = nn.Parameter(torch.randn(count, spec.obs_size))
        self.leave = nn.Parameter(torch.randn(count, spec.action_params_size + 1) / 2)
        self.register_buffer("unit_of", torch.arange(count) // units)
        self.watching = False
        self._seen: list[Tensor] = []

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_sizes(self, ("enter", "leave", "unit_of"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def owners(self) -> dict[nn.Parameter, Tensor]:
        return {self.enter: self.unit_of, self.leave: self.unit_of}

    def watch(self, on: bool) -> None:
        self.watching = on
        self._seen = []

    def growth_statistics(self) -> Tensor:
        """[P + 1]: of every member the sum of its slopes, and how often they were looked at."""
        seen, self._seen = self._seen, []
        return torch.cat([torch.stack(seen).sum(0), torch.ones(1)])

    def grow(self, sums: Tensor, generator: torch.Generator) -> dict[nn.Parameter, Tensor]:
        count = len(self.unit_of)
        if count >= self.most or sums[-1] < self.patience:
            return {}
        member = sums[:-1].argmax().view(1)
        like = torch.randint(count, (1,), generator=generator)
        self.unit_of = torch.cat([self.unit_of, member])
        known = torch.arange(count)
        return {self.enter: torch.cat([known, like]), self.leave: torch.cat([known, torch.tensor([-1])])}

    def inherit(self, parents: Tensor) -> dict[nn.Parameter, Tensor]:
        units = [(self.unit_of == parent).nonzero()[:, 0] for parent in parents]
        self.unit_of = torch.arange(len(parents)).repeat_interleave(torch.tensor([len(u) for u in units]))
        return {self.enter: torch.cat(units), self.leave: torch.cat(units)}

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        return {}

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> AgentOutput:
        hidden = (obs[self.unit_of] * self.enter[:, None]).sum(-1).tanh()  # [U, R]
        own = hidden[..., None] * self.leave[:, None]
        out = obs.new_zeros(*obs.shape[:2], self.leave.shape[1]).index_add(0, self.unit_of, own)
        if self.watching and out.requires_grad:
            out.register_hook(lambda slope: self._seen.append(slope.detach().abs().sum((1, 2))))
        return AgentOutput(out[..., :-1], None, out[..., -1], {}, {})

    def auxiliary_losses(self, batch: Any, outputs: AgentOutput) -> dict[str, Tensor]:
        return {}


class TwoLearners:
    """Stands for torch.distributed with two learners, each in a thread of its own.

    Patch it in as `torch.distributed`'s functions, then `run` what both do, each told its rank.
    """

    ReduceOp = torch.distributed.ReduceOp

    def __init__(self) -> None:
        self._barrier, self._here, self._sent = threading.Barrier(2, timeout=60), threading.local(), [None, None]

    def patch(self, monkeypatch: Any) -> None:
        for name in ("all_reduce", "get_rank", "get_world_size", "is_initialized", "broadcast"):
            monkeypatch.setattr(torch.distributed, name, getattr(self, name))

    def is_initialized(self) -> bool:
        return hasattr(self._here, "rank")

    def get_rank(self) -> int:
        return self._here.rank

    def get_world_size(self) -> int:
        return 2

    def _exchange(self, values: Tensor) -> list[Tensor]:
        self._sent[self._here.rank] = values.clone()
        self._barrier.wait()
        both = list(self._sent)
        self._barrier.wait()
        return both

    def all_reduce(self, values: Tensor, op: Any = torch.distributed.ReduceOp.SUM) -> None:
        one, two = self._exchange(values)
        values.copy_(torch.minimum(one, two) if op == torch.distributed.ReduceOp.MIN else one + two)

    def broadcast(self, values: Tensor, source: int) -> None:
        values.copy_(self._exchange(values)[source])

    def run(self, task: Callable[[int], Any]) -> list[Any]:
        results: list[Any] = [None, None]

        def work(rank: int) -> None:
            self._here.rank = rank
            try:
                results[rank] = task(rank)
            except BaseException as error:
                results[rank] = error
                self._barrier.abort()

        threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results
