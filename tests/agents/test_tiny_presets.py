"""TinyAgent's sizes: presets have the weights that their names promise, and wrong configs are refused."""

import pytest
import torch

from popcomm.agents.tiny import TinyAgent
from popcomm.agents.tiny_presets import TINY_PRESETS, tiny_size
from popcomm.errors import UserError


@pytest.mark.parametrize("name", TINY_PRESETS)
def test_presets_have_as_many_weights_as_their_names_say(name):
    with torch.device("meta"):
        agent = TinyAgent.preset(name)
    number, unit = int(name[5:-1]), {"m": 1e6, "b": 1e9}[name[-1]]
    assert sum(p.numel() for p in agent.parameters()) == pytest.approx(number * unit, rel=0.05)
    assert agent.size.checkpoint_activations == (number * unit >= 250e6)


def test_given_sizes_stand_before_those_of_the_preset():
    agent = TinyAgent(preset="tiny-1m", hidden_dim=16, num_heads=4, depth=1, memory="flare")
    assert agent.config["hidden_dim"] == 16
    assert agent.config["latent_tokens"] == TINY_PRESETS["tiny-1m"].latent_tokens
    assert len(agent.blocks) == 1
    assert tiny_size(None) == tiny_size("tiny-1m", hidden_dim=768, num_heads=12, latent_tokens=32, depth=4)
    assert not tiny_size("tiny-1b", checkpoint_activations=False).checkpoint_activations


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"num_heads": 5}, "num_heads is 5, and must divide hidden_dim = 16"),
        ({"latent_tokens": 0}, "latent_tokens is 0, and must be at least 1"),
        ({"depth": 1.5}, "depth is 1.5, and must be a whole number"),
        ({"preset": "tiny-1n"}, "preset 'tiny-1n' does not exist; did you mean 'tiny-1m'?"),
        ({"message_head": "paralel"}, "message_head 'paralel' does not exist; did you mean 'parallel'?"),
        ({"memory": "flair"}, "memory 'flair' does not exist; did you mean 'flare'?"),
        ({"dtype": "bf61"}, "dtype 'bf61' does not exist; did you mean 'bf16'?"),
        ({"cost_weight": -1}, "cost_weight is -1, and must not be negative"),
    ],
)
def test_wrong_configs_are_refused_in_the_users_words(config, sentence):
    with pytest.raises(UserError) as refusal:
        TinyAgent(**{"hidden_dim": 16, "num_heads": 4, "latent_tokens": 3, "depth": 1, **config})
    assert str(refusal.value).removeprefix("agent_config.") == sentence
