"""Words on any ParallelEnv: how they are said and heard in Gymnasium's spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo.test import parallel_api_test

from popcomm.agents import AGENTS
from popcomm.agents.acting import spec_for
from popcomm.agents.tiny import TinyAgent
from popcomm.channels import Channel, Full, Inbox, Words
from popcomm.envs import with_messages
from popcomm.envs.messaging_layouts import LAYOUTS, Layout
from popcomm.errors import UserError
from tests.envs.scripted_env import ScriptedEnv

GATED, PLAIN, LEXICON = Words(5, 2, 3), Words(5, 2, 3, speak_gate=False), Words(5, 2, 3, vocab=6)
KINDS = [GATED, PLAIN, LEXICON, Words(), Words(40, 9, 12)]
WORD = [0, 1, 1, 0, 0]


def layout_of(kind: Words, name: str = "dict", **env: Any) -> Layout:
    env = {"possible": ("a_0", "a_1", "a_2"), **env}
    parallel = ScriptedEnv([{}] * 3, **env)
    return LAYOUTS[name](parallel, Channel(kind, Full(), len(parallel.possible_agents)))


def inbox_of(words: np.ndarray, senders: list[int], mask: list[bool] | None = None) -> Inbox:
    """One agent's inbox; all is real without a mask."""
    real = [True] * len(senders) if mask is None else mask
    return Inbox(torch.from_numpy(words), torch.tensor(senders), torch.tensor(real))


@pytest.mark.parametrize("layout", ["dict", "flat"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("error::UserWarning")
def test_words_pass_the_parallel_api_test(kind: Words, layout: str) -> None:
    lives = [{"a_2": "born"}, {"a_0": "terminated"}, {"a_3": "born", "a_1": "truncated"}, {}]
    parallel_api_test(with_messages(ScriptedEnv(lives, mask="info"), kind, Full(), layout=layout), 20)


@pytest.mark.parametrize("name", ["dict", "flat"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_and_heard_lies_in_its_space(kind: Words, name: str) -> None:
    layout = layout_of(kind, name)
    space, words = layout.action_spaces["a_0"], set()
    space.seed(0)
    for _ in range(50):
        own, message = layout.split("a_0", space.sample())
        assert message.shape == ()
        assert message.dtype == np.dtype(str(kind.dtype).removeprefix("torch."))
        assert own in range(4)
        words.add(int(message))
    assert kind.gated(torch.tensor(list(words), dtype=kind.dtype)).tolist() == list(words)
    two = kind.uniform(np.random.default_rng(0), 2)
    heard = inbox_of(two, [1, 2])
    observation = layout.join("a_0", np.zeros(3, np.float32), heard)
    assert layout.observation_spaces["a_0"].contains(observation)


@pytest.mark.parametrize(
    ("kind", "said", "word"),
    [
        (GATED, {"message": WORD, "speak": 1}, 0b00110),
        (GATED, {"message": np.array(WORD), "speak": np.int64(1)}, 0b00110),
        (GATED, {"message": WORD}, 0b00110),
        (GATED, {"message": WORD, "speak": 0}, 0),
        (GATED, {"message": [1] * 5, "speak": 1}, 0),
        (PLAIN, {"message": WORD}, 0b00110),
        (PLAIN, {"message": [0] * 5}, 0),
        (LEXICON, {"message": 0}, 0),
        (LEXICON, {"message": 6}, int(LEXICON.lexicon[-1])),
    ],
)
def test_actions_of_a_dict_hold_bits_and_the_gate_or_an_index(kind: Words, said: dict[str, Any], word: int) -> None:
    action, message = layout_of(kind).split("a_1", {"action": 2, **said})
    assert (action, int(message)) == (2, word)


def test_spaces_of_a_dict_are_those_of_bits_or_of_indices() -> None:
    bits = spaces.MultiDiscrete([2] * 5)
    said = {kind: layout_of(kind).action_spaces["a_0"] for kind in (GATED, PLAIN, LEXICON)}
    own = spaces.Discrete(4)
    assert said[GATED] == spaces.Dict({"action": own, "message": bits, "speak": spaces.Discrete(2)})
    assert said[PLAIN] == spaces.Dict({"action": own, "message": bits})
    assert said[LEXICON] == spaces.Dict({"action": own, "message": spaces.Discrete(7)})
    heard = {kind: layout_of(kind).observation_spaces["a_0"]["inbox"] for kind in (GATED, LEXICON)}
    assert heard[GATED] == spaces.MultiDiscrete([[2] * 5] * 2)
    assert heard[LEXICON] == spaces.MultiDiscrete([[7], [7]])


def test_inboxes_of_a_dict_hold_bits_or_indices() -> None:
    heard = inbox_of(np.array([0b00110, 0], np.int32), [2, 0], [True, False])
    assert layout_of(GATED).join("a_1", None, heard)["inbox"].tolist() == [WORD, [0] * 5]
    heard = inbox_of(np.array([int(LEXICON.lexicon[3]), 0], np.int32), [2, 0], [True, False])
    assert layout_of(LEXICON).join("a_1", None, heard)["inbox"].tolist() == [[4], [0]]


def test_flat_actions_are_all_choices_in_a_row() -> None:
    spaces_of = {kind: layout_of(kind, "flat").action_spaces["a_0"] for kind in (GATED, PLAIN, LEXICON)}
    assert spaces_of[GATED] == spaces.MultiDiscrete([4] + [2] * 6)
    assert spaces_of[PLAIN] == spaces.MultiDiscrete([4] + [2] * 5)
    assert spaces_of[LEXICON] == spaces.MultiDiscrete([4, 7])
    for kind, choices, word in (
        (GATED, [*WORD, 1], 0b00110),
        (GATED, [*WORD, 0], 0),
        (PLAIN, WORD, 0b00110),
        (LEXICON, [2], int(LEXICON.lexicon[1])),
    ):
        action, message = layout_of(kind, "flat").split("a_0", np.array([3, *choices]))
        assert (int(action), int(message)) == (3, word)


@pytest.mark.parametrize("kind", [GATED, LEXICON])
def test_flat_observations_are_observation_then_bits_then_mask(kind: Words) -> None:
    layout = layout_of(kind, "flat")
    word = int(LEXICON.lexicon[0])
    heard = inbox_of(np.array([word, 0], np.int32), [1, 0], [True, False])
    observation = layout.join("a_0", np.array([7, 8, 9], np.float32), heard)
    bits = [float(word >> i & 1) for i in range(5)]
    assert observation.tolist() == [7, 8, 9, *bits, 0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(("kind", "choices"), [(GATED, 12), (PLAIN, 10), (LEXICON, 7)])
def test_flat_action_masks_allow_all_choices_of_a_message(kind: Words, choices: int) -> None:
    layout = layout_of(kind, "flat", mask="info")
    info = layout.info("a_0", np.zeros(3), {"action_mask": np.array([1, 0, 1, 0])})
    assert info["action_mask"].tolist() == [1, 0, 1, 0] + [1] * choices
    assert len(info["action_mask"]) == layout.action_spaces["a_0"].nvec.sum()


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        (GATED, {"message": [0, 1]}, r"the message of 'a_0' is \[0, 1\], and must be of MultiDiscrete"),
        (GATED, {"message": [2] * 5}, "the message of 'a_0' is"),
        (GATED, {"message": WORD, "speak": 2}, r"the 'speak' of 'a_0' is 2, and must be of Discrete\(2\)"),
        (LEXICON, {"message": 7}, r"the message of 'a_0' is 7, and must be of Discrete\(7\)"),
        (LEXICON, {"message": [1]}, r"the message of 'a_0' is \[1\], and must be of Discrete\(7\)"),
        (LEXICON, {"message": 0.5}, "the message of 'a_0' is 0.5"),
    ],
)
def test_what_does_not_fit_its_space_is_refused(kind: Words, said: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        layout_of(kind).split("a_0", {"action": 0, **said})


# ---- agents that act in it ----


@pytest.mark.parametrize("kind", [GATED, LEXICON])
def test_agents_say_and_hear_words_as_the_environment_takes_and_gives_them(kind: Words) -> None:
    env = with_messages(ScriptedEnv([{}] * 9), kind, Full())
    observations, _ = env.reset(seed=0)
    sizes = {"hidden_dim": 16, "num_heads": 4, "latent_tokens": 3, "depth": 1}
    agents = {name: TinyAgent(spec_for(env, name), **sizes) for name in env.possible_agents}
    layout, generator = layout_of(kind), torch.Generator().manual_seed(0)
    said = set()
    for _ in range(9):
        actions = {}
        for name in env.agents:
            action, message = agents[name].act(observations[name], generator=generator)
            actions[name] = {"action": action, "message": message}
            assert message.shape == (() if kind.vocab else (5,))
            said.add(int(layout.split("a_0", actions[name])[1]))
        observations, *_ = env.step(actions)
    assert len(said - {0}) > 1


@pytest.mark.parametrize("kind", [GATED, LEXICON])
def test_agents_read_the_packed_words_that_were_sent(kind: Words) -> None:
    env = with_messages(ScriptedEnv([{}] * 3), kind, Full())
    agent, seen = AGENTS["tiny"](spec_for(env, "a_0"), hidden_dim=16, num_heads=4, latent_tokens=3, depth=1), {}
    agent.register_forward_pre_hook(lambda m, args: seen.update(zip(("obs", "inbox", "state"), args, strict=True)))
    words = LEXICON.lexicon.numpy()[[1, 4]]
    heard = inbox_of(words, [1, 2])
    agent.act(layout_of(kind).join("a_0", np.zeros(3), heard))
    assert seen["inbox"].messages.tolist() == [[words.tolist()]]
    assert seen["inbox"].messages.dtype == kind.dtype


def test_an_inbox_of_another_size_of_words_is_refused() -> None:
    env = with_messages(ScriptedEnv([{}] * 3), GATED, Full())
    agent = TinyAgent(spec_for(env, "a_0"), hidden_dim=16, num_heads=4, latent_tokens=3, depth=1)
    heard = {"observation": np.zeros(3), "senders": np.zeros(1, int), "mask": np.ones(1, np.int8)}
    with pytest.raises(UserError, match=r"the inbox has shape \(1, 4\).* built for K messages of 5 bits"):
        agent.act({**heard, "inbox": np.zeros((1, 4), int)})
    with pytest.raises(UserError, match=r"the inbox has the symbol 2, .* built for symbols 0 to 1"):
        agent.act({**heard, "inbox": np.full((1, 5), 2)})
