"""Agents in folders: the same weights and outputs after a round trip, one sentence for everything that is damaged."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.agents import AgentSpec
from popcomm.agents.acting import default_spec, spec_for
from popcomm.agents.pretrained import Pretrained, load, spec_from_json, spec_to_json
from popcomm.agents.tiny import TinyAgent
from popcomm.channels import Inbox, Symbols, Vectors, Words
from popcomm.envs import referential_v0
from popcomm.errors import UserError

SIZES = {"hidden_dim": 16, "num_heads": 4, "latent_tokens": 3, "depth": 1}
BOX = spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32), dtype=np.float32)
SPECS = {
    "game": default_spec(),
    "vectors": AgentSpec(5, BOX, Vectors(3, std=0.5), 2, 3, 4, 3, 5),
    "words": AgentSpec(5, spaces.Discrete(4), Words(6, 2, 3, speak_gate=False), 2, 1, 0, 3, 5),
    "silent": AgentSpec(5, spaces.Discrete(4), None, 0, 3),
    "listener": AgentSpec(5, spaces.Discrete(4), Symbols(6, 2, 0.5), 2, 1, 0, 3, 5, speaks=False),
}


def agent_of(spec=None, seed=0, **config):
    return TinyAgent(spec, **{**SIZES, **config}, generator=torch.Generator().manual_seed(seed))


def output_of(agent):
    spec, rows = agent.spec, 3
    generator, inbox = torch.Generator().manual_seed(1), None
    if spec.messages is not None:
        params = torch.randn(spec.members, rows, 2, *spec.messages.params_shape, generator=generator)
        mask = torch.ones(spec.members, rows, 2, dtype=torch.bool)
        inbox = Inbox(spec.messages.sample(params, generator), mask.long(), mask)
    obs = torch.randn(spec.members, rows, spec.obs_size, generator=generator)
    output = agent(obs, inbox, agent.initial_state(rows), generator=torch.Generator().manual_seed(2))
    found = [output.action_logits, output.value, output.message, output.said, *output.state.values()]
    return [value for value in found if value is not None]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("config", [{}, {"memory": "flare", "kv_layers": 0, "dtype": "bf16", "cost_weight": 0.5}])
def test_a_round_trip_gives_the_same_weights_outputs_and_place(tmp_path, name, config):
    agent = agent_of(SPECS[name], **config)
    folder = agent.save_pretrained(tmp_path / "runs" / "agent")
    again = TinyAgent.from_pretrained(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert again.spec == agent.spec
    assert again.config == agent.config
    weights, other = agent.state_dict(), again.state_dict()
    assert weights.keys() == other.keys()
    assert all(torch.equal(weights[key], other[key]) for key in weights)
    assert all(torch.equal(a, b) for a, b in zip(output_of(agent), output_of(again), strict=True))


def test_an_autoregressive_agent_says_the_same_again(tmp_path):
    agent = agent_of(message_head="autoregressive")
    again = TinyAgent.from_pretrained(agent.save_pretrained(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(output_of(agent), output_of(again), strict=True))


def test_the_config_is_readable_and_does_not_depend_on_the_presets(tmp_path):
    agent_of(preset="tiny-1m", depth=1).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["format"] == "popcomm-agent"
    assert about["class"] == "TinyAgent"
    assert "preset" not in about["config"]
    assert about["config"]["hidden_dim"] == 16
    assert about["spec"]["messages"] == {"kind": "symbols", "vocab_size": 16, "length": 4, "temperature": 1.0}
    assert about["spec"]["action_space"] == {"kind": "multi_discrete", "nvec": [10, 10]}


def test_saving_again_replaces_what_was_there(tmp_path):
    for seed in (0, 1):
        agent_of(seed=seed).save_pretrained(tmp_path)
    again = TinyAgent.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(output_of(agent_of(seed=1)), output_of(again), strict=True))


@pytest.mark.parametrize("name", SPECS)
def test_specs_survive_as_json(name):
    text = json.dumps(spec_to_json(SPECS[name]), allow_nan=False)
    assert spec_from_json(json.loads(text)) == SPECS[name]


def test_a_saved_agent_acts_where_it_is_told_to(tmp_path):
    agent_of().save_pretrained(tmp_path)
    env = referential_v0.CommunicationEnv(num_agents=3)
    agent = TinyAgent.from_pretrained(tmp_path, spec_for(env, "agent_1"))
    observations, _ = env.reset(seed=0)
    action, _ = agent.act(observations["agent_1"])
    assert env.action_space("agent_1")["action"].contains(action)
    assert (agent.spec.inbox_size, agent.spec.num_agents) == (2, 64)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"messages": Symbols(32, 4)}, "messages = kind symbols, vocab_size 16, .*, not kind symbols, vocab_size 32"),
        ({"obs_size": 30}, "obs_size = 22, not 30"),
        ({"action_space": spaces.Discrete(3)}, "action_space = kind multi_discrete, .* not kind discrete, n 3"),
        ({"num_agents": 65}, "tells 64 agents apart, and there are 65"),
        ({"messages": None}, "messages = .* not None"),
    ],
)
def test_a_place_that_does_not_fit_is_refused(tmp_path, change, sentence):
    agent_of().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=sentence):
        TinyAgent.from_pretrained(tmp_path, dataclasses.replace(default_spec(), **change))


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()], r"has no config\.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors"),
    "half the weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:3000]),
        r"model\.safetensors is damaged: ",
    ),
    "half the config": (lambda f: (f / "config.json").write_text('{"format": '), r"config\.json cannot be read: "),
    "another JSON": (lambda f: (f / "config.json").write_text("[1]"), r"does not describe an agent of popcomm"),
    "a later version": (lambda f: edit(f, format_version=2), r"has format_version 2, and this popcomm reads 1"),
    "another class": (lambda f: edit(f, **{"class": "MLPAgent"}), r"holds a MLPAgent, and not a TinyAgent"),
    "no spec": (lambda f: edit(f, spec={}), r"config\.json is damaged: "),
    "an unknown argument": (lambda f: edit(f, config={"wings": 2}), r"config\.json is damaged: .*'wings'"),
    "another size": (lambda f: edit(f, config={**SIZES, "hidden_dim": 32}), r"the weight '.*' with shape .* asks for"),
    "another depth": (lambda f: edit(f, config={**SIZES, "depth": 2}), r"lacks the weight 'blocks\.1\."),
    "another head": (lambda f: edit(f, config={**SIZES, "num_heads": 5}), r"num_heads is 5, and must divide"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_or_missing_is_said_in_one_sentence(tmp_path, damage):
    agent_of().save_pretrained(tmp_path)
    harm, sentence = DAMAGE[damage]
    harm(tmp_path)
    with pytest.raises(UserError, match=sentence) as refusal:
        TinyAgent.from_pretrained(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, and an agent is saved in a folder"):
        agent_of().save_pretrained(tmp_path / "file")


class Bare(Pretrained, torch.nn.Module):
    """Any class with a spec and JSON arguments."""

    def __init__(self, spec, width):
        super().__init__()
        self.spec, self.config = spec, {"width": width}
        self.weight = torch.nn.Parameter(torch.randn(width))


def test_any_agent_with_a_spec_and_a_config_can_be_saved(tmp_path):
    agent = Bare(SPECS["silent"], 7)
    agent.save_pretrained(tmp_path)
    assert torch.equal(load(Bare, tmp_path).weight, agent.weight)
    with pytest.raises(UserError, match="holds a Bare, and not a TinyAgent"):
        TinyAgent.from_pretrained(tmp_path)
