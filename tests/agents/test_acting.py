"""Acting in environments as they are: what comes in, what goes out, what is kept, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from popcomm.agents import AgentSpec
from popcomm.agents.acting import default_spec, spec_for
from popcomm.agents.contract import AgentOutput
from popcomm.agents.tiny import TinyAgent
from popcomm.channels import Symbols, Vectors
from popcomm.envs import referential_v0, with_messages
from popcomm.errors import UserError

SIZES = {"hidden_dim": 16, "num_heads": 4, "latent_tokens": 3, "depth": 1}
MASK = np.array([0, 0, 1], np.int8)


class OddEnv(ParallelEnv):
    """Two agents with spaces that are none of the plain ones: a masked Discrete that starts at 3, and a narrow Box."""

    metadata = {"name": "odd"}  # noqa: RUF012
    possible_agents = ["talker", "mover"]  # noqa: RUF012

    def observation_space(self, agent):
        if agent == "mover":
            return spaces.Box(0, 1, (2, 2), np.float32)
        return spaces.Dict({"observation": spaces.Discrete(4), "action_mask": spaces.MultiBinary(3)})

    def action_space(self, agent):
        return spaces.Discrete(3, start=3) if agent == "talker" else spaces.Box(0, 1e-3, (1, 2), np.float32)

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions):
        done = dict.fromkeys(self.agents, False)
        return self._see(), dict.fromkeys(self.agents, 0.0), done, done, {agent: {} for agent in self.agents}

    def _see(self):
        return {"talker": {"observation": 1, "action_mask": MASK}, "mover": np.ones((2, 2), np.float32)}


def heard(messages=((1, 2, 3, 4), (0, 0, 0, 0)), senders=(2, 0), mask=(1, 0), obs=None):
    obs = np.zeros(22, np.float32) if obs is None else obs
    return {
        "observation": obs,
        "inbox": np.array(messages).reshape(len(mask), -1),
        "senders": np.array(senders),
        "mask": np.array(mask, np.int8),
    }


def agent_of(spec=None, **config):
    return TinyAgent(spec, **{**SIZES, **config}, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("head", ["parallel", "autoregressive"])
def test_agents_without_a_spec_play_the_game_as_it_comes(head):
    agents = [agent_of(message_head=head) for _ in range(4)]
    env = referential_v0.CommunicationEnv(num_agents=4)
    observations, _ = env.reset(seed=1)
    for _ in range(3):
        actions = {}
        for name, agent in zip(env.agents, agents, strict=True):
            action, message = agent.act(observations[name])
            actions[name] = {"action": action, "message": message}
            assert env.action_space(name).contains(actions[name])
            assert message.dtype == np.int64
        observations, *_ = env.step(actions)


def test_the_default_spec_is_that_of_the_game_with_room_for_64_agents():
    spec, plain = spec_for(referential_v0.CommunicationEnv(num_agents=4), "agent_0"), default_spec()
    own = {field.name: getattr(spec, field.name) for field in dataclasses.fields(AgentSpec)}
    assert AgentSpec(**own) == dataclasses.replace(plain, num_agents=4, inbox_size=3)
    assert (plain.num_agents, plain.inbox_size) == (64, 63)


@pytest.mark.parametrize("messages", [Symbols(6, 2), Vectors(3)])
def test_spec_for_fits_any_environment_with_messages(messages):
    env = with_messages(OddEnv(), messages, {"kind": "full"})
    observations, _ = env.reset()
    agents = {name: agent_of(spec_for(env, name)) for name in env.agents}
    for _ in range(5):
        actions = {}
        for name, agent in agents.items():
            action, message = agent.act(observations[name])
            actions[name] = {"action": action, "message": message}
            assert env.action_space(name)["action"].contains(action)
        assert actions["talker"]["action"] == 5  # the only one that the mask allows
        observations, *_ = env.step(actions)
    assert observations["talker"]["mask"].tolist() == [1]


def test_the_observation_is_read_as_the_trainer_reads_it():
    agent, seen = agent_of(), {}
    agent.register_forward_pre_hook(lambda m, args: seen.update(zip(("obs", "inbox", "state"), args, strict=True)))
    agent.act(heard(obs=np.arange(22, dtype=np.float64)))
    assert seen["obs"].tolist() == [[list(range(22))]]
    assert seen["inbox"].messages.tolist() == [[[[1, 2, 3, 4], [0, 0, 0, 0]]]]
    assert seen["inbox"].senders.tolist() == [[[2, 0]]]
    assert seen["inbox"].mask.tolist() == [[[True, False]]]


class Fixed(TinyAgent):
    """Logits written down by hand."""

    def forward(self, obs, inbox, state, said=None, generator=None, greedy=False):
        logits = torch.zeros(1, 1, 20)
        logits[..., 3], logits[..., 17] = 50.0, 1.0
        message = torch.zeros(1, 1, 4, 16)
        message[..., torch.arange(4), torch.tensor([5, 0, 15, 2])] = 50.0
        return AgentOutput(logits, message, torch.zeros(1, 1), {}, {})


def test_greedy_is_the_likeliest_action_and_message_and_samples_follow_the_distribution():
    agent = Fixed(**SIZES)
    action, message = agent.act(heard(), greedy=True)
    assert action.tolist() == [3, 7]
    assert message.tolist() == [5, 0, 15, 2]
    second = [agent.act(heard())[0][1] for _ in range(300)]
    assert agent.act(heard())[0][0] == 3
    # e / (e + 9) = 0.23, with four standard deviations on both sides.
    assert 0.13 < np.mean(np.array(second) == 7) < 0.33


@pytest.mark.parametrize("head", ["parallel", "autoregressive"])
def test_the_generator_alone_decides(head):
    agent = agent_of(message_head=head)

    def game(seed):
        generator = torch.Generator().manual_seed(seed)
        return np.concatenate([np.concatenate(agent.act(heard(), generator=generator)) for _ in range(5)]).tolist()

    torch.manual_seed(0)
    first = game(0)
    torch.manual_seed(9)
    assert game(0) == first != game(1)


def test_the_agent_remembers_until_it_is_reset():
    agent = agent_of(memory="flare")
    told = heard(obs=np.full(22, 3.0))

    def state_after(*observations):
        for observation in observations:
            agent.act(observation)
        return agent._carried["numerator"].clone()

    fresh = state_after(heard())
    assert not torch.allclose(state_after(heard()), fresh)
    agent.reset()
    assert torch.equal(state_after(heard()), fresh)
    agent.reset()
    assert not torch.allclose(state_after(told, heard()), fresh)
    assert not any(value.requires_grad for value in agent._carried.values())


def test_agents_that_never_hear_or_speak_do_without():
    place = dataclasses.replace(default_spec(), hears=False)
    action, message = agent_of(place).act(np.zeros(22))
    assert (action.shape, message.shape) == ((2,), (4,))
    mute = agent_of(dataclasses.replace(default_spec(), speaks=False))
    assert mute.act(heard())[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (heard(obs=np.zeros(30)), r"the observation has 30 numbers, and this TinyAgent was built for 22 numbers; "),
        (heard(obs=np.zeros(1)), r"the observation has 1 number, and this TinyAgent was built for 22"),
        (heard(obs={"left": 1}), r"the observation has the keys left, and"),
        (np.zeros(22), r"the observation has no 'inbox', and this TinyAgent was built for what with_messages"),
        (heard(((1, 2, 3),), (0,), (1,)), r"inbox has shape \(1, 3\).* built for K messages of 4 symbols"),
        (heard(((1, 2, 3, 16),), (0,), (1,)), r"the inbox has the symbol 16, .* built for symbols 0 to 15"),
        (heard(((1, 2, 3, -1),), (0,), (1,)), r"the inbox has the symbol -1"),
        (heard(senders=(64, 0)), r"the senders are \[64\], .* built for 0 to 63"),
    ],
)
def test_what_an_agent_was_not_built_for_is_refused_with_the_way_out(observation, sentence):
    with pytest.raises(UserError, match=sentence) as refusal:
        agent_of().act(observation)
    assert str(refusal.value).endswith("TinyAgent(spec_for(env, agent)) makes one for an environment")


def test_what_is_wrong_in_an_empty_slot_does_not_matter():
    agent = agent_of()
    one, two = (
        agent.act(heard(((1, 2, 3, 4), rest), (2, sender)), greedy=True)
        for rest, sender in (((0,) * 4, 0), ((99,) * 4, 99))
    )
    assert np.array_equal(one[1], two[1])


def test_environments_and_agents_that_do_not_fit_are_refused():
    env = with_messages(OddEnv(), Symbols(6, 2), {"kind": "full"})
    with pytest.raises(UserError, match=r"agent 'talkr' does not exist; did you mean 'talker'\?"):
        spec_for(env, "talkr")
    with pytest.raises(UserError, match="and an agent's spec is read from one that has; wrap with_messages"):
        spec_for(OddEnv(), "talker")
    with pytest.raises(UserError, match="has the layout 'flat'"):
        spec_for(referential_v0.CommunicationEnv(num_agents=2, layout="flat"), "agent_0")
    with pytest.raises(UserError, match="holds 2 members, and acts for one"):
        agent_of(dataclasses.replace(default_spec(), members=2)).act(heard())
