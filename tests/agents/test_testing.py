"""agent_api_test accepts agents that keep the contract, and names what is wrong with those that do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from popcomm.agents import AGENTS, AgentOutput, AgentSpec, MessageEncoder, PopulationLinear
from popcomm.agents.losses import masked_mean
from popcomm.agents.testing import agent_api_test
from popcomm.channels import Symbols, Vectors, Words
from popcomm.channels.relaxed import Dru, RelaxedSymbols

SMALL = {
    "symbolic": {"hidden_dim": 16},
    "mlp": {"hidden": 16},
    "gru": {"hidden": 16, "embedding": 8},
    "tiny": {"hidden_dim": 16, "num_heads": 4, "latent_tokens": 4, "depth": 2},
    "bottom_up": {"hidden": 16},
    "commnet": {"hidden": 16},
    "ic3net": {"hidden": 16},
    "tarmac": {"hidden": 16},
    "heterogeneous": {"features": [24, 16]},
}
KINDS = {
    "symbols": Symbols(5, 3),
    "relaxed": RelaxedSymbols(5, 3),
    "vectors": Vectors(4, 0.5),
    "words": Words(6, 2, 3),
    "lexicon": Words(8, 2, 4, vocab=12),
    "dru": Dru(4),
}
SPOKEN = [(name, kind) for name in AGENTS for kind in KINDS if name != "gru" or kind == "symbols"]


def place(kind=None, **rest) -> AgentSpec:
    about = {"obs_size": 6, "action_space": spaces.Discrete(4), "members": 3, "state_size": 2, "num_agents": 5}
    talk = {"messages": kind, "inbox_size": 3 if kind else 0, "sender_obs_size": 6 if kind else 0}
    return AgentSpec(**{**about, **talk, **rest})


def place_of(name, kind=None, **rest) -> AgentSpec:
    """Of a collective with one member and two seats, as it is tried."""
    collective = getattr(AGENTS[name], "collective", False)
    return place(kind, **{**rest, **({"members": 1, "num_seats": 2} if collective else {})})


@pytest.mark.parametrize("name", AGENTS)
def test_shipped_agents_keep_the_contract(name):
    agent_api_test(AGENTS[name], SMALL[name])


@pytest.mark.parametrize(("name", "kind"), SPOKEN)
def test_shipped_agents_keep_it_with_every_kind_of_message_that_they_speak(name, kind):
    agent_api_test(AGENTS[name], SMALL[name], place_of(name, KINDS[kind]))


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,), np.float32)])
@pytest.mark.parametrize("name", AGENTS)
def test_shipped_agents_keep_it_whatever_they_do(name, space):
    agent_api_test(AGENTS[name], SMALL[name], place_of(name, KINDS["symbols"], action_space=space))


@pytest.mark.parametrize("rest", [{"speaks": False}, {"hears": False}, {"members": 1}, {"state_size": 0}])
@pytest.mark.parametrize("name", AGENTS)
def test_shipped_agents_keep_it_mute_deaf_alone_and_without_a_state_of_the_world(name, rest):
    if "hears" in rest:
        rest = {**rest, "inbox_size": 0}
    agent_api_test(AGENTS[name], SMALL[name], place_of(name, KINDS["symbols"], **rest))


@pytest.mark.parametrize("config", [{"memory": "flare"}, {"message_head": "autoregressive"}])
def test_the_tiny_agent_keeps_it_with_a_memory_and_word_by_word(config):
    agent_api_test(AGENTS["tiny"], {**SMALL["tiny"], **config})


class Sound(nn.Module):
    """An agent that keeps the contract: it remembers, hears, speaks, and has a loss of its own."""

    auxiliary_weights = {"quiet": 0.1}  # noqa: RUF012 - as agents of others have them

    def __init__(self, spec, hidden=8):
        super().__init__()
        self.spec, self.hidden, p = spec, hidden, spec.members
        self.see = PopulationLinear(p, spec.obs_size + hidden, hidden)
        self.act = PopulationLinear(p, hidden, spec.action_params_size)
        self.judge = PopulationLinear(p, hidden, 1)
        if spec.receives is not None:
            self.hear = MessageEncoder(p, spec.receives, hidden)
        if spec.sends is not None:
            self.speak = PopulationLinear(p, hidden, math.prod(spec.sends.params_shape))

    def initial_state(self, rows):
        return {"h": torch.zeros(self.spec.members, rows, self.hidden)}

    def heard(self, inbox):
        return (self.hear(inbox) * inbox.mask.unsqueeze(-1)).sum(-2)

    def forward(self, obs, inbox, state):
        hidden, message = self.see(torch.cat([obs, state["h"]], -1)), None
        if inbox is not None and self.spec.receives is not None:
            hidden = hidden + self.heard(inbox)
        hidden = hidden.tanh()
        if self.spec.sends is not None:
            message = self.speak(hidden).unflatten(-1, self.spec.sends.params_shape)
        return AgentOutput(self.act(hidden), message, self.judge(hidden).squeeze(-1), {"h": hidden}, {"hidden": hidden})

    def auxiliary_losses(self, batch, outputs):
        return {"quiet": masked_mean(outputs.aux["hidden"].square().mean(-1), batch.mask)}


def test_an_agent_of_ones_own_keeps_it():
    agent_api_test(Sound)
    agent_api_test(Sound, {"hidden": 4}, place(KINDS["vectors"]))


def broken(**parts):
    """A class like Sound with other methods or attributes."""
    return type("Broken", (Sound,), parts)


def changed(change):
    """A class whose outputs are changed: change(self, output, obs, inbox)."""
    return broken(
        forward=lambda self, obs, inbox, state: change(self, Sound.forward(self, obs, inbox, state), obs, inbox)
    )


def with_logits(change):
    return changed(lambda self, out, obs, inbox: out._replace(action_logits=change(out.action_logits, obs)))


class Idle(Sound):
    """Has a parameter that nothing looks at."""

    def __init__(self, spec):
        super().__init__(spec)
        self.idle = PopulationLinear(spec.members, 2, 2)


class Frozen(Idle):
    without_gradient = ("idle",)


class Random(Sound):
    """Its weights do not follow from torch's seed."""

    def __init__(self, spec):
        super().__init__(spec)
        self.see.weight.data += torch.from_numpy(np.random.default_rng().random(self.see.weight.shape)).float()


class Unshared(Sound):
    """A parameter that all members share."""

    def __init__(self, spec):
        super().__init__(spec)
        self.scale = nn.Parameter(torch.ones(1 if spec.members == 1 else 2))


class Sized(Sound):
    """Its weights depend on how many members there are."""

    def __init__(self, spec):
        super().__init__(spec)
        self.wide = nn.Parameter(torch.ones(spec.members, spec.members))


class Mixing(Sound):
    """Every member uses the mean of all members' weights."""

    def forward(self, obs, inbox, state):
        output = super().forward(obs, inbox, state)
        return output._replace(value=output.value * self.judge.weight.mean())


class Batched(Sound):
    """Normalises over the rows."""

    def forward(self, obs, inbox, state):
        return super().forward(obs - obs.mean(1, keepdim=True), inbox, state)


class Counting(Sound):
    """Knows how many rows there are."""

    def forward(self, obs, inbox, state):
        return super().forward(obs * obs.shape[1], inbox, state)


class Deafening(Sound):
    """Reads messages without their differentiable form."""

    def heard(self, inbox):
        return super().heard(inbox._replace(soft=None) if hasattr(inbox, "_replace") else inbox)


class DeafeningOnPurpose(Deafening):
    without_gradient = ("inbox.soft",)


class Inflexible(Sound):
    """Takes an inbox apart as a tuple, which that of shared networks is not."""

    def heard(self, inbox):
        messages, senders, mask, soft, direct, gate = inbox
        return super().heard(type(inbox)(messages, senders, mask, soft, direct, gate))


class SoftInTraining(Sound):
    """Hears the soft form itself where there is one, and the message elsewhere."""

    def heard(self, inbox):
        real = self.spec.receives.straight_through(inbox.messages, None) if inbox.soft is None else inbox.soft
        return (torch.einsum("prkn,pnh->prkh", real.flatten(3), self.hear.weight) * inbox.mask.unsqueeze(-1)).sum(-2)


class Speaking(Sound):
    """Says its messages itself; `told` decides what it makes of a message that it is told."""

    autoregressive = True

    def told(self, said):
        return said

    def forward(self, obs, inbox, state, said=None, generator=None, greedy=False):
        output = super().forward(obs, inbox, state)
        if output.message is None:
            return output
        said = self.spec.sends.sample(output.message, generator) if said is None else self.told(said)
        return output._replace(said=said)


class Stubborn(Speaking):
    def told(self, said):
        return (said + 1) % 5


class Silent(Speaking):
    def forward(self, *arguments, **how):
        return super().forward(*arguments, **how)._replace(said=None)


class LaterOtherwise(Sound):
    """Decides otherwise where it decides later."""

    def forward(self, obs, inbox, state, undecided=False):
        return super().forward(obs, inbox, state)

    def decide(self, obs, aux):
        return 2 * self.act(aux["hidden"]), self.judge(aux["hidden"]).squeeze(-1)


def losing(loss):
    return broken(auxiliary_losses=lambda self, batch, outputs: {"quiet": loss(outputs.aux["hidden"], batch)})


def leaking(hidden, batch):
    return hidden.square().mean((1, 2))


def mixing_loss(hidden, batch):
    return masked_mean(hidden.square().mean(-1), batch.mask).sum().expand(len(hidden))


BROKEN = {
    "no module": (type("Bare", (), {"__init__": lambda self, spec: None}), "it is no torch.nn.Module"),
    "no losses": (broken(auxiliary_losses=None), "it has no method `auxiliary_losses`"),
    "it cannot be made": (type("Bare", (Sound,), {"__init__": lambda self: None}), "it cannot be made: TypeError"),
    "weights that do not follow from the seed": (Random, "'see.weight' starts otherwise"),
    "a parameter without members": (Unshared, r"'scale' has shape \(2,\); its first axis must be the 3 members"),
    "a size that follows from the members": (Sized, r"'wide' has shape \(3, 3\), and \(1, 1\) with 1 member"),
    "a state without rows": (
        broken(initial_state=lambda self, rows: {"h": torch.zeros(3, 8)}),
        r"initial_state\(4\)\['h'\] has shape \(3, 8\); it must be \(3, 4\)",
    ),
    "lives that begin otherwise": (
        broken(initial_state=lambda self, rows: {"h": torch.arange(rows).float().view(1, -1, 1).expand(3, -1, 8)}),
        r"initial_state\['h'\] differs between rows",
    ),
    "a state that comes and goes": (
        changed(lambda self, out, obs, inbox: out._replace(state={**out.state, "new": out.value})),
        r"step 0: state\['new'\] is not in initial_state",
    ),
    "a state of another shape": (
        changed(
            lambda self, out, obs, inbox: out._replace(state={"h": out.state["h"].unsqueeze(-1).squeeze(-1)[..., :4]})
        ),
        "forward raised RuntimeError",
    ),
    "values with an axis too many": (
        changed(lambda self, out, obs, inbox: out._replace(value=out.value.unsqueeze(-1))),
        r"step 0: value has shape \(3, 4, 1\), not \(3, 4\)",
    ),
    "no message": (
        changed(lambda self, out, obs, inbox: out._replace(message=None)),
        "message is missing; it must have",
    ),
    "aux without members": (
        changed(lambda self, out, obs, inbox: out._replace(aux={**out.aux, "mean": out.value.mean(0)})),
        r"aux\['mean'\] has shape \(4,\), not \(3, 4\)",
    ),
    "not finite in an empty inbox": (
        changed(
            lambda self, out, obs, inbox: (
                out if inbox is None else out._replace(value=out.value + 0 / inbox.mask.sum(-1))
            )
        ),
        "value holds a number that is not finite",
    ),
    "chance in forward": (with_logits(lambda x, obs: x + torch.randn(())), "the same input gave another action_logits"),
    "an input changed in place": (
        with_logits(lambda x, obs: x + 0 * obs.add_(1).sum()),
        "step 0: forward changed its input in place",
    ),
    "rows mixed": (Batched, "of a row depends on another row"),
    "rows counted": (Counting, "of a row depends on how many rows there are"),
    "rows in another order": (with_logits(lambda x, obs: x.flip(1)), "action_logits of a row depends on another row"),
    "members in another order": (
        with_logits(lambda x, obs: x.flip(0)),
        "action_logits of members 1 to 2 depends on the inputs of member 0",
    ),
    "members' weights mixed": (Mixing, "value of members 1 to 2 depends on the weights of member 0"),
    "an inbox taken apart": (Inflexible, "forward raised TypeError"),
    "slots without a message": (
        broken(heard=lambda self, inbox: self.hear(inbox).sum(-2)),
        "depends on slots whose `mask` is False",
    ),
    "an inbox that must be there": (
        changed(lambda self, out, obs, inbox: out._replace(value=out.value + 0 * inbox.mask.sum())),
        "forward raised AttributeError",
    ),
    "soft in training": (SoftInTraining, "is another one where `inbox.soft` is None"),
    "a message that is not the one it was told": (Stubborn, "it was told what it said, and says something else"),
    "autoregressive in name only": (Silent, "`said` is missing, and `autoregressive` is True"),
    "decide otherwise": (LaterOtherwise, "action_logits of `decide` is not that of forward"),
    "features that are not there": (broken(gives_features=True), r"aux\['features'\] has shape None"),
    "a loss that is a number": (losing(lambda h, batch: h.square().mean()), r"the loss 'quiet' has shape \(\)"),
    "a loss of padding": (losing(leaking), "the loss 'quiet' depends on rows whose `mask` is False"),
    "a loss of nothing": (
        losing(lambda h, b: (h.square().mean(-1) * b.mask).sum(1) / b.mask.sum(1)),
        "the loss 'quiet' is not finite",
    ),
    "losses that nobody looks at": (broken(has_auxiliary_losses=False), "has_auxiliary_losses is False, and"),
    "a loss that raises": (losing(lambda h, batch: batch.next), "auxiliary_losses raised AttributeError"),
    "a parameter that is not used": (Idle, r"the parameter 'idle.weight' gets no gradient"),
    "a parameter whose gradient is zero": (
        changed(lambda self, out, obs, inbox: out._replace(value=0 * out.value)),
        "the parameter 'judge.weight' gets a gradient of zero for member 0",
    ),
    "losses of members mixed": (
        losing(mixing_loss),
        "what member 0 is to learn gives other members a gradient on 'see.weight'",
    ),
    "nothing for who spoke": (Deafening, "who said it gets no gradient"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name):
    agent, sentence = BROKEN[name]
    with pytest.raises(AssertionError, match=sentence) as told:
        agent_api_test(agent)
    assert str(told.value).startswith(f"{agent.__name__} of 3 members")


@pytest.mark.parametrize("agent", [Frozen, DeafeningOnPurpose])
def test_what_an_agent_declares_to_be_without_a_gradient_is_let_pass(agent):
    agent_api_test(agent)


class Edged(Sound):
    """Has rows that come and go, each of a member: member 0 has two of them, 1 and 2 have one each."""

    whose = (0, 0, 1, 2)

    def __init__(self, spec):
        super().__init__(spec)
        self.edges = nn.Parameter(torch.ones(len(self.whose)))

    def owners(self):
        return {self.edges: torch.tensor(self.whose)}

    def forward(self, obs, inbox, state):
        output = super().forward(obs, inbox, state)
        sums = torch.zeros(3).index_add(0, torch.tensor(self.whose), self.edges)
        return output._replace(value=output.value + sums.unsqueeze(1))


class Misowned(Edged):
    """Says of a row that it is another member's."""

    def owners(self):
        return {self.edges: torch.tensor([1, 0, 0, 2])}


class Collective(nn.Module):
    """One network of all members: each acts on the mean of what all see in the same row."""

    collective = True

    def __init__(self, spec):
        super().__init__()
        self.layer = nn.Linear(spec.obs_size, spec.action_params_size + 1)

    def initial_state(self, rows):
        return {}

    def forward(self, obs, inbox, state):
        out = self.layer(obs.mean(0, keepdim=True).expand_as(obs))
        return AgentOutput(out[..., 1:], None, out[..., 0], {}, {})

    def auxiliary_losses(self, batch, outputs):
        return {}


def test_rows_that_come_and_go_belong_to_members():
    agent_api_test(Edged)
    with pytest.raises(AssertionError, match=r"depends on the weights of member 0|gives other members a gradient"):
        agent_api_test(Misowned)


def test_a_collective_is_one_network_of_all_members():
    agent_api_test(Collective, spec=place())
    Alone = type("Alone", (Collective,), {"collective": False})
    with pytest.raises(AssertionError, match="its first axis must be the 3 members"):
        agent_api_test(Alone, spec=place())


def test_an_agent_of_one_member_may_be_made_of_torchs_own_layers():
    class Plain(nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.layer = nn.Linear(spec.obs_size, spec.action_params_size + 1)

        def initial_state(self, rows):
            return {}

        def forward(self, obs, inbox, state):
            out = self.layer(obs)
            return AgentOutput(out[..., 1:], None, out[..., 0], {}, {})

        def auxiliary_losses(self, batch, outputs):
            return {}

    agent_api_test(Plain, spec=place(members=1))
    with pytest.raises(AssertionError, match="its first axis must be the 3 members"):
        agent_api_test(Plain, spec=place())


def test_places_that_it_cannot_try_are_refused():
    with pytest.raises(AssertionError, match="give it a spec whose `latents` is 0"):
        agent_api_test(Sound, spec=replace(place(KINDS["symbols"]), latents=4))
    with pytest.raises(AssertionError, match="rows is 2; it must be at least 3"):
        agent_api_test(Sound, rows=2)
