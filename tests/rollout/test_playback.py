"""Playback: frames of world 0, with the links of what is heard in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from popcomm.channels import Links
from popcomm.channels.mail import LogOf, Mail
from popcomm.errors import UserError
from popcomm.rollout import Rollout
from popcomm.rollout.playback import frames, heard_links
from tests.rollout.test_rollout import rollout_of


class Troupe:
    """A population whose worlds draw the links, one pixel each."""

    def __init__(self, draws: bool = True, **options: Any) -> None:
        self.draws, self.options, self.closed = draws, options, 0

    def rollout(
        self,
        seed: int = 0,
        greedy: bool = False,
        worlds: int | None = None,
        env_config: Mapping[str, Any] | None = None,
    ) -> Rollout:
        rollout = rollout_of(seed=seed, explore=not greedy, **self.options)
        world: Any = rollout.world

        def render(world: int = 0, links: Tensor | None = None) -> np.ndarray:
            size = 0 if links is None else len(links)
            return np.full((1, 1, 3), size, np.uint8)

        def close() -> None:
            self.closed += 1

        world.close = close
        if self.draws:
            world.render = render
        return rollout


def test_there_is_a_picture_of_every_step_with_all_who_hear_one_another() -> None:
    troupe = Troupe()
    # Four seats hear three others each, but in the first step of an episode, the picture after row 3.
    assert [int(picture[0, 0, 0]) for picture in frames(troupe, 6)] == [12, 12, 12, 0, 12, 12]
    assert troupe.closed == 1


def test_in_silence_no_link_is_drawn() -> None:
    assert [int(picture.max()) for picture in frames(Troupe(kind=None), 2)] == [0, 0]


def test_a_world_without_a_picture_is_refused_and_closed() -> None:
    troupe = Troupe(draws=False)
    with pytest.raises(UserError, match="popcomm play needs an environment that can be rendered"):
        next(frames(troupe))
    assert troupe.closed == 1


def test_links_are_pairs_of_sender_and_receiver_of_the_first_world() -> None:
    slots = torch.tensor([[[1], [0]], [[1], [1]]])
    mask = torch.tensor([[[True], [False]], [[True], [True]]])
    mail = Mail(torch.zeros(2, 2, 1), slots, mask)
    assert mail.links == Links(slots, mask)
    found = heard_links(mail)
    assert found is not None
    assert found.tolist() == [[1, 0]]
    assert heard_links(mail._replace(hears=torch.ones(2, 2, dtype=torch.bool))) is None
    assert heard_links(None) is None


def test_repetitions_and_published_words_are_no_links() -> None:
    log = LogOf(torch.tensor([[2, 0, 1]]), torch.tensor([[False, True, False]]))
    slots, mask = torch.tensor([[[0, 2], [1, 0]]]), torch.ones(1, 2, 2, dtype=torch.bool)
    mail = Mail(torch.tensor([[5, 6, 7]]), slots, mask, log=log)
    assert mail.senders.tolist() == [[[2, 1], [0, 2]]]
    found = heard_links(mail)
    assert found is not None
    assert found.tolist() == [[0, 1]]
