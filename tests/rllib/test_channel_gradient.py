"""How senders learn where a config leaves it open, and what each choice makes of the messages."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from popcomm.channels import Symbols
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from tests.rllib.worlds import ClockWorld

SMALL = {"kind": "symbols", "vocab_size": 8, "length": 2}


def config_of(messages: Any, agent: Any = "mlp", **communication: Any) -> PopulationPPOConfig:
    config = PopulationPPOConfig().environment(ClockWorld)
    return config.communication(messages=messages, **communication).population(agent=agent)


@pytest.mark.parametrize(
    ("messages", "agent", "expected"),
    [
        (SMALL, "mlp", "relaxed"),
        (SMALL, "symbolic", "relaxed"),
        (SMALL, "gru", "straight_through"),
        (SMALL, "tiny", "straight_through"),
        ({**SMALL, "vocab_size": 33}, "mlp", "straight_through"),
        ({**SMALL, "vocab_size": 32}, "mlp", "relaxed"),
        ({**SMALL, "relaxed": True}, "mlp", "through"),
        ({"kind": "vectors", "size": 2}, "mlp", "through"),
        ({"kind": "dru", "size": 2}, "mlp", "through"),
        ({"kind": "words", "vocab": 4}, "mlp", "straight_through"),
    ],
)
def test_what_is_left_open_follows_from_the_messages_and_the_agent(messages: Any, agent: str, expected: str) -> None:
    assert config_of(messages, agent).plan.gradient == expected


def test_relaxed_symbols_are_what_is_sent_only_where_that_is_how_senders_learn() -> None:
    assert config_of(SMALL).message_kind == RelaxedSymbols(8, 2)
    for gradient in ("straight_through", "reinforce", "none"):
        assert config_of(SMALL, gradient=gradient).message_kind == Symbols(8, 2)
    assert config_of({**SMALL, "vocab_size": 100}, gradient="relaxed").message_kind == RelaxedSymbols(100, 2)


class DearSymbols(Symbols):
    """Symbols of a user's own."""

    def load(self, messages: Tensor) -> Tensor:
        return 3 * super().load(messages)


def test_symbols_of_the_users_own_stay_what_they_are_where_nothing_is_chosen() -> None:
    assert type(config_of(DearSymbols(8, 2)).message_kind) is DearSymbols


def test_a_gradient_that_the_kind_does_not_have_is_told_with_those_that_it_has() -> None:
    with pytest.raises(UserError, match=r"communication.gradient is 'relaxed', and for words must be one of: straight"):
        config_of({"kind": "words"}, gradient="relaxed").validate()
    with pytest.raises(UserError, match=r"gradient is 'reinforce', and for relaxed symbols must be one of: relaxed"):
        config_of({**SMALL, "relaxed": True}, gradient="reinforce").validate()


def test_losses_that_need_learned_messages_are_off_where_messages_are_not_learned() -> None:
    assert config_of(SMALL).plan.species["speaker"].quality_weight > 0
    assert config_of(SMALL, gradient="reinforce").plan.species["speaker"].quality_weight == 0
    assert config_of(SMALL, gradient="reinforce").plan.species["speaker"].balance_weight > 0
    assert config_of(SMALL, gradient="none").plan.species["speaker"].balance_weight == 0
    assert config_of(None).plan.species["speaker"].quality_weight == 0
