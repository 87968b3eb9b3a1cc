"""The critic that sees a whole world: what it remembers, whose actions it looks at, and what it says."""

from __future__ import annotations

import torch
from gymnasium import spaces

from popcomm.agents.joint_critic import JointCritic, joined, seen_so_far
from popcomm.envs.world import Species

SPEAKERS = Species("speaker", 0, 2, 3, spaces.MultiDiscrete([2, 3]))
LISTENERS = Species("listener", 2, 5, 1, spaces.Discrete(4))


def critic() -> JointCritic:
    torch.manual_seed(0)
    return JointCritic({"speaker": SPEAKERS, "listener": LISTENERS}, ("listener",), hidden=8)


def world(rows: int = 5) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    obs = {"speaker": torch.randn(rows, 1, 2, 3), "listener": torch.randn(rows, 1, 3, 1)}
    alive = {name: torch.ones(x.shape[:3], dtype=torch.bool) for name, x in obs.items()}
    seen = joined({name: seen_so_far(x, alive[name], alive[name]) for name, x in obs.items()})
    actions = {
        "speaker": torch.stack([torch.randint(2, (rows, 1, 2)), torch.randint(3, (rows, 1, 2))], -1),
        "listener": torch.randint(4, (rows, 1, 3)),
    }
    return seen, actions, alive


def test_it_says_of_each_action_of_each_seat_what_it_is_worth() -> None:
    worth = critic()(*world(rows=5))
    assert list(worth) == ["listener"]
    assert worth["listener"].shape == (5, 1, 3, 4)


def test_what_a_seat_did_changes_what_others_actions_are_worth_and_not_its_own() -> None:
    seen, actions, alive = world()
    before = critic()(seen, actions, alive)["listener"]
    other = actions["listener"].clone()
    other[:, :, 1] = (other[:, :, 1] + 1) % 4
    after = critic()(seen, actions | {"listener": other}, alive)["listener"]
    torch.testing.assert_close(after[:, :, 1], before[:, :, 1])
    assert (after[:, :, [0, 2]] - before[:, :, [0, 2]]).abs().amax((0, 1, 3)).min() > 1e-3


def test_what_another_species_did_counts_too() -> None:
    seen, actions, alive = world()
    before = critic()(seen, actions, alive)["listener"]
    other = actions["speaker"].clone()
    other[..., 0] = 1 - other[..., 0]
    assert (critic()(seen, actions | {"speaker": other}, alive)["listener"] - before).abs().amin() > 0


def test_the_dead_do_nothing_whatever_their_rows_hold() -> None:
    seen, actions, alive = world()
    gone = alive["listener"].clone()
    gone[:, :, 0] = False
    alive = alive | {"listener": gone}
    before = critic()(seen, actions, alive)["listener"]
    other = actions["listener"].clone()
    other[:, :, 0] = 10**6
    torch.testing.assert_close(critic()(seen, actions | {"listener": other}, alive)["listener"], before)


def test_traces_are_what_is_seen_and_averages_that_fade_within_a_life() -> None:
    obs = torch.tensor([8.0, 2.0, 5.0, 1.0]).view(1, 4, 1, 1)
    first = torch.tensor([True, False, False, True]).view(1, 4, 1)
    traces = seen_so_far(obs, first, torch.ones_like(first))[0, :, 0]
    # 8; .8 * 8 + .2 * 2 = 6.8; .8 * 6.8 + .2 * 5 = 6.44; a new life: 1; and the same with .97
    expected = [[8, 8, 8], [2, 6.8, 7.82], [5, 6.44, 7.7354], [1, 1, 1]]
    torch.testing.assert_close(traces[:, :3], torch.tensor(expected))
    assert traces[:, 3:].eq(1).all()  # alive, and nothing of the life is missing


def test_a_life_that_began_before_the_fragment_is_told_from_one_that_is_known_from_its_start() -> None:
    obs = torch.tensor([8.0, 2.0, 5.0]).view(1, 3, 1, 1)
    first = torch.tensor([False, False, True]).view(1, 3, 1)
    traces = seen_so_far(obs, first, torch.ones_like(first))[0, :, 0]
    torch.testing.assert_close(traces[:, 1], torch.tensor([8, 6.8, 5]))
    assert traces[:, 4].tolist() == [0, 0, 1]


def test_the_dead_have_seen_nothing() -> None:
    obs, alive = torch.full((1, 2, 1, 2), torch.nan), torch.zeros(1, 2, 1, dtype=torch.bool)
    assert seen_so_far(obs, alive, alive)[..., :7].eq(0).all()


def test_what_a_candidate_is_worth_does_not_hang_on_its_place() -> None:
    """Heads and what is seen of candidates by place are out of the way; what speaks for each of them is left."""
    space = spaces.Dict(due=spaces.Box(0, 1, (1,)), candidates=spaces.Box(-1, 1, (4, 2)))
    picks = Species("listener", 2, 5, 9, spaces.Discrete(4), structure=space)
    torch.manual_seed(0)
    judge = JointCritic({"speaker": SPEAKERS, "listener": picks}, ("listener",), hidden=8)
    _, actions, alive = world()
    obs = {"speaker": torch.randn(5, 1, 2, 3), "listener": torch.randn(5, 1, 3, 9)}
    order = [2, 0, 3, 1]

    def told(listeners: torch.Tensor) -> torch.Tensor:
        seen = {"speaker": obs["speaker"], "listener": listeners}
        return judge(
            joined({name: seen_so_far(x, alive[name], alive[name]) for name, x in seen.items()}), actions, alive
        )["listener"]

    with torch.no_grad():
        judge.world.weight[:, 2 * (3 * 3 + 2) :] = 0.0
        judge.heads[0].weight.zero_()  # type: ignore[union-attr,operator]
        judge.heads[0].bias.zero_()  # type: ignore[union-attr,operator]
    rows = obs["listener"][..., 1:].unflatten(-1, (4, 2))
    moved = torch.cat([obs["listener"][..., :1], rows[..., order, :].flatten(-2)], -1)
    found = told(obs["listener"])
    assert found.std() > 0.01
    torch.testing.assert_close(told(moved), found[..., order])
