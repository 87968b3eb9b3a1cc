"""Trips between arrays and the tensors of a device: what goes together is one transfer from or to a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def fetched(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors of one device as arrays, those of the CPU in the same memory."""
    if same_memory(tensors[0].device):
        return [values.numpy() for values in tensors]
    return [values.numpy() for values in _parted(_packed(tensors).cpu(), tensors)]


def placed(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Tensors of the CPU on a device, those of the CPU in the same memory."""
    if same_memory(torch.device(device)):
        return list(tensors)
    return _parted(_packed(tensors).to(device), tensors)


def same_memory(device: torch.device) -> bool:
    """Whether tensors of the device can share the memory of arrays."""
    return device.type == "cpu"


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """All bytes, one tensor after the other: [bytes] uint8."""
    return torch.cat([values.contiguous().flatten().view(torch.uint8) for values in tensors])


def _parted(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that were packed, of the shapes and kinds of `like`."""
    parts = packed.split([values.numel() * values.element_size() for values in like])
    # Copied first: a view of eight bytes must begin at a multiple of eight.
    return [part.clone().view(own.dtype).view(own.shape) for part, own in zip(parts, like, strict=True)]
