"""How heads start: decisions that differ from the first step on, so that a message can matter to somebody.

A sender's information times its receivers' sensitivity is a saddle: with both near zero neither learns from the other.
The usual start of PPO, a policy of gain 0.01, is right where nobody talks; here it costs the language.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from popcomm.agents.population import orthogonal_, orthogonal_layer_

# Standard deviation of the logits of messages at the start: 0.9 to 0.99 of the largest entropy for 2 to 64 symbols.
MESSAGE_SPREAD = 0.4
POLICY_GAIN = 1.0
# Of what enters a memory and of what stays of its last state; of the doors that keep it and let it out, in logits.
MEMORY_GAIN, RECURRENT_GAIN = 3.0, 0.5
MEMORY_OPEN = 1.0


def start_message_head_(layer: Any, scale: float, generator: torch.Generator | None = None) -> None:
    """Orthogonal weights such that logits spread by MESSAGE_SPREAD, and no bias: no symbol is preferred for all.

    Args:
        layer: a PopulationLinear.
        scale: root mean square of its inputs at the start.
    """
    # Of orthonormal columns w, w x has the deviation |x| / sqrt(in), which is the root mean square of x; where there
    # are more columns than rows it is the rows that are orthonormal, and the deviation is |x| / sqrt(out).
    rows, columns = layer.weight.shape[-2:]
    orthogonal_layer_(layer, MESSAGE_SPREAD / scale * math.sqrt(max(1.0, columns / rows)), generator)


def start_memory_(cell: Any, generator: torch.Generator | None = None) -> None:
    """A memory whose state is about as loud as what is seen and heard, and that keeps it.

    As torch starts it, an LSTM forgets half in every step and its state has a tenth of the size of an observation: what
    was heard two steps ago then moves nobody, and nobody says it again. Here new content is an orthogonal function of
    the input, and the doors that keep it and let it out are more open than not (Jozefowicz 2015, section 4, for the
    first of them).

    Args:
        cell: a PopulationLSTMCell, as torch starts it; its blocks are input, forget, new, output.
    """
    forget, new, leave = (slice(i * cell.hidden_size, (i + 1) * cell.hidden_size) for i in (1, 2, 3))
    with torch.no_grad():
        for weight, gain in ((cell.weight_ih, MEMORY_GAIN), (cell.weight_hh, RECURRENT_GAIN)):
            block = weight.new_empty(*weight.shape[:2], cell.hidden_size)
            weight[..., new] = orthogonal_(block, gain, generator)
        for bias in (cell.bias_ih, cell.bias_hh):
            bias[:, new] = 0.0
        for door in (forget, leave):
            cell.bias_ih[:, door] += MEMORY_OPEN
